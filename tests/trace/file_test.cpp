// Recordings: what is written comes back, a file that ends early says so and gives what it has, and no damage
// is taken for data.
#include "trace/help.h"

#include "trace/columns.h"

using namespace fathom;
using namespace fathom::trace_test;

namespace {

// 600 records, the last 300 generated, a rewind in the middle.
std::vector<std::byte> recording(ScratchFile& file, bool finished = true) {
    trace::Writer writer(file.path(), identity(), text_of);
    for (uint32_t i = 0; i < 600; ++i) {
        if (i == 400)
            writer.write(trace::Event{.kind = trace::Event::Kind::rewound, .session = 1, .position = 9});
        writer.write(record(i, i >= 300));
    }
    if (finished)
        writer.finish();
    else
        writer.flush();
    return file.bytes();
}

} // namespace

TEST_CASE("a recording comes back as it was written") {
    ScratchFile file;
    recording(file);
    const trace::Recording read = trace::read_recording(file.path());
    CHECK(read.incomplete.empty());
    CHECK(read.identity.shape == shape());
    CHECK(read.identity.facts == identity().facts);
    REQUIRE(read.tokens.size() == 600);
    for (uint32_t i = 0; i < 600; ++i) CHECK(same(read.tokens[i], record(i, i >= 300)));
    REQUIRE(read.events.size() == 1);
    CHECK(read.events[0].token == 400);
    CHECK(read.events[0].event ==
          trace::Event{.kind = trace::Event::Kind::rewound, .session = 1, .position = 9});
    CHECK(read.text(7) == "<7>");
    CHECK(read.text(58) == "<58>"); // a candidate alone
    CHECK(read.text(1000).empty());
}

TEST_CASE("records of a trace that was off have no tables") {
    const trace::TokenRecord bare{.token = 3, .position = 1};
    const auto bytes = trace::write_columns(shape(), std::vector{bare, record(2)});
    const auto read = trace::read_columns(shape(), bytes, 2);
    CHECK(same(read[0], bare));
    CHECK(same(read[1], record(2)));
    CHECK_THROWS_AS(trace::read_columns(shape(), bytes, 3), std::out_of_range);
    CHECK_THROWS_AS(trace::read_columns(shape(), bytes, 1), std::out_of_range);
    CHECK_THROWS_AS(trace::read_columns(shape(), std::span(bytes).first(bytes.size() - 1), 2),
                    std::out_of_range);
}

TEST_CASE("a recording that goes on, or was cut off anywhere, gives what it has") {
    ScratchFile file;
    const auto going_on = recording(file, false);
    const trace::Recording unfinished = trace::read_recording(going_on, "file");
    CHECK(unfinished.tokens.size() == 600);
    CHECK(!unfinished.incomplete.empty());
    const auto whole = recording(file);
    size_t last = 0;
    for (size_t size = 0; size < whole.size(); size += 1 + size % 37) {
        const auto part = std::span(whole).first(size);
        try {
            const trace::Recording read = trace::read_recording(part, "file");
            CHECK(read.tokens.size() >= last);
            CHECK((!read.incomplete.empty() || size > going_on.size())); // only the index is missing
            for (size_t i = 0; i < read.tokens.size(); i += 41)
                CHECK(same(read.tokens[i], record(static_cast<uint32_t>(i), i >= 300)));
            last = read.tokens.size();
        } catch (const Error&) {
            CHECK(size < 600); // it did not get to the first record
            CHECK(last == 0);
        }
    }
    CHECK(last == 600);
}

TEST_CASE("damage is noticed wherever it is") {
    ScratchFile file;
    const auto whole = recording(file), records = recording(file, false);
    for (size_t at = 0; at < records.size(); at += 3) {
        auto damaged = whole;
        damaged[at] ^= std::byte{0x10};
        try {
            const trace::Recording read = trace::read_recording(damaged, "file");
            for (size_t i = 0; i < read.tokens.size(); i += 29)
                CHECK(same(read.tokens[i], record(static_cast<uint32_t>(i), i >= 300)));
            if (read.incomplete.empty()) CHECK(read.tokens.size() == 600); // a reserved field
        } catch (const Error&) {
        }
    }
}

