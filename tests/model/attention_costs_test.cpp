// When a prompt's chunk expands keys and values.
#include "model/attention_costs.h"
#include "model/preset.h"
#include "model/step.h"

using namespace fathom;
using namespace fathom::test;

TEST_CASE("attention costs: counted, of DeepSeek-V2-Lite") {
    const AttentionCosts costs = counted_costs(find_preset("v2-lite")->config);
    CHECK(costs.expand_row == 512.0 * 256);
    CHECK(costs.absorb_row == costs.expand_row);
    CHECK(costs.expanded_pair == 320);
    CHECK(costs.absorbed_pair == 1088);
    CHECK(!costs.worth_expanding(31, 0)); // launches would dominate
    CHECK(costs.worth_expanding(32, 0));
    // Far behind others, a chunk expands from so many tokens on as save what a position costs: 131072 / 768.
    CHECK(!costs.worth_expanding(170, 1u << 20));
    CHECK(costs.worth_expanding(171, 1u << 20));
    CHECK(costs.worth_expanding(120, 64)); // little to expand, and its own pairs to save
}

TEST_CASE("attention costs: the dearer way is never taken") {
    AttentionCosts costs{.expand_row = 1, .expanded_pair = 2, .absorb_row = 1, .absorbed_pair = 1};
    for (const uint32_t before : {0u, 100u, 10000u})
        for (const uint32_t tokens : {32u, 1024u}) CHECK(!costs.worth_expanding(tokens, before));
    costs = {.expand_row = 20, .expanded_pair = 0.5, .absorb_row = 1, .absorbed_pair = 1};
    CHECK(!costs.worth_expanding(36, 3000));
    CHECK(costs.worth_expanding(64, 3000));
    costs.absorb_row = 1000; // what absorbing costs a token counts too
    CHECK(costs.worth_expanding(36, 3000));
}

TEST_CASE("attention costs: counted, of plain attention") {
    const AttentionCosts costs = counted_costs(find_preset("moe-16b")->config);
    CHECK(costs.absorb_row == 0);
    CHECK(costs.absorbed_pair > costs.expanded_pair);
    CHECK(!costs.worth_expanding(31, 0));
    CHECK(costs.worth_expanding(32, 0));
    CHECK(costs.worth_expanding(512, 1u << 14));
}

TEST_CASE("attention costs: measured of a prompt's step") {
    const auto gpu = gpu_executor();
    std::vector<StepRow> rows;
    for (uint32_t t = 0; t < 16; ++t) rows.push_back({t, t, 1});
    for (const char* name : {"v3_base", "v1_plain"}) {
        const auto model = model_of(name, *gpu);
        prepare(*model, *gpu, situations().front()); // page tables
        const auto costs = measured_costs(*model, *gpu, rows);
        REQUIRE(costs.has_value());
        for (const double cost :
             {costs->expand_row, costs->expanded_pair, costs->absorb_row, costs->absorbed_pair}) {
            CHECK(cost > 0); // of plain attention a row pays for the join of its parts
            CHECK(cost < 1);
        }
    }
    const auto reference = make_reference_executor();
    const auto slow = model_of("v3_base", *reference);
    prepare(*slow, *reference, situations().front());
    CHECK(!measured_costs(*slow, *reference, rows)); // it has no clock
}
