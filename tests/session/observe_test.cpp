// What can be seen of a step, and steered: routing records, the control table of the router, and taps, which
// hold the GPU executor against the CPU reference tensor by tensor.
#include "session/help.h"

#include <algorithm>
#include <map>
#include <set>

using namespace fathom;
using namespace fathom::session_test;

namespace {

constexpr double TAP_LIMIT = 1e-9; // f32 against double sums; measured: at most 1.4e-12

uint32_t moe_layers(const ModelConfig& config) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < config.n_layers; ++i) n += config.is_moe(i);
    return n;
}

// Positions and tokens of the records, and the shape and sums of every row.
void check_routing(const Engine& engine, const std::vector<trace::TokenRecord>& records,
                   std::span<const Token> tokens, uint32_t first, bool by_weight) {
    const ModelConfig& c = engine.config();
    const uint32_t layers = moe_layers(c), active = c.n_active_experts;
    REQUIRE(records.size() == tokens.size());
    for (size_t i = 0; i < records.size(); ++i) {
        const auto& record = records[i];
        CHECK(record.position == first + i);
        CHECK(record.token == tokens[i]);
        REQUIRE(record.experts.size() == size_t{layers} * active);
        REQUIRE(record.weights.size() == size_t{layers} * active);
        for (uint32_t layer = 0; layer < layers; ++layer) {
            const auto experts = std::span(record.experts).subspan(size_t{layer} * active, active);
            const auto weights = std::span(record.weights).subspan(size_t{layer} * active, active);
            const std::set<uint16_t> different(experts.begin(), experts.end());
            CHECK(different.size() == active);
            CHECK(*different.rbegin() < c.n_routed_experts);
            double sum = 0;
            for (const float weight : weights) sum += weight;
            if (c.norm_topk_prob) CHECK(sum == doctest::Approx(c.routed_scaling_factor).epsilon(1e-5));
            // keys are weights: best first
            if (by_weight) CHECK(std::is_sorted(weights.rbegin(), weights.rend()));
        }
    }
}

// Names of all taps of one call, with rows and columns.
std::map<std::string, std::pair<uint32_t, uint32_t>> shapes_of(const Session& session) {
    std::map<std::string, std::pair<uint32_t, uint32_t>> shapes;
    for (const Tap& tap : session.taps()) {
        CHECK(tap.values.size() == uint64_t{tap.rows} * tap.cols);
        shapes[tap.name] = {tap.rows, tap.cols};
    }
    CHECK(shapes.size() == session.taps().size()); // every name once
    return shapes;
}

// Compares the taps of one call, in the order in which the forward pass made them; the message names the
// first that differs, since all after it follow from it.
void check_taps(const Session& gpu, const Session& reference, const std::string& what) {
    REQUIRE(gpu.taps().size() == reference.taps().size());
    REQUIRE(!gpu.taps().empty());
    std::string first;
    double worst = 0;
    size_t beyond = 0;
    for (size_t i = 0; i < gpu.taps().size(); ++i) {
        const Tap &a = gpu.taps()[i], &b = reference.taps()[i];
        REQUIRE(a.name == b.name);
        REQUIRE(a.rows == b.rows);
        REQUIRE(a.cols == b.cols);
        const double distance = nmse(a.values, b.values);
        worst = std::max(worst, distance);
        if (distance <= TAP_LIMIT) continue;
        if (first.empty()) first = fmt::format("{}: NMSE {:.2e}", a.name, distance);
        ++beyond;
    }
    MESSAGE(fmt::format("{}: {} taps, worst NMSE {:.1e}", what, gpu.taps().size(), worst));
    CHECK_MESSAGE(beyond == 0, fmt::format("{}: the first tap that diverges is {} ({} of {} do)", what, first,
                                           beyond, gpu.taps().size()));
}

// Every kind of step: expanded prefill, a long one whose first chunk is expanded with its history and whose
// last is not (where the model's shape makes expanding worth it), absorbed prefill, decode, logits.
void check_executors(const std::string& name, bool expands) {
    LoadOptions options{.context = 512, .chunk = 128, .taps = {"*"}};
    const auto gpu = load(name, options);
    options.reference = true;
    const auto reference = load(name, options);
    auto a = opened(*gpu, {}), b = opened(*reference, {});
    const uint32_t vocab = gpu->config().vocab_size;
    const auto check_both = [&](const char* step, auto action) {
        action(a);
        action(b);
        check_taps(a, b,
                   fmt::format("{} on {}, {}", name.empty() ? "the embedded model" : name, gpu->device_name(),
                               step));
        REQUIRE(a.tokens() == b.tokens());
    };
    check_both("expanded prefill", [&](Session& s) { s.feed(prompt(41, 101, vocab)); });
    CHECK(shapes_of(a).count("layers.0.kv") == expands);
    CHECK(shapes_of(a).count("layers.0.q_latent") == !expands);
    check_both("long prefill", [&](Session& s) { s.feed(prompt(150, 102, vocab)); });
    CHECK(shapes_of(a).count("layers.0.kv") == expands);
    CHECK(shapes_of(a).count("layers.0.q_latent") == 1);
    check_both("absorbed prefill", [&](Session& s) { s.feed(prompt(7, 103, vocab)); });
    for (int i = 0; i < 3; ++i) check_both("decode", [&](Session& s) { s.next(); });
    check_both("logits", [&](Session& s) { s.logits(prompt(5, 104, vocab)); });
    check_both("score", [&](Session& s) { s.score(prompt(33, 105, vocab)); });
}

} // namespace

