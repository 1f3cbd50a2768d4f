// What the engine tells is what it did: records against the CPU reference's over the same tokens, and events.
#include "session/help.h"

#include <algorithm>

using namespace fathom;
using namespace fathom::session_test;

namespace {

// The largest distance of two tables, relative above 1; infinities and NaN where the other has them.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double most = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        CHECK(std::isfinite(a[i]) == std::isfinite(b[i]));
        if (std::isfinite(a[i]))
            most = std::max(most, std::abs(double(a[i]) - b[i]) / std::max(1.0, std::abs(double(b[i]))));
    }
    return most;
}

} // namespace

TEST_CASE("trace: records are those of the CPU reference") {
    for (const char* name : {"v3_base", "v2_odd", "v2_groups"}) {
        CAPTURE(name);
        const auto gpu = load(name), reference = load(name, {.reference = true});
        const auto run = [&](Engine& engine) {
            trace::Queue queue;
            engine.listen(queue);
            auto session = opened(engine, prompt(40, 7));
            session.sampling().temperature = 0;
            for (int i = 0; i < 6; ++i) session.next();
            engine.ignore(queue);
            std::vector<trace::TokenRecord> records;
            for (const trace::Packet& packet : queue.take())
                if (const auto* record = std::get_if<trace::TokenRecord>(&packet)) records.push_back(*record);
            return records;
        };
        const auto a = run(*gpu), b = run(*reference);
        REQUIRE(a.size() == 45); // 39 of the prompt, six steps
        REQUIRE(b.size() == a.size());
        for (size_t i = 0; i < a.size(); ++i) {
            CAPTURE(i);
            CHECK(a[i].token == b[i].token);
            CHECK(a[i].position == i);
            CHECK(a[i].next == b[i].next);
            CHECK((a[i].next == trace::NO_TOKEN) == (i < 39));
            CHECK(a[i].experts == b[i].experts);
            CHECK(a[i].swapped == b[i].swapped);
            CHECK(a[i].groups == b[i].groups);
            CHECK(distance(a[i].weights, b[i].weights) < 1e-5);
            CHECK(distance(a[i].margin, b[i].margin) < 1e-5);
            CHECK(distance(a[i].entropy, b[i].entropy) < 1e-5);
            CHECK(distance(a[i].norms, b[i].norms) < 1e-4); // they go up to about ten
            CHECK(std::isnan(a[i].norms.back()) == (i < 39));
            REQUIRE(a[i].candidates.size() == (i < 39 ? 0 : trace::CANDIDATES));
            for (size_t c = 0; c < a[i].candidates.size(); ++c) {
                CHECK(a[i].candidates[c].token == b[i].candidates[c].token);
                CHECK(std::abs(a[i].candidates[c].logprob - b[i].candidates[c].logprob) < 1e-4);
            }
        }
    }
}

TEST_CASE("trace: norms are those of the residual stream, with and without a launch of their own") {
    const auto engine = load("v3_base", {.taps = {"embed", "*after_ffn"}});
    const uint32_t layers = engine->config().n_layers;
    auto session = opened(*engine, prompt(9, 8));
    session.logits(prompt(5, 9)); // six rows: the norm is an op
    const auto check_norms = [&] {
        const auto records = session.take_records();
        for (const Tap& tap : session.taps()) {
            const uint32_t after = tap.name == "embed" ? 0 : uint32_t(tap.name[7] - '0') + 1;
            REQUIRE(after <= layers);
            for (uint32_t row = 0; row < tap.rows; ++row) {
                const auto& record = records[records.size() - tap.rows + row];
                double squares = 0;
                for (uint32_t i = 0; i < tap.cols; ++i)
                    squares += std::pow(tap.values[uint64_t{row} * tap.cols + i], 2);
                CHECK(record.norms[after] == doctest::Approx(std::sqrt(squares / tap.cols)).epsilon(1e-3));
            }
        }
    };
    check_norms();
    session.next(); // one row: it is part of the projection
    check_norms();
}

TEST_CASE("trace: events follow what was done to sessions, and nothing waits for a listener") {
    auto& engine = shared_engine();
    trace::Queue queue(64);
    engine.listen(queue);
    uint32_t number = 0, copy = 0;
    {
        auto session = opened(engine, prompt(10, 10));
        number = session.number();
        session.next();
        session.rewind(8);
        auto fork = session.fork();
        copy = fork.number();
        CHECK(copy != number);
    }
    std::vector<std::pair<trace::Event::Kind, uint32_t>> kinds;
    size_t records = 0;
    uint64_t memory = 0;
    for (const trace::Packet& packet : queue.take()) {
        const auto* event = std::get_if<trace::Event>(&packet);
        records += event == nullptr;
        if (event && event->kind == trace::Event::Kind::memory) memory += event->count;
        if (event && event->kind != trace::Event::Kind::memory)
            kinds.emplace_back(event->kind, event->session);
        if (event && event->kind == trace::Event::Kind::forked) CHECK(event->other == number);
    }
    using Kind = trace::Event::Kind;
    CHECK(memory == engine.memory().total);
    CHECK(records == 10);
    CHECK(kinds == std::vector<std::pair<Kind, uint32_t>>{{Kind::opened, number},
                                                          {Kind::rewound, number},
                                                          {Kind::forked, copy},
                                                          {Kind::closed, copy},
                                                          {Kind::closed, number}});
    auto session = opened(engine, prompt(200, 11)); // more than the queue holds, and nobody takes
    for (int i = 0; i < 20; ++i) session.next();
    CHECK(queue.size() <= 65);
    CHECK(queue.dropped() > 100);
    engine.ignore(queue);
}

TEST_CASE("trace: a trace that is off tells tokens and candidates") {
    const auto engine = load("v3_base", {.trace = false});
    trace::Queue queue;
    engine->listen(queue);
    auto session = opened(*engine, prompt(5, 12));
    const Token next = session.next();
    engine->ignore(queue);
    const auto packets = queue.take();
    const auto& last = std::get<trace::TokenRecord>(packets.back());
    CHECK(last.next == next);
    CHECK(last.experts.empty());
    CHECK(last.candidates.size() == trace::CANDIDATES);
}
