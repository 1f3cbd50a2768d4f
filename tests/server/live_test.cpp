// The engine's end of a viewer's socket and the viewer's, joined without a network: what is told arrives, who
// is slow loses the oldest and nobody else does, and what is asked is done.
#include "server/live.h"
#include "trace/help.h"
#include "viewer/remote.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

using namespace fathom;
using namespace fathom::trace_test;
using Kind = viewer::Link::Piece::Kind;

namespace {

// Remembers what was asked.
struct Asked final : trace::Control {
    std::vector<trace::Request> requests;
    std::vector<trace::Steered> steered;
    trace::LayerWatch watched;
    int stops = 0, measures = 0;
    std::atomic<bool> is_busy = false;
    void generate(const trace::Request& request) override { requests.push_back(request), is_busy = true; }
    void stop() override { ++stops, is_busy = false; }
    void steer(const std::vector<trace::Steered>& experts) override { steered = experts; }
    void watch(const trace::LayerWatch& watch) override { watched = watch; }
    void measure() override { ++measures; }
    trace::Profile profile() const override {
        return measures ? trace::Profile{{{"layers.0.router", 1e-5, 4096, 8192}}, 1e9} : trace::Profile{};
    }
    bool busy() const override { return is_busy; }
    std::string failure() const override { return ""; }
};

// A socket and the link at its other end.
struct Wire {
    std::mutex mutex;
    std::vector<viewer::Link::Piece> pieces;
    server::SocketHandler handler;
    size_t binary_bytes = 0; // under way, in all
    bool closed = false;
};
struct End final : server::Socket {
    std::weak_ptr<Wire> held; // which holds the handler, and that this end
    void send(std::string message, bool binary) override {
        const auto wire = held.lock();
        if (!wire) return;
        const std::lock_guard lock(wire->mutex);
        if (binary) wire->binary_bytes += message.size();
        wire->pieces.push_back({binary ? Kind::binary : Kind::text, std::move(message)});
    }
    void close(uint16_t, std::string_view reason) override {
        const auto wire = held.lock();
        if (!wire) return;
        const std::lock_guard lock(wire->mutex);
        wire->closed = true;
        wire->pieces.push_back({Kind::closed, std::string(reason)});
    }
};
struct OtherEnd final : viewer::Link {
    std::shared_ptr<Wire> wire;
    std::string name = "here";
    std::vector<Piece> poll() override {
        const std::lock_guard lock(wire->mutex);
        return std::exchange(wire->pieces, {});
    }
    void send(std::string text) override { wire->handler.on_message(text); }
    const std::string& address() const override { return name; }
};

std::shared_ptr<Wire> connect(server::Live& live, const std::string& protocol = "fathom.v1") {
    auto wire = std::make_shared<Wire>();
    auto end = std::make_shared<End>();
    end->held = wire;
    wire->handler = live.join(end, protocol);
    return wire;
}
std::unique_ptr<viewer::Link> link_of(const std::shared_ptr<Wire>& wire) {
    auto link = std::make_unique<OtherEnd>();
    link->wire = wire;
    return link;
}

// Polls until `enough` says so; what came meanwhile.
template <class Enough> std::vector<trace::Packet> poll_until(viewer::RemoteSource& source, Enough&& enough) {
    std::vector<trace::Packet> all;
    for (int i = 0; i < 500; ++i) {
        for (trace::Packet& packet : source.poll()) all.push_back(std::move(packet));
        if (enough(all)) return all;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL("it did not come within five seconds");
    return all;
}
auto at_least(size_t n) {
    return [n](const std::vector<trace::Packet>& all) { return all.size() >= n; };
}

} // namespace

TEST_CASE("live: records arrive as they were, with texts, early and late") {
    Asked control;
    server::Live live(control, identity(), text_of);
    viewer::RemoteSource early(link_of(connect(live)));
    CHECK(early.state().starts_with("connecting to here"));
    for (uint32_t i = 0; i < 300; ++i) live.queue().offer(record(i, i >= 10));
    live.queue().offer(trace::Event{.kind = trace::Event::Kind::memory, .count = 77, .text = "weights"});
    const auto check_all = [](viewer::RemoteSource& source) {
        const auto packets = poll_until(source, at_least(301));
        CHECK(source.state() == "live");
        CHECK(source.generation() == 1);
        CHECK(source.identity().shape == shape());
        uint32_t records = 0;
        for (const trace::Packet& packet : packets)
            if (const auto* r = std::get_if<trace::TokenRecord>(&packet)) {
                CHECK(same(*r, record(records, records >= 10)));
                ++records;
            }
        CHECK(records == 300);
        CHECK(source.text(record(250, true).next) == text_of(record(250, true).next));
    };
    check_all(early);
    viewer::RemoteSource late(link_of(connect(live)));
    check_all(late);
    CHECK(live.counts().viewers == 2);
    CHECK(live.counts().lost == 0);
}

TEST_CASE("live: a viewer that is slow loses the oldest, is told how many, and slows nobody") {
    Asked control;
    server::Live live(control, identity(), text_of);
    const auto frozen = connect(live); // nobody reads it, and nothing is acknowledged
    viewer::RemoteSource quick(link_of(connect(live)));
    uint32_t offered = 0, came = 0;
    const auto fat = [&](uint32_t i) { // 200 KB that no compressor makes small
        trace::TokenRecord r = record(i, true);
        r.position = 49999, r.session = 2;
        trace::AttentionRows rows{0, 0, 1, 1, std::vector<float>(50000)};
        uint32_t x = i * 2654435761u + 1;
        for (float& w : rows.weights) x = x * 1664525 + 1013904223, w = float(x >> 8) * 0x1p-24f;
        r.attention = {rows};
        return r;
    };
    while (live.counts().lost == 0 && offered < 400) {
        live.queue().offer(fat(offered++));
        for (const trace::Packet& packet : quick.poll())
            came += std::holds_alternative<trace::TokenRecord>(packet);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    CHECK(live.counts().lost > 0);
    while (came < offered)
        for (const trace::Packet& packet : poll_until(quick, at_least(1)))
            came += std::holds_alternative<trace::TokenRecord>(packet);
    CHECK(came == offered);
    {
        const std::lock_guard lock(frozen->mutex);
        CHECK(frozen->binary_bytes <
              trace::CREDIT + (1u << 20)); // no more is under way than it has credit for
    }
    // it wakes up
    viewer::RemoteSource woken(link_of(frozen));
    uint64_t records = 0, gaps = 0;
    poll_until(woken, [&](std::vector<trace::Packet>& all) {
        for (const trace::Packet& packet : all)
            if (const auto* event = std::get_if<trace::Event>(&packet))
                gaps += event->kind == trace::Event::Kind::gap ? event->count : 0;
            else
                ++records;
        all.clear();
        return records + gaps == offered;
    });
    CHECK(gaps == live.counts().lost);
}

TEST_CASE("live: what a viewer asks is done, and all of them hear that it is") {
    Asked control;
    server::Live live(control, identity(), text_of);
    viewer::RemoteSource one(link_of(connect(live))), two(link_of(connect(live)));
    poll_until(one, [&](auto&) { return one.generation() == 1; });
    poll_until(two, [&](auto&) { return two.generation() == 1; });
    const trace::Request request{.session = 3,
                                 .keep = 7,
                                 .text = "a \"text\"\n\xe4\xbd\xa0",
                                 .forced = 11,
                                 .sampling = {.temperature = 0.25f,
                                              .top_p = 0.5f,
                                              .top_k = 4,
                                              .max_tokens = 9,
                                              .seed = 0xFFFFFFFFFFFFFFFFull},
                                 .chat = true,
                                 .again = true,
                                 .twice = true};
    one.generate(request);
    CHECK(one.busy());
    REQUIRE(control.requests.size() == 1);
    CHECK(control.requests[0] == request);
    poll_until(two, [&](auto&) { return two.busy(); });
    two.stop();
    CHECK(control.stops == 1);
    poll_until(one, [&](auto&) { return !one.busy(); });
    const std::vector<trace::Steered> steered{{{2, 7}, trace::Steered::SILENT, 1}, {{0, 0}, 0, 2.5f}};
    one.steer(steered);
    CHECK(control.steered == steered);
    const trace::LayerWatch watch{{1, 3}, 2, 1, 0};
    one.watch(watch);
    CHECK(control.watched == watch);
    one.measure();
    CHECK(control.measures == 1);
    poll_until(two, [&](auto&) { return two.profile() == control.profile(); });
    two.hide(true); // the tab: nothing comes
    live.queue().offer(record(0));
    poll_until(one, at_least(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CHECK(two.poll().empty());
    two.hide(false);
    poll_until(two, at_least(1));
}

TEST_CASE("live: another version and messages without sense are refused") {
    Asked control;
    server::Live live(control, identity(), text_of);
    for (const char* protocol : {"fathom.v2", "", "chat"}) {
        CAPTURE(protocol);
        const auto wire = connect(live, protocol);
        viewer::RemoteSource source(link_of(wire));
        source.poll();
        CHECK(source.generation() == 0);
        CHECK(source.state().find("fathom.v1") != std::string::npos);
        CHECK(wire->closed);
    }
    for (const char* message :
         {"", "{", "[]", "{\"kind\":\"dance\"}", "{\"kind\":\"ack\"}", "{\"kind\":\"ack\",\"sequence\":-1}",
          "{\"kind\":\"ack\",\"sequence\":4294967296}", "{\"kind\":\"pause\",\"on\":1}",
          "{\"kind\":\"steer\",\"experts\":[{\"layer\":3,\"expert\":0,\"key\":0,\"factor\":1}]}",
          "{\"kind\":\"steer\",\"experts\":[{\"layer\":0,\"expert\":8,\"key\":0,\"factor\":1}]}",
          "{\"kind\":\"watch\",\"layers\":[4],\"first_head\":0,\"n_heads\":0,\"width\":1}",
          "{\"kind\":\"generate\",\"text\":\"a\"}"}) {
        CAPTURE(message);
        const auto wire = connect(live);
        wire->handler.on_message(message);
        CHECK(wire->closed);
    }
    CHECK(control.requests.empty());
    CHECK(live.counts().viewers == 15 - 3); // until their sockets say that they are closed
}
