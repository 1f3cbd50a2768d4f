// The store: timelines from packets, and what is worked out from them, against plain counting.
#include "trace/help.h"
#include "viewer/store.h"

#include <cmath>

using namespace fathom;
using namespace fathom::trace_test;
using viewer::Store;
using viewer::Timeline;

namespace {

using Kind = trace::Event::Kind;
Store store_of(uint32_t records, uint64_t limit = Store::LIMIT) {
    Store store(identity(), text_of, limit);
    for (uint32_t i = 0; i < records; ++i) store.ingest(record(i, i >= 10));
    return store;
}

} // namespace

TEST_CASE("store: tokens by position, given or generated") {
    const Store store = store_of(20);
    const Timeline& t = *store.timeline(1);
    CHECK(store.timeline(2) == nullptr);
    CHECK(t.size() == 21); // the last one's successor has not gone through the model
    CHECK(t.token(5) == record(5).token);
    CHECK(t.token(20) == record(19, true).next);
    CHECK(t.token(21) == trace::NO_TOKEN);
    CHECK(!t.generated(10));
    CHECK(t.generated(11));
    CHECK(t.generated(20));
    CHECK(t.record(20) == nullptr);
    CHECK(viewer::probability(t, 11) == doctest::Approx(std::exp(-0.5)));
    CHECK(std::isnan(viewer::probability(t, 5)));
    double bits = 0, rest = 1;
    for (int c = 1; c <= 10; ++c) {
        const double p = std::exp(-0.5 * c);
        bits -= p * std::log2(p), rest -= p;
    }
    if (rest > 0) bits -= rest * std::log2(rest);
    CHECK(viewer::uncertainty(t, 11) == doctest::Approx(bits));
}

TEST_CASE("store: rewinds, forks, gaps and repeats") {
    Store store = store_of(20);
    store.ingest(trace::Event{.kind = Kind::forked, .session = 5, .other = 1, .position = 12});
    store.ingest(trace::Event{.kind = Kind::rewound, .session = 1, .position = 15});
    store.ingest(trace::Event{.kind = Kind::gap, .count = 7});
    const Timeline &t = *store.timeline(1), &fork = *store.timeline(5);
    CHECK(t.size() == 15); // and what followed it is forgotten
    CHECK(t.token(15) == trace::NO_TOKEN);
    CHECK(fork.size() == 13); // twelve records, and the successor of the last
    CHECK(fork.parent == 1u);
    CHECK(fork.token(3) == t.token(3));
    CHECK(store.lost() == 7);
    store.ingest(record(17)); // two are missing before it
    CHECK(t.record(15) == nullptr);
    CHECK(t.token(17) == record(17).token);
    auto again = record(3);
    again.token = 44;
    store.ingest(again);
    CHECK(t.token(3) == 44);
    store.ingest(trace::Event{.kind = Kind::memory, .count = 10, .text = "weights"});
    store.ingest(trace::Event{.kind = Kind::memory, .count = 12, .text = "weights"});
    REQUIRE(store.memory().size() == 1);
    CHECK(store.memory()[0].count == 12);
}

TEST_CASE("store: loads, uses and partners as counted by hand") {
    const Store store = store_of(40);
    const Timeline& t = *store.timeline(1);
    const uint32_t active = shape().n_active, experts = shape().n_experts;
    const auto load = store.load(t, 5, 30);
    std::vector<uint32_t> counted(load.size());
    for (uint32_t i = 5; i < 30; ++i)
        for (uint32_t c = 0; c < shape().choices(); ++c)
            ++counted[c / active * experts + record(i).experts[c]];
    CHECK(load == counted);
    const auto uses = store.uses(t, 1, 3);
    size_t expected = 0;
    for (uint32_t i = 0; i < 40; ++i)
        for (uint32_t k = 0; k < active; ++k) expected += record(i).experts[active + k] == 3;
    CHECK(uses.size() == expected);
    CHECK(std::is_sorted(uses.begin(), uses.end(),
                         [](const auto& a, const auto& b) { return a.weight > b.weight; }));
    for (const auto& [other, times] : store.partners(t, 1, 3, 20)) {
        CHECK(other != 3);
        CHECK(times <= expected);
    }
    CHECK(store.speed(t, 8) == doctest::Approx(1000)); // a record each millisecond
    CHECK(store.token_seconds(t, 0.99) == doctest::Approx(1e-3));
    CHECK(store.first_token_seconds(t) == doctest::Approx(10e-3));
}

TEST_CASE("store: balance against known loads") {
    const Store store = store_of(1);
    const auto even = store.balance(std::vector<uint32_t>(8, 3), 8); // 3 of 8 experts for each token
    CHECK(even.cv == 0);
    CHECK(even.entropy == doctest::Approx(1));
    CHECK(even.effective == doctest::Approx(8));
    CHECK(even.chance_cv == doctest::Approx(std::sqrt(5.0 / 24)));
    const auto three = store.balance(std::vector<uint32_t>{8, 8, 8, 0, 0, 0, 0, 0}, 8);
    CHECK(three.effective == doctest::Approx(3));
    CHECK(three.max_violation == doctest::Approx(8 / 3.0 - 1));
    CHECK(three.idle == doctest::Approx(5 / 8.0));
    CHECK(three.chance_idle == doctest::Approx(std::pow(5 / 8.0, 8)));
}

