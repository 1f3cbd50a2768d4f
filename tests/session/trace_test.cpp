// What the engine tells is what it did: records against the CPU reference's over the same tokens, and events.
#include "session/help.h"

#include <algorithm>
#include <functional>

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

// The records of what `work` makes of an engine.
std::vector<trace::TokenRecord> records_of(Engine& engine, const std::function<void()>& work) {
    trace::Queue queue;
    engine.listen(queue);
    work();
    engine.ignore(queue);
    std::vector<trace::TokenRecord> records;
    for (const trace::Packet& packet : queue.take())
        if (const auto* record = std::get_if<trace::TokenRecord>(&packet)) records.push_back(*record);
    return records;
}

} // namespace

TEST_CASE("trace: records are those of the CPU reference") {
    for (const char* name : {"v3_base", "v2_odd", "v2_groups"}) {
        CAPTURE(name);
        const auto gpu = load(name), reference = load(name, {.reference = true});
        const auto run = [&](Engine& engine) {
            return records_of(engine, [&] {
                auto session = opened(engine, prompt(40, 7));
                session.sampling().temperature = 0;
                for (int i = 0; i < 6; ++i) session.next();
            });
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
            CHECK(a[i].cache_bytes == b[i].cache_bytes);
            CHECK(a[i].cache_bytes > 0);
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

TEST_CASE("trace: attention is that of transformers") {
    size_t cases = 0;
    for (const golden::Case& golden : golden::cases()) {
        const golden::Expectation expected = golden::expectation(golden);
        if (expected.attention.empty()) continue;
        CAPTURE(golden.name);
        const auto engine = load(golden.name);
        trace::LayerWatch watch{.layers = {}, .width = 0};
        for (uint32_t layer = 0; layer < expected.layers; ++layer) watch.layers.push_back(layer);
        engine->watch_layers(watch);
        const auto records = records_of(*engine, [&] {
            auto session = engine->open();
            session.feed(expected.tokens);
            session.next();
        });
        const trace::TokenRecord& last = records.back();
        const size_t n = expected.tokens.size();
        REQUIRE(last.position == n - 1);
        REQUIRE(last.attention.size() == expected.layers);
        double most = 0;
        for (size_t layer = 0; layer < expected.layers; ++layer) {
            const trace::AttentionRows& rows = last.attention[layer];
            CHECK(rows.layer == layer);
            CHECK(rows.pool == 1);
            REQUIRE(rows.weights.size() == expected.heads * n);
            for (size_t i = 0; i < rows.weights.size(); ++i)
                most = std::max(most, std::abs(double(rows.weights[i]) -
                                               expected.attention[layer * expected.heads * n + i]));
        }
        CHECK(most < 1e-5);
        ++cases;
    }
    MESSAGE(fmt::format("{} models", cases));
    CHECK(cases >= 20);
}

TEST_CASE("trace: attention of prompts and steps is the CPU reference's, and changes no bit") {
    for (const char* name : {"v3_base", "v1_plain"}) {
        CAPTURE(name);
        const auto gpu = load(name, {.chunk = 64}), reference = load(name, {.reference = true, .chunk = 64});
        const auto generate = [&](Engine& engine, std::vector<Step>& steps) {
            auto session = opened(engine, prompt(120, 7)); // an expanded chunk, one with history
            session.sampling().temperature = 0;
            steps = steps_of(session, 3);
        };
        std::vector<Step> unwatched, watched, slow;
        records_of(*gpu, [&] { generate(*gpu, unwatched); });
        const trace::LayerWatch watch{.layers = {2, 0}, .first_head = 1, .n_heads = 2, .width = 50};
        gpu->watch_layers(watch);
        reference->watch_layers(watch);
        const auto a = records_of(*gpu, [&] { generate(*gpu, watched); });
        const auto b = records_of(*reference, [&] { generate(*reference, slow); });
        CHECK_SAME_STEPS(unwatched, watched);
        REQUIRE(a.size() == 122);
        REQUIRE(b.size() == a.size());
        for (size_t i = 0; i < a.size(); ++i) {
            CAPTURE(i);
            REQUIRE(a[i].attention.size() == 2);
            const trace::Shape shape = gpu->trace_shape(); // of layers 0 and 2 the latter routes
            REQUIRE(a[i].scores.size() == 1);
            CHECK(a[i].scores[0].layer == 2);
            CHECK(distance(a[i].scores[0].scores, b[i].scores[0].scores) < 1e-5);
            CHECK(distance(a[i].scores[0].keys, b[i].scores[0].keys) < 1e-5);
            const auto& keys = a[i].scores[0].keys;
            const auto at = static_cast<size_t>(
                std::find(shape.moe_layers.begin(), shape.moe_layers.end(), 2u) - shape.moe_layers.begin());
            const auto chosen = std::span(a[i].experts).subspan(at * shape.n_active, shape.n_active);
            if (shape.n_groups == 1) { // the largest keys are chosen
                float lowest = keys[chosen[0]];
                for (const uint16_t e : chosen) lowest = std::min(lowest, keys[e]);
                CHECK(std::count_if(keys.begin(), keys.end(), [&](float k) { return k > lowest; }) <
                      static_cast<std::ptrdiff_t>(shape.n_active));
            }
            for (size_t w = 0; w < 2; ++w) {
                const trace::AttentionRows &x = a[i].attention[w], &y = b[i].attention[w];
                CHECK(x.layer == (w == 0 ? 0 : 2));
                CHECK(x.first_head == 1);
                CHECK(x.n_heads == 2);
                CHECK(x.pool == (i < 50 ? 1 : i < 100 ? 2 : 4));
                CHECK(x.bins() == (i + x.pool) / x.pool);
                CHECK(distance(x.weights, y.weights) < 1e-5);
                for (uint32_t h = 0; h < 2; ++h) {
                    double sum = 0;
                    for (uint32_t bin = 0; bin < x.bins(); ++bin) sum += x.weights[h * x.bins() + bin];
                    CHECK(std::abs(sum - 1) < 1e-5);
                }
            }
        }
        gpu->watch_layers({});
        const auto after = records_of(*gpu, [&] { generate(*gpu, watched); });
        CHECK(after.back().attention.empty());
        CHECK_SAME_STEPS(unwatched, watched);
    }
}

TEST_CASE("trace: what cannot be watched is refused by name") {
    auto& engine = shared_engine();
    const uint32_t layers = engine.config().n_layers, heads = engine.config().n_heads;
    CHECK_THROWS_WITH_AS(engine.watch_layers({.layers = {layers}}), doctest::Contains("no such layer"),
                         Error);
    CHECK_THROWS_WITH_AS(engine.watch_layers({.layers = {0}, .first_head = heads}),
                         doctest::Contains("no such heads"), Error);
    CHECK_THROWS_WITH_AS(engine.watch_layers({.layers = {0}, .n_heads = heads + 1}),
                         doctest::Contains("no such heads"), Error);
    CHECK(engine.watched_layers().layers.empty());
}

TEST_CASE("trace: some steps are timed, stage by stage") {
    auto& engine = shared_engine();
    const auto records = records_of(engine, [&] {
        auto session = opened(engine, prompt(10, 10));
        for (int i = 0; i < 160; ++i) session.next();
    });
    const trace::Shape shape = engine.trace_shape();
    size_t timed = 0;
    for (const trace::TokenRecord& record : records) {
        if (record.times.empty()) continue;
        ++timed;
        REQUIRE(record.times.size() == shape.times());
        double sum = 0;
        for (const float seconds : record.times) {
            CHECK(seconds >= 0);
            sum += seconds;
        }
        CHECK(sum > 0);
        CHECK(record.times[4] > 0);                                         // experts of layer 0
        CHECK(record.times[shape.n_layers * trace::STAGES.size() + 1] > 0); // logits
    }
    CHECK(timed >= 2); // every 64th, and one soon
    CHECK(timed <= 3);
}

TEST_CASE("trace: bytes of the cache are its pages', and forks share theirs") {
    const auto engine = load("v3_base", {.context = 256});
    const ModelConfig& c = engine->config();
    const auto records = records_of(*engine, [&] {
        auto session = opened(*engine, prompt(130, 3)); // two pages, and two tokens
        session.next();
        auto fork = session.fork();
        fork.next(); // its own copy of the third
    });
    const uint64_t page =
        64ull * 4 * c.n_layers * ((c.kv_lora_rank + 3) / 4 * 4 + (c.qk_rope_head_dim + 3) / 4 * 4);
    CHECK(records.front().cache_bytes == 3 * page); // taken for the chunk
    CHECK(records.front().shared_bytes == 0);
    CHECK(records.back().cache_bytes == 4 * page);
    CHECK(records.back().shared_bytes == 2 * page);
}