TEST_CASE("routing: one record for each token processed") {
    for (const char* name : {"v3_base", "v2_greedy"}) { // biased keys; keys that are the weights
        CAPTURE(std::string(name));
        const auto engine = load(name, {.chunk = 64});
        auto session = opened(*engine, prompt(150, 111));
        const bool by_weight = engine->config().topk_method == TopkMethod::greedy;
        const auto tokens = [&](uint32_t first, uint32_t last) {
            return std::span(session.tokens()).subspan(first, last - first);
        };
        // the last waits for next()
        check_routing(*engine, session.take_records(), tokens(0, 149), 0, by_weight);
        CHECK(session.take_records().empty());
        for (int i = 0; i < 5; ++i) session.next();
        check_routing(*engine, session.take_records(), tokens(149, 154), 149, by_weight);
        session.feed(prompt(10, 112));
        check_routing(*engine, session.take_records(), tokens(154, 164), 154, by_weight);
        session.logits(prompt(40, 113)); // the token before them runs with them
        check_routing(*engine, session.take_records(), tokens(164, 205), 164, by_weight);
        auto fork = session.fork();
        CHECK(fork.take_records().empty());
    }
}

TEST_CASE("routing: sessions side by side have their own records") {
    auto a = opened(shared_engine(), prompt(70, 114)), b = opened(shared_engine(), prompt(50, 115));
    for (int i = 0; i < 3; ++i) a.next(), b.next();
    check_routing(shared_engine(), a.take_records(), std::span(a.tokens()).first(72), 0, false);
    check_routing(shared_engine(), b.take_records(), std::span(b.tokens()).first(52), 0, false);
}

TEST_CASE("routing: without trace there are no records, and the tokens are the same") {
    const auto engine = load("v3_base", {.trace = false});
    auto session = opened(*engine, prompt(40, 116)), traced = opened(shared_engine(), prompt(40, 116));
    CHECK_SAME_STEPS(steps_of(session, 4), steps_of(traced, 4));
    CHECK(session.take_records().empty());
}

TEST_CASE("steering: an expert whose key is lowered is never chosen, one whose key is raised always") {
    const auto engine = load("v3_base");
    const uint32_t layers = moe_layers(engine->config()), experts = engine->config().n_routed_experts;
    const auto uses_of = [&](uint32_t layer, uint32_t expert) { // of 60 tokens, prefilled and decoded
        auto session = opened(*engine, prompt(50, 117));
        for (int i = 0; i < 10; ++i) session.next();
        size_t n = 0;
        for (const auto& record : session.take_records()) {
            const auto row =
                std::span(record.experts)
                    .subspan(layer * engine->config().n_active_experts, engine->config().n_active_experts);
            n += static_cast<size_t>(std::count(row.begin(), row.end(), expert));
        }
        return n;
    };
    for (uint32_t layer = 0; layer < layers; ++layer) {
        CAPTURE(layer);
        uint32_t expert = 0; // one that is used otherwise, but not by every token
        size_t uses = 0;
        for (; expert < experts; ++expert)
            if ((uses = uses_of(layer, expert)) > 0 && uses < 59) break;
        REQUIRE(expert < experts);
        Steering steering;
        steering.key.assign(size_t{layers} * experts, 0);
        steering.key[layer * experts + expert] = -1e30f;
        engine->set_steering(steering);
        CHECK(uses_of(layer, expert) == 0);
        steering.key[layer * experts + expert] = 1e30f;
        engine->set_steering(steering);
        CHECK(uses_of(layer, expert) == 59);
        engine->set_steering({});
        CHECK(uses_of(layer, expert) == uses);
    }
}

TEST_CASE("steering: factors act on the weights, and an empty table is neutral") {
    const auto engine = load("v3_base");
    const size_t n = size_t{moe_layers(engine->config())} * engine->config().n_routed_experts;
    const auto logits = [&](const Steering& steering) {
        engine->set_steering(steering);
        auto session = opened(*engine, prompt(5, 118));
        return bits(session.logits(prompt(3, 119)));
    };
    const auto neutral = logits({});
    CHECK(logits({std::vector<float>(n, 0), std::vector<float>(n, 1)}) == neutral);
    const auto silent = logits({{}, std::vector<float>(n, 0)});
    CHECK(silent != neutral);
    CHECK(logits({{}, std::vector<float>(n, 0.5f)}) != silent);
    auto session = opened(*engine, prompt(5, 118));
    session.next();
    for (const auto& record : session.take_records()) { // half of every weight
        double sum = 0;
        for (const float weight : record.weights) sum += weight;
        CHECK(sum ==
              doctest::Approx(engine->config().routed_scaling_factor / 2 * moe_layers(engine->config()))
                  .epsilon(1e-5));
    }
    CHECK(logits({}) == neutral);
}