TEST_CASE("store: its memory is bounded, and what it let go it says") {
    const Store store = store_of(5000, 200000);
    CHECK(store.bytes() <= 200000);
    CHECK(store.thinned() > 1000);
    const Timeline& t = *store.timeline(1);
    CHECK(t.size() == 5001);
    CHECK(t.slots[0].state == Timeline::Slot::State::bare);
    CHECK(t.slots[4999].state == Timeline::Slot::State::whole);
    CHECK(t.token(7) == record(7).token);
    Store other(identity(), text_of);
    auto far = record(1);
    far.position = 0xFFFFFFF0;
    other.ingest(far);
    CHECK(other.lost() == 1);
    CHECK(other.timeline(1)->size() == 0);
}

TEST_CASE("store: attention, what heads do, and the times of steps") {
    const Store store = store_of(20);
    const Timeline& t = *store.timeline(1);
    CHECK(store.watched() == std::vector<uint32_t>{0, 2});
    const trace::AttentionRows* rows = Store::attention(t, 9, 2);
    REQUIRE(rows);
    CHECK(*rows == record(9).attention[1]);
    CHECK(Store::attention(t, 9, 1) == nullptr); // not watched
    CHECK(Store::attention(t, 8, 2) == nullptr); // nor then
    CHECK(Store::attention(t, 99, 2) == nullptr);
    // by hand: bins of two positions, of token 9 five: half of it to bin 9 % 5, the rest evenly
    const viewer::Focus f = viewer::focus(*rows, 1, 9);
    CHECK(f.most == 4);
    CHECK(f.sink == doctest::Approx(0.1));
    CHECK(f.local == doctest::Approx(0.9)); // positions 2 to 9 are all bins but the first
    CHECK(f.entropy == doctest::Approx(-(0.6 * std::log2(0.6) + 4 * 0.1 * std::log2(0.1))));
    double sum = 0;
    for (const float share : viewer::attention_of(*rows, std::nullopt)) sum += share;
    CHECK(sum == doctest::Approx(1));
    REQUIRE(Store::timed(t, 12));
    CHECK(Store::timed(t, 12)->position == 9); // those of 4 n + 1 are
    CHECK(Store::timed(t, 0) == nullptr);
}

TEST_CASE("store: tokens by their text, and the experts of a kind of token") {
    const Store store = store_of(20);
    const Timeline& t = *store.timeline(1);
    CHECK(store.find(t, "<7>", 5) == std::vector<uint32_t>{1});
    CHECK(store.find(t, "<", 5).size() == 5);
    CHECK(store.find(t, "", 5).empty());
    const auto even = [](Token token) { return token % 2 == 0; };
    const auto found = store.specialists(t, even, 2);
    const trace::Shape s = shape();
    REQUIRE(found.size() == s.moe_layers.size());
    for (uint32_t layer = 0; layer < found.size(); ++layer) {
        const auto share = [&](uint32_t expert) {
            double all = 0, kind = 0;
            for (uint32_t i = 0; i < 20; ++i)
                for (uint32_t k = 0; k < s.n_active; ++k)
                    if (record(i).experts[layer * s.n_active + k] == expert)
                        ++all, kind += even(record(i).token);
            return all >= 2 ? kind / all : 0;
        };
        REQUIRE(found[layer]);
        for (uint32_t e = 0; e < s.n_experts; ++e) CHECK(share(e) <= share(*found[layer]));
    }
    CHECK(!store.specialists(t, even, 1000)[0]);
}

TEST_CASE("store: sessions that were closed make room for others, the oldest first") {
    Store store(identity(), text_of, Store::LIMIT, 100);
    const auto put = [&](uint32_t session, uint32_t n) {
        for (uint32_t i = 0; i < n; ++i) {
            trace::TokenRecord r = record(i);
            r.session = session;
            store.ingest(r);
        }
    };
    put(1, 40), put(2, 30), put(3, 20);
    for (const uint32_t session : {2u, 1u})
        store.ingest(trace::Event{.kind = Kind::closed, .session = session});
    put(4, 30); // ten fit, and session 1 goes for the others
    CHECK(store.timeline(1) == nullptr);
    CHECK(store.timeline(2) != nullptr);
    CHECK(store.timeline(4)->slots.size() == 30);
    CHECK(store.thinned() == 40);
    put(3, 90); // session 2 too, and then there is no room
    CHECK(store.timeline(2) == nullptr);
    CHECK(store.timeline(3)->slots.size() == 70);
    CHECK(store.lost() == 20);
}