TEST_CASE("what is no recording, and a newer one, are errors") {
    ScratchFile file;
    auto bytes = recording(file);
    bytes[8] = std::byte{trace::VERSION + 1};
    try {
        trace::read_recording(bytes, "newer.ftrace");
        FAIL("a newer version was read");
    } catch (const Error& error) {
        CHECK(error.parts().got == fmt::format("version {}", trace::VERSION + 1));
        CHECK(error.parts().fix == "use a newer fathom");
    }
    CHECK_THROWS_AS(trace::read_recording(std::as_bytes(std::span("hello")), "text"), Error);
    bytes.resize(16); // nothing but an index behind the header
    bytes[8] = std::byte{trace::VERSION};
    const auto index = trace::pack_frame(trace::Kind::index, {}, 0);
    bytes.insert(bytes.end(), index.begin(), index.end());
    CHECK_THROWS_AS(trace::read_recording(bytes, "index.ftrace"), Error);
    CHECK_THROWS_AS(trace::read_recording("/nonexistent.ftrace"), Error);
    CHECK_THROWS_AS(trace::Writer("/nonexistent/x.ftrace", identity(), text_of), Error);
}

TEST_CASE("a recording whose tables or shape make no sense ends before them") {
    ScratchFile file;
    const auto incomplete = [&](const trace::TokenRecord& bad) {
        trace::Writer writer(file.path(), identity(), text_of);
        for (uint32_t i = 0; i < 256; ++i) writer.write(record(i)); // a frame of its own
        writer.write(bad);
        writer.finish();
        const trace::Recording read = trace::read_recording(file.path());
        CHECK(read.tokens.size() == 256);
        return read.incomplete;
    };
    auto bad = record(1);
    bad.margin.clear();
    CHECK(incomplete(bad).find("some of its tables") != std::string::npos);
    bad = record(1);
    bad.experts[2] = 8;
    CHECK(incomplete(bad).find("expert 8 of 8") != std::string::npos);
    trace::Identity wrong = identity();
    wrong.shape.n_active = 0;
    trace::Writer(file.path(), wrong, text_of).finish();
    CHECK_THROWS_AS(trace::read_recording(file.path()), Error);
}

TEST_CASE("a queue drops what it cannot hold, and says how much") {
    trace::Queue queue(10);
    for (uint32_t i = 0; i < 25; ++i) queue.offer(record(i));
    CHECK(queue.dropped() == 15);
    auto packets = queue.take();
    REQUIRE(packets.size() == 11);
    CHECK(std::get<trace::Event>(packets.back()).count == 15);
    queue.offer(record(30));
    packets = queue.take();
    REQUIRE(packets.size() == 1);
    CHECK(same(std::get<trace::TokenRecord>(packets[0]), record(30)));
    queue.close();
    queue.offer(record(31));
    CHECK(queue.take_within(std::chrono::seconds(100)).empty());
}

TEST_CASE("a sink writes what its queue got, gaps among it") {
    ScratchFile file;
    {
        trace::FileSink sink(file.path(), identity(), text_of);
        for (uint32_t i = 0; i < 20; ++i) sink.queue().offer(record(i));
        sink.queue().offer(trace::Event{.kind = trace::Event::Kind::gap, .count = 4});
        sink.finish();
    }
    const trace::Recording read = trace::read_recording(file.path());
    CHECK(read.tokens.size() == 20);
    CHECK(read.incomplete.empty());
    REQUIRE(read.events.size() == 1);
    CHECK(read.events[0].event.count == 4);
    CHECK_THROWS_AS(trace::FileSink("/dev/full", identity(), text_of), Error); // opens, and takes nothing
}