TEST_CASE("steering: a table of the wrong shape or with other numbers is refused, and nothing changes") {
    const auto engine = load("v3_base");
    const size_t n = size_t{moe_layers(engine->config())} * engine->config().n_routed_experts;
    auto before = opened(*engine, prompt(5, 120));
    const auto expected = steps_of(before, 3);
    const float nan = std::numeric_limits<float>::quiet_NaN(),
                infinite = std::numeric_limits<float>::infinity();
    CHECK_ERROR("steering", engine->set_steering({std::vector<float>(n - 1, 1), {}}));
    CHECK_ERROR("steering", engine->set_steering({{}, std::vector<float>(n + 1, 1)}));
    for (const float bad : {nan, infinite, -infinite, 1e38f}) {
        std::vector<float> values(n, 5);
        values[n - 1] = bad;
        CHECK_ERROR("steering", engine->set_steering({values, {}}));
        CHECK_ERROR("steering", engine->set_steering({{}, values}));
    }
    auto after = opened(*engine, prompt(5, 120));
    CHECK_SAME_STEPS(steps_of(after, 3), expected);
}

TEST_CASE("taps: names and shapes, those asked for and no others") {
    const auto all = load("v3_base", {.chunk = 64, .taps = {"*"}});
    const ModelConfig& c = all->config();
    auto session = opened(*all, {});
    CHECK(session.taps().empty());
    session.feed(prompt(100, 121)); // 99 rows in two chunks
    auto shapes = shapes_of(session);
    CHECK(shapes.at("embed") == std::pair(99u, c.dim));
    CHECK(shapes.at("layers.0.attn_norm") == std::pair(99u, c.dim));
    CHECK(shapes.at("layers.2.after_ffn") == std::pair(99u, c.dim));
    CHECK(shapes.at("layers.1.kv") == std::pair(99u, c.n_heads * (c.qk_nope_head_dim + c.v_head_dim)));
    CHECK(shapes.at("layers.1.q") == std::pair(99u, c.n_heads * c.qk_head_dim()));
    CHECK(shapes.at("layers.1.attended") == std::pair(99u, c.n_heads * c.v_head_dim));
    CHECK(shapes.at("layers.1.expert_weights") == std::pair(99u, c.n_active_experts + c.n_shared_experts));
    CHECK(shapes.at("layers.1.act") ==
          std::pair(99u, (c.n_active_experts + c.n_shared_experts) * c.expert_dim));
    CHECK(shapes.at("layers.0.act") == std::pair(99u, c.dense_dim));
    CHECK(shapes.count("layers.0.expert_weights") == 0); // a dense layer
    CHECK(shapes.count("logits") == 0);                  // a prefill has none
    session.take_records();
    session.next();
    shapes = shapes_of(session);
    CHECK(shapes.at("logits") == std::pair(1u, c.vocab_size));
    CHECK(shapes.at("final_norm") == std::pair(1u, c.dim));
    const auto record = session.take_records().at(0);
    for (const Tap& tap : session.taps()) { // the trace and the tap tell the same weights
        if (!tap.name.ends_with("expert_weights")) continue;
        const uint32_t layer = tap.name == "layers.1.expert_weights" ? 0 : 1;
        CHECK(std::equal(tap.values.begin(), tap.values.begin() + c.n_active_experts,
                         record.weights.begin() + layer * c.n_active_experts));
    }
    const auto logits = session.logits(prompt(4, 122));
    const auto tapped = std::find_if(session.taps().begin(), session.taps().end(),
                                     [](const Tap& t) { return t.name == "logits"; });
    CHECK(tapped->rows == 5); // with the token before them
    CHECK(bits(std::span(tapped->values).last(logits.size())) == bits(logits));
    session.rewind(0);

    const auto some = load("v3_base", {.taps = {"layers.*.attended", "embed"}});
    auto other = opened(*some, prompt(20, 123));
    std::set<std::string> names;
    for (const Tap& tap : other.taps()) names.insert(tap.name);
    CHECK(names ==
          std::set<std::string>{"embed", "layers.0.attended", "layers.1.attended", "layers.2.attended"});
    auto plain = opened(shared_engine(), prompt(20, 123));
    CHECK(plain.taps().empty());
    CHECK_SAME_STEPS(steps_of(other, 3), steps_of(plain, 3)); // being watched changes nothing
}

TEST_CASE("taps: the GPU executor computes what the CPU reference does, tap by tap, for the embedded model") {
    check_executors("", true);
}

TEST_CASE("taps: so it is with YaRN and q-LoRA, with two shared experts, and with odd sizes" *
          doctest::test_suite("long")) {
    check_executors("v3_base", true);
    check_executors("v2_yarn", true);
    check_executors("v3_odd", false);
}
