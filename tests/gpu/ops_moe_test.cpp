// Kernels expert_sort, moe_up, moe_down and moe_reduce against their references, on single tokens and on
// tokens grouped by expert.
#include "gpu/moe.h"

using namespace fathom;
using namespace fathom::test;

namespace {

void check_sort(uint32_t n_rows, uint32_t n_experts, uint32_t n_slots, bool dense) {
    const Scratch scratch;
    const auto what = fmt::format("expert_sort of {} x {} over {}", n_rows, n_slots, n_experts);
    const uint32_t bucket = bucket_of(n_rows), pairs = bucket * n_slots, tile = moe_least_tile(bucket);
    const uint32_t max_items = moe_max_items(bucket, n_slots, n_experts, tile);
    const Step step = step_of(n_rows);
    auto choice = dense ? std::vector<uint32_t>(n_rows) : random_choice(what, n_rows, n_experts, n_slots);
    choice.resize(pairs, 0); // rows past the step name experts too, as an earlier step left them
    const Buffer experts = buffer(choice), sorted = blank(pairs), items = blank(8 + 4 * max_items);
    run(bucket, [&](Plan& plan, Side side) {
        expert_sort(plan, "expert_sort", step.memory(side), n_experts, n_slots,
                    dense ? View{} : experts.view[side],
                    {sorted.view[side], items.view[side], tile, max_items, {3, 0, 2, 5, 0, 1}});
    });
    if (read<uint32_t>(GPU, sorted) != read<uint32_t>(CPU, sorted)) FAIL_CHECK(what << ": pairs differ");
    if (read<uint32_t>(GPU, items) != read<uint32_t>(CPU, items)) FAIL_CHECK(what << ": items differ");
}

} // namespace

TEST_CASE("ops: expert_sort") {
    for (const uint32_t n_rows : {1u, 2u, 5u, 7u, 8u, 31u, 65u, 256u})
        for (const auto& [n_experts, n_slots] :
             {std::pair(2u, 2u), {13u, 6u}, {17u, 5u}, {257u, 9u}, {300u, 9u}})
            check_sort(n_rows, n_experts, n_slots, false);
    for (const uint32_t n_rows : {5u, 31u, 256u}) check_sort(n_rows, 1, 1, true);
}

TEST_CASE("ops: moe_up and moe_down of every format" * doctest::test_suite("formats")) {
    Worst worst("experts");
    for (const Format format : PLAIN_FORMATS) {
        const Scratch scratch;
        const auto name = fmt::format("experts {}", name_of(format));
        const Experts layer(name, format, 80, 28, 13, 6);
        for (const uint32_t n_rows : ROWS) check_experts(layer, n_rows, worst, name);
    }
}

TEST_CASE("ops: moe_up and moe_down of odd shapes") {
    Worst worst("experts");
    struct Shape {
        uint32_t dim, width, n_experts, n_slots;
    };
    for (const Shape& s :
         {Shape{7, 20, 4, 3}, {97, 65, 5, 2}, {20, 1, 3, 2}, {1, 7, 3, 2}, {576, 97, 9, 8}}) {
        const auto name = fmt::format("experts ({}, {}) {} of {}", s.dim, s.width, s.n_slots, s.n_experts);
        const Experts layer(name, Format::f32, s.dim, s.width, s.n_experts, s.n_slots);
        for (const uint32_t n_rows : {1u, 3u, 7u, 31u}) check_experts(layer, n_rows, worst, name);
    }
}

TEST_CASE("ops: moe_up and moe_down of a dense layer") {
    Worst worst("dense");
    const Experts layer("dense", Format::bf16, 84, 90, 1, 1, true);
    for (const uint32_t n_rows : {1u, 2u, 3u, 7u, 65u}) check_experts(layer, n_rows, worst, "dense");
}

TEST_CASE("ops: moe_up and moe_down by any number of lanes") {
    Worst worst("experts");
    const Scratch scratch;
    const Experts layer("lanes", Format::bf16, 97, 65, 5, 3);
    for (const uint32_t lanes : possible_lanes())
        for (const uint32_t n_rows : {1u, 3u, 7u, 31u}) check_experts(layer, n_rows, worst, "experts", lanes);
}
