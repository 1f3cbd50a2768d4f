// Kernel router against its reference: every way of scoring and grouping, ties, steering, the trace ring, and
// a toy whose numbers were worked out by hand.
#include "gpu/moe.h"

#include <set>

using namespace fathom;
using namespace fathom::test;

namespace {

constexpr uint32_t V3 = ROUTER_SIGMOID | ROUTER_GROUP_TOP2 | ROUTER_NORMALISE;

// Experts exactly, weights within f32 sums and exp (good to about 1e-6 on both software drivers).
void check_routing(Routing& routing, Worst& worst, const std::string& what, uint32_t lanes = 0,
                   uint32_t pieces = 1) {
    routing.execute(lanes, pieces);
    const uint32_t used = routing.n_rows * routing.shape.n_slots();
    const auto got = read<uint32_t>(GPU, routing.experts), expected = read<uint32_t>(CPU, routing.experts);
    if (got != expected) FAIL_CHECK(what << ": other experts");
    const auto weights = read<float>(GPU, routing.expert_weights),
               reference = read<float>(CPU, routing.expert_weights);
    const double nmse = distance(std::span(weights).first(used), std::span(reference).first(used));
    worst.add(nmse);
    if (nmse > 1e-11) FAIL_CHECK(fmt::format("{}: weights' NMSE {:.3e}", what, nmse));
    for (size_t i = used; i < weights.size(); ++i)
        if (std::bit_cast<uint32_t>(weights[i]) != SENTINEL || got[i] != SENTINEL)
            FAIL_CHECK(what << ": row past the step");
}

struct Scheme {
    const char* name;
    RoutingShape shape;
    bool bias;
};
const Scheme SCHEMES[] = {
    {"softmax greedy", {12, 5, 2, 1, 1, 0, 1}, false},
    {"softmax greedy of 64", {64, 6, 2, 1, 1, 0, 1}, false},
    {"softmax normalised", {65, 6, 0, 1, 1, ROUTER_NORMALISE, 1}, false},
    {"softmax group max", {160, 6, 2, 8, 3, ROUTER_GROUP_MAX, 16}, false},
    {"sigmoid", {16, 4, 1, 1, 1, ROUTER_SIGMOID, 2.5f}, false},
    {"noaux_tc", {16, 4, 1, 4, 2, V3, 2.5f}, true},
    {"noaux_tc, odd", {12, 5, 1, 4, 3, V3, 1.8f}, true},
    {"noaux_tc, groups of one", {8, 3, 1, 8, 4, V3, 1}, true},
    {"noaux_tc, not normalised", {24, 3, 0, 8, 4, ROUTER_SIGMOID | ROUTER_GROUP_TOP2, 1}, true},
    {"noaux_tc of V3", {256, 8, 1, 8, 4, V3, 2.5f}, true},
    {"noaux_tc of K2", {384, 8, 1, 1, 1, V3, 2.827f}, true},
    {"one expert of one", {1, 1, 0, 1, 1, 0, 1}, false},
    {"all experts", {7, 7, 1, 1, 1, ROUTER_SIGMOID, 1}, true},
    {"32 active", {100, 32, 1, 1, 1, V3, 1}, true},
};

const std::vector<float> TOY{0.2f, -1.0f, 1.5f, 0.3f, 0.9f, 0.8f, -0.5f, 2.0f};
const std::vector<float> TOY_BIAS{0, 0.4f, -0.3f, 0, 0.05f, 0.1f, 0, -0.6f};

// A router whose logits are `z` itself.
Routing routing_of_logits(RoutingShape shape, const std::vector<float>& z) {
    Routing routing(shape, static_cast<uint32_t>(z.size()), 1, "logits");
    std::vector<float> identity(z.size() * z.size());
    for (size_t i = 0; i < z.size(); ++i) identity[i * (z.size() + 1)] = 1;
    routing.gate =
        weights_of(Format::f32, static_cast<uint32_t>(z.size()), static_cast<uint32_t>(z.size()), identity);
    routing.x = tensor(1, static_cast<uint32_t>(z.size()), z);
    return routing;
}

} // namespace

