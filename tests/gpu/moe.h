// The routing shapes and the runs of expert kernels that the tests share.
#pragma once

#include "gpu/help.h"

namespace fathom::test {

// The memory of one router, and how it is run.
struct Routing {
    RoutingShape shape;
    uint32_t dim = 0, n_rows = 0;
    Weights gate;
    Tensor x;
    Buffer bias, control; // bias without bytes: none
    Buffer experts, expert_weights, arrivals, trace;
    uint32_t trace_slot = 0, trace_stride = 0, trace_offset = 0, scores_at = 0; // words

    Routing(RoutingShape routing, uint32_t width, uint32_t rows, const std::string& name,
            Format format = Format::f32)
        : shape(routing), dim(width), n_rows(rows),
          gate(random_weights(name, format, routing.n_experts, width)),
          x(random_tensor(name + " x", bucket_of(rows), width)) {
        bias = {};
        set_control(std::vector<float>(routing.n_experts, 0.0f), std::vector<float>(routing.n_experts, 1.0f));
    }
    void set_control(const std::vector<float>& keys, const std::vector<float>& factors) {
        std::vector<float> pairs;
        for (size_t e = 0; e < keys.size(); ++e) pairs.insert(pairs.end(), {keys[e], factors[e]});
        control = buffer(pairs);
    }
    void execute(uint32_t lanes = 0, uint32_t pieces = 1) {
        const uint32_t words = bucket_of(n_rows) * shape.n_slots();
        experts = blank(words), expert_weights = blank(words);
        arrivals = arrivals_of(bucket_of(n_rows), shape.n_experts);
        trace = blank(std::max(1u, TRACE_ROWS * trace_stride));
        const Step step = step_of(std::vector<StepRow>(n_rows), trace_slot);
        const auto build = [&](Plan& plan, Side side) {
            View ring = trace.view[side];
            ring = {ring.address + 4 * trace_offset, trace_stride ? ring.bytes - 4 * trace_offset : 0};
            router(plan, "router", step.memory(side), shape, gate.matrix(side), x.rows(side),
                   {bias.view[side],
                    control.view[side],
                    experts.view[side],
                    expert_weights.view[side],
                    arrivals.view[side],
                    {ring, trace_stride},
                    scores_at});
        };
        if (pieces == 1) return run(bucket_of(n_rows), build, lanes);
        run(CPU, bucket_of(n_rows), build, executor(GPU).caps());
        run_cut(bucket_of(n_rows), build, pieces);
    }
    std::vector<uint32_t> chosen(uint32_t row, Side side = GPU) const { // without the shared experts
        const auto all = read<uint32_t>(side, experts);
        const auto first = all.begin() + row * shape.n_slots();
        return {first, first + shape.n_active};
    }
};

// A layer of experts on both sides: the lists, the two halves and the memory between them.
struct Experts {
    uint32_t dim = 0, width = 0, n_experts = 0, n_slots = 0; // n_experts with the shared ones
    bool dense = false;                                      // one expert, without lists of them or weights
    Weights gate, up, down;

    Experts(const std::string& name, Format format, uint32_t d, uint32_t w, uint32_t experts, uint32_t slots,
            bool is_dense = false)
        : dim(d), width(w), n_experts(experts), n_slots(slots), dense(is_dense),
          gate(random_weights(name + " gate", format, w, d, experts)),
          up(random_weights(name + " up", format, w, d, experts)),
          down(random_weights(name + " down", format, d, w, experts)) {}
    Mlp mlp(Side side) const { return {gate.matrix(side), up.matrix(side), down.matrix(side)}; }

    void append(Plan& plan, const StepMemory& step, Side side, const Tensor& x, const Buffer& experts,
                const Buffer& expert_weights, const Tensor& act, const Tensor& y) const {
        const uint32_t rows = plan.rows(), pairs = rows * n_slots;
        const auto allocate = [&](uint64_t bytes) { return Scratch::take(side, bytes); };
        const uint32_t max_items =
            moe_max_items(rows, n_slots, n_experts, moe_tile(plan, mlp(side), n_slots));
        const MoeLists lists = moe_lists(plan, mlp(side), n_slots, allocate(4ull * pairs),
                                         allocate(sizeof(MoeGrids) + uint64_t{max_items} * sizeof(MoeItem)));
        const auto stride = static_cast<uint32_t>(round_up(dim, 8));
        const Rows pairs_out{allocate(4ull * pairs * stride).address, dim, stride};
        const View e = dense ? View{} : experts.view[side], w = dense ? View{} : expert_weights.view[side];
        if (moe_grouped(plan)) expert_sort(plan, "expert_sort", step, n_experts, n_slots, e, lists);
        moe_up(plan, "moe_up", step, mlp(side), n_slots, x.rows(side), e, lists, act.rows(side));
        moe_down(plan, "moe_down", step, down.matrix(side), n_slots, act.rows(side), e, w, lists, pairs_out,
                 y.rows(side));
    }
};

// Distinct experts for each token: n_slots of them, the last one shared by all (as a shared expert is).
inline std::vector<uint32_t> random_choice(const std::string& name, uint32_t n_rows, uint32_t n_experts,
                                           uint32_t n_slots) {
    const uint64_t hash = golden::fnv1a64(name);
    std::vector<uint32_t> result;
    for (uint32_t t = 0; t < n_rows; ++t) {
        std::vector<uint32_t> left;
        for (uint32_t e = 0; e + 1 < n_experts; ++e) left.push_back(e);
        for (uint32_t i = 0; i + 1 < n_slots; ++i) {
            const float u = (golden::unit(hash, t * n_slots + i) + 1) / 2;
            const auto k = static_cast<size_t>(
                u * u * static_cast<float>(left.size())); // some experts much more than others
            result.push_back(left[k]);
            left.erase(left.begin() + static_cast<ptrdiff_t>(k));
        }
        result.push_back(n_experts - 1);
    }
    return result;
}

// Both halves of a layer of experts against the references.
inline void check_experts(const Experts& layer, uint32_t n_rows, Worst& worst, const std::string& name,
                          uint32_t lanes = 0, Tier tier = Tier::base, double limit = 1e-12) {
    const Scratch scratch;
    const auto what = fmt::format("{} of {} rows", name, n_rows);
    const uint32_t bucket = bucket_of(n_rows), pairs = bucket * layer.n_slots;
    const Step step = step_of(n_rows);
    const Tensor x = random_tensor(what + " x", bucket, layer.dim), act = output(pairs, layer.width);
    const Tensor y = random_tensor(what + " y", bucket, layer.dim);
    auto choice =
        layer.dense ? std::vector<uint32_t>() : random_choice(what, n_rows, layer.n_experts, layer.n_slots);
    choice.resize(pairs, 0);
    const Buffer experts = buffer(choice), expert_weights = random_vector(what, pairs);
    run(
        bucket,
        [&](Plan& plan, Side side) {
            layer.append(plan, step.memory(side), side, x, experts, expert_weights, act, y);
        },
        lanes, tier);
    compare(act, n_rows * layer.n_slots, limit, worst,
            what + ", act"); // f32 sums, one exp good to about 1e-6
    compare(y, n_rows, limit, worst, what, false);
    const auto before = random_floats(what + " y", uint64_t{bucket} * layer.dim), after = read<float>(GPU, y);
    for (uint32_t t = n_rows; t < bucket; ++t)
        for (uint32_t i = 0; i < layer.dim; ++i)
            if (after[t * y.stride + i] != before[t * layer.dim + i])
                FAIL_CHECK(what << ": a row past the step was written");
}

} // namespace fathom::test