TEST_CASE("ops: router of every scheme") {
    Worst worst("router");
    for (const Scheme& scheme : SCHEMES)
        for (const uint32_t n_rows : {1u, 3u, 31u})
            for (const uint32_t dim : {20u, 97u}) {
                const Scratch scratch;
                Routing routing(scheme.shape, dim, n_rows, scheme.name);
                if (scheme.bias) routing.bias = random_vector(scheme.name, scheme.shape.n_experts, 0.3f, 0);
                for (const uint32_t lanes : possible_lanes())
                    check_routing(routing, worst, fmt::format("{}, {} rows of {}", scheme.name, n_rows, dim),
                                  lanes);
            }
}

TEST_CASE("ops: router in pieces, of tokens and of their experts") {
    Worst worst("router");
    for (const uint32_t n_rows : {2u, 63u})
        for (const uint32_t pieces : {2u, 4u, 256u}) {
            Routing routing({256, 8, 1, 8, 4, V3, 2.5f}, 97, n_rows, "pieces");
            check_routing(routing, worst, fmt::format("{} rows in {} pieces", n_rows, pieces), 0, pieces);
        }
}

TEST_CASE("ops: router of every format and many rows" * doctest::test_suite("formats")) {
    Worst worst("router");
    for (const Format format : PLAIN_FORMATS)
        for (const uint32_t n_rows : {8u, 65u, 256u}) {
            Routing routing(SCHEMES[5].shape, 80, n_rows, fmt::format("router {}", name_of(format)), format);
            routing.bias = random_vector("bias", 16, 0.3f, 0);
            check_routing(routing, worst, fmt::format("{} of {} rows", name_of(format), n_rows));
        }
}

TEST_CASE("ops: router gives the toy's experts and weights") {
    Routing routing = routing_of_logits({8, 2, 0, 4, 2, V3, 2.5f}, TOY);
    routing.bias = buffer(TOY_BIAS);
    routing.execute();
    for (const Side side : SIDES) {
        CHECK(read<uint32_t>(side, routing.experts) ==
              std::vector<uint32_t>{5, 4}); // 5 by its bias, though it weighs less
        const auto weights = read<float>(side, routing.expert_weights);
        CHECK(std::abs(weights[0] - 1.231285f) < 2e-6f);
        CHECK(std::abs(weights[1] - 1.268715f) < 2e-6f);
    }
}

TEST_CASE("ops: router never chooses from a dropped group, however low the keys") {
    Worst worst("router");
    for (const float low : {-2.0f, -1000.0f, -1e30f}) {
        Routing routing({16, 4, 0, 4, 1, V3, 1}, 20, 31, "negative keys");
        routing.bias = buffer(std::vector<float>(16, low));
        check_routing(routing, worst, fmt::format("bias {}", low));
        for (uint32_t t = 0; t < 31; ++t) {
            std::set<uint32_t> groups;
            for (const uint32_t e : routing.chosen(t)) groups.insert(e / 4);
            CHECK(groups.size() == 1);
        }
    }
}

TEST_CASE("ops: router gives equal keys to the lower expert and the lower group") {
    Worst worst("router");
    for (const uint32_t flags : {ROUTER_SIGMOID, 0u}) {
        Routing plain({100, 9, 1, 1, 1, flags, 1}, 8, 3, "ties");
        plain.gate = weights_of(Format::f32, 100, 8, std::vector<float>(800, 0.25f));
        check_routing(plain, worst, "all equal");
        CHECK(plain.chosen(2) == std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
    }
    Routing grouped({96, 4, 0, 12, 2, V3, 1}, 8, 3, "ties");
    grouped.gate = weights_of(Format::f32, 96, 8, std::vector<float>(768, 0.25f));
    check_routing(grouped, worst, "groups all equal");
    CHECK(grouped.chosen(0) == std::vector<uint32_t>{0, 1, 2, 3});
    std::vector<float> z(64, 0.5f);
    z[63] = z[40] = z[17] = 0.75f;
    Routing three = routing_of_logits({64, 5, 0, 1, 1, ROUTER_SIGMOID, 1}, z);
    check_routing(three, worst, "three best");
    CHECK(three.chosen(0) == std::vector<uint32_t>{17, 40, 63, 0, 1});
}

TEST_CASE("ops: router under steering") {
    Worst worst("router");
    Routing routing(SCHEMES[5].shape, 28, 7, "steering");
    routing.bias = random_vector("bias", 16, 0.3f, 0);
    std::vector<float> keys = random_floats("keys", 16), factors = random_floats("factors", 16, 0.5f, 1);
    keys[3] = 100;    // always
    keys[9] = -1e30f; // never
    factors[3] = 0;   // chosen, and silenced
    routing.set_control(keys, factors);
    check_routing(routing, worst, "steered");
    const auto weights = read<float>(GPU, routing.expert_weights);
    for (uint32_t t = 0; t < 7; ++t) {
        const auto chosen = routing.chosen(t);
        CHECK(chosen[0] == 3);
        CHECK(weights[t * 5] == 0);
        CHECK(std::count(chosen.begin(), chosen.end(), 9u) == 0);
        CHECK(weights[t * 5 + 4] == 1); // the shared expert is not steered
    }
}

TEST_CASE("ops: router writes its layer of the trace ring, around its end") {
    for (const Scheme& scheme : SCHEMES) {
        const uint32_t active = scheme.shape.n_active, words = TRACE_LAYER_WORDS(active);
        Routing routing(scheme.shape, 28, 5, "trace");
        std::vector<float> bias;
        for (uint32_t e = 0; e < scheme.shape.n_experts; ++e)
            bias.push_back(0.1f * float(e * 37 % 11) - 0.5f);
        if (scheme.bias) routing.bias = buffer(bias);
        routing.trace_slot = TRACE_ROWS - 2, routing.trace_stride = 3 * words;
        routing.trace_offset = words; // layer 1 of 3
        routing.execute();
        const auto ring = read<uint32_t>(GPU, routing.trace), expected = read<uint32_t>(CPU, routing.trace);
        const auto weights = read<uint32_t>(GPU, routing.expert_weights);
        size_t swapped = 0;
        for (uint32_t row = 0; row < TRACE_ROWS; ++row)
            for (uint32_t i = 0; i < 3 * words; ++i) {
                const size_t at = size_t{row} * 3 * words + i;
                const uint32_t word = ring[at], t = (row + 2) % TRACE_ROWS, told = i - words - 2 * active;
                if (t >= 5 || i < words || i >= 2 * words) {
                    if (word != SENTINEL) FAIL_CHECK(scheme.name << ": written elsewhere");
                } else if (i < words + active || told == TRACE_SWAPPED || told == TRACE_GROUPS) {
                    if (word != expected[at]) FAIL_CHECK(scheme.name << ": word " << i << " of token " << t);
                    swapped += told == TRACE_SWAPPED && word != 0;
                } else if (i < words + 2 * active) { // the very bits that the experts use
                    if (word != weights[t * scheme.shape.n_slots() + i - words - active])
                        FAIL_CHECK(scheme.name << ": a weight");
                } else if (const float a = std::bit_cast<float>(word), b = std::bit_cast<float>(expected[at]);
                           a != b) {
                    if (!(std::abs(a - b) < 2e-6))
                        FAIL_CHECK(scheme.name << ": " << told << ": " << a << " " << b);
                }
            }
        if (std::string_view(scheme.name) == "noaux_tc of V3") CHECK(swapped > 0);
        if (!scheme.bias) CHECK(swapped == 0);
    }
}

TEST_CASE("ops: router tells all scores and keys of a layer that is watched") {
    for (const Scheme& scheme : SCHEMES) {
        const uint32_t n = scheme.shape.n_experts, words = TRACE_LAYER_WORDS(scheme.shape.n_active);
        Routing routing(scheme.shape, 28, 3, "scores");
        if (scheme.bias) routing.bias = buffer(random_floats("bias", n));
        routing.trace_stride = 2 * words + 3 + 4 * n;
        routing.trace_offset = words;                      // layer 1 of 2
        routing.scores_at = 2 * words + 3 + 2 * n - words; // the second watched
        routing.execute();
        const auto ring = read<float>(GPU, routing.trace), expected = read<float>(CPU, routing.trace);
        for (uint32_t row = 0; row < TRACE_ROWS; ++row)
            for (uint32_t i = 2 * words; i < routing.trace_stride; ++i) {
                const size_t at = size_t{row} * routing.trace_stride + i;
                const bool told = row < 3 && i >= 2 * words + 3 + 2 * n;
                if (!told && std::bit_cast<uint32_t>(ring[at]) != SENTINEL)
                    FAIL_CHECK(scheme.name << ": written elsewhere");
                if (told && !(std::abs(ring[at] - expected[at]) < 1e-5 * (1 + std::abs(expected[at]))))
                    FAIL_CHECK(scheme.name << ": word " << i << " of token " << row);
            }
    }
}
