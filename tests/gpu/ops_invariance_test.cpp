// A row's bits depend on the row alone: not on how many rows a step has room for, nor on its neighbours. The
// same 32 rows go through steps of every bucket, in other companies and orders, and must come out with equal
// bits.
#include "gpu/attention.h"
#include "gpu/moe.h"
#include "model/ops/product.h"
#include "model/traffic.h"

#include <array>
#include <bit>

using namespace fathom;
using namespace fathom::test;

namespace {

constexpr uint32_t N = 32; // rows watched

// Runs one step of `bucket` rows whose row i is the logical row which[i]; returns each row's bits.
using Bits = std::vector<uint32_t>;
using StepOf = std::function<std::vector<Bits>(const std::vector<uint32_t>& which, uint32_t bucket)>;

std::vector<Bits> split(const Tensor& y, uint32_t n_rows, uint32_t rows_each = 1) {
    const auto words = read<uint32_t>(GPU, y);
    std::vector<Bits> result(n_rows);
    for (uint32_t t = 0; t < n_rows; ++t)
        for (uint32_t r = t * rows_each; r < (t + 1) * rows_each; ++r)
            result[t].insert(result[t].end(), words.begin() + r * y.stride,
                             words.begin() + r * y.stride + y.cols);
    return result;
}

void check_rows(const std::string& what, const StepOf& run_step) {
    const auto step = [&](const std::vector<uint32_t>& which, uint32_t bucket) {
        const Scratch scratch;
        return run_step(which, bucket);
    };
    std::vector<Bits> alone;
    for (uint32_t r = 0; r < N; ++r) alone.push_back(step({r}, 1).front());
    for (const uint32_t bucket : {2u, 4u, 8u, 16u, 32u, 256u})
        for (const uint32_t turn : {1u, 11u}) { // the order of rows, hence their neighbours
            for (uint32_t first = 0; first < N; first += bucket) {
                std::vector<uint32_t> which;
                for (uint32_t i = 0; i < std::min(bucket, N); ++i) which.push_back((first + i) * turn % N);
                for (uint32_t i = N; i < bucket; ++i) which.push_back(i);     // 256: strangers
                if (turn == 11 && bucket > 2) which.resize(which.size() - 1); // a step that is not full
                const auto together = step(which, bucket);
                for (size_t i = 0; i < which.size(); ++i)
                    if (which[i] < N && together[i] != alone[which[i]])
                        FAIL_CHECK(fmt::format("{}: row {} has other bits in a step of {} rows", what,
                                               which[i], bucket));
            }
        }
}

// Rows `which` of a table of random rows.
Tensor rows_of(const std::string& name, const std::vector<uint32_t>& which, uint32_t bucket, uint32_t cols,
               float scale = 1) {
    const auto table = random_floats(name, 256ull * cols, scale);
    std::vector<float> values;
    for (const uint32_t r : which)
        values.insert(values.end(), table.begin() + r * cols, table.begin() + (r + 1) * cols);
    values.resize(uint64_t{bucket} * cols);
    return tensor(bucket, cols, values);
}

// Buckets take turns at the tiles of devices with many registers, and with few.
void run_gpu(uint32_t bucket, const Build& build) {
    gpu::Caps caps = executor(GPU).caps();
    caps.registers = std::array{512u, 64u, 128u, 256u}[std::bit_width(bucket) % 4];
    run(GPU, bucket, build, caps);
}

std::vector<StepRow> attention_rows(const std::vector<uint32_t>& which) {
    std::vector<StepRow> rows;
    for (const uint32_t r : which) rows.push_back({r, (r * 37 + 60) % POSITIONS, r % SEQUENCES});
    return rows;
}

void check_latent_invariance(const Attention& a, Tier tier) {
    std::vector<uint32_t> all(256);
    for (uint32_t r = 0; r < 256; ++r) all[r] = r;
    const Tensor cache = random_cache(a, attention_rows(all));
    const Weights kv_b = random_weights("kv_b", Format::bf16, a.kv_b_rows(), a.shape.latent_dim);
    check_rows("latent_attention " + a.name(), [&](const auto& which, uint32_t bucket) {
        const Step step = attention_step(a, attention_rows(which));
        const Tensor q = rows_of("q", which, bucket, a.shape.n_heads * a.head_dim());
        const Tensor q_latent = output(bucket * a.shape.n_heads, a.row_floats(), a.row_floats());
        const Tensor y = output(bucket, a.shape.n_heads * a.shape.value_dim);
        // Room for seven rows: larger steps go in blocks.
        const View partial = Scratch::take(GPU, 7 * partial_row_bytes(executor(GPU).caps(), a.shape));
        const auto build = [&](Plan& plan, Side side) {
            absorb(plan, "absorb", step.memory(side), a.shape, {kv_b.matrix(side), {}, {}}, q.rows(side),
                   q_latent.view[side]);
            latent_attention(plan, "latent_attention", step.memory(side), a.shape,
                             {kv_b.matrix(side), {}, {}}, q_latent.view[side], cache.view[side], partial,
                             y.rows(side));
            CHECK(tier_of(plan.ops()[1].module) == tier);
        };
        run(GPU, bucket, build, executor(GPU).caps(), tier);
        return split(y, static_cast<uint32_t>(which.size()));
    });
}

void check_expanded_invariance(const Attention& a, Tier tier) {
    for (const bool history : {false, true}) { // a block of 61 positions before the chunk
        const auto chunk_of = [&](uint32_t n_rows, uint32_t bucket) {
            std::vector<StepRow> rows;
            std::vector<uint32_t> which;
            for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({t, 61 + t, 1}), which.push_back(t);
            const Step step = attention_step(a, rows, CacheFormat::f32, {{61, 0, 0, 0}});
            const Tensor q = rows_of("q", which, bucket, a.shape.n_heads * a.head_dim());
            const Tensor kv = rows_of("kv", which, bucket, a.kv_b_rows()),
                         before = random_tensor("before", 61, a.kv_b_rows());
            const Tensor latent = random_tensor("latent", bucket, a.row_floats(), 1, a.row_floats()),
                         older = random_tensor("older", 61, a.row_floats(), 1, a.row_floats());
            const Tensor running = output(bucket * a.shape.n_heads, 2, 2),
                         y = output(bucket, a.shape.n_heads * a.shape.value_dim),
                         rotated =
                             output(bucket * a.shape.n_heads, a.shape.query_floats(), a.shape.query_floats());
            const HeadRanges heads = expanded_ranges(a.shape, false);
            const auto build = [&](Plan& plan, Side side) {
                const View queries = rotated.view[side], sums = running.view[side];
                rotate_queries(plan, "rotate", step.memory(side), a.shape, q.rows(side), queries);
                if (history)
                    expanded_attention(
                        plan, "history", step.memory(side), a.shape, queries,
                        {step.block(side, 0), older.view[side], before.rows(side), heads, EXPANDED_FIRST},
                        sums, y.rows(side));
                expanded_attention(plan, "expanded", step.memory(side), a.shape, queries,
                                   {step.header(side), latent.view[side], kv.rows(side), heads,
                                    EXPANDED_LAST | (history ? 0u : EXPANDED_FIRST)},
                                   sums, y.rows(side));
                CHECK(tier_of(plan.ops().back().module) == tier);
            };
            run(GPU, bucket, build, executor(GPU).caps(), tier);
            return split(y, n_rows);
        };
        const auto whole = chunk_of(200, 256);
        for (const auto& [n_rows, bucket] : {std::pair(1u, 1u),
                                             {2u, 2u},
                                             {3u, 4u},
                                             {3u, 256u},
                                             {8u, 8u},
                                             {31u, 32u},
                                             {64u, 64u},
                                             {100u, 128u}}) {
            const auto part = chunk_of(n_rows, bucket);
            for (uint32_t t = 0; t < n_rows; ++t)
                if (part[t] != whole[t])
                    FAIL_CHECK(
                        fmt::format("row {} has other bits in a chunk of {} of {}", t, n_rows, bucket));
        }
    }
}

} // namespace

TEST_CASE("ops: invariance of rms_norm") {
    const Buffer weight = random_vector("weight", 97);
    check_rows("rms_norm", [&](const auto& which, uint32_t bucket) {
        const Step step = step_of(std::vector<StepRow>(which.size()));
        const Tensor x = rows_of("norm", which, bucket, 97), y = output(bucket, 97);
        run_gpu(bucket, [&](Plan& plan, Side side) {
            rms_norm(plan, "rms_norm", step.memory(side), x.rows(side), weight.view[side], y.rows(side),
                     1e-6f);
        });
        return split(y, static_cast<uint32_t>(which.size()));
    });
}

TEST_CASE("ops: a norm has the same bits in a launch of its own and in the op that follows") {
    const Buffer weight = random_vector("weight", 97);
    for (const Format format : PLAIN_FORMATS) {
        const Weights w = random_weights("after the norm", format, 65, 97);
        for (const uint32_t n_rows : {1u, 2u, 7u}) {
            const Scratch scratch;
            std::vector<uint32_t> which(n_rows);
            for (uint32_t r = 0; r < n_rows; ++r) which[r] = r;
            const uint32_t bucket = bucket_of(n_rows);
            const Step step = step_of(std::vector<StepRow>(n_rows));
            const Tensor x = rows_of("raw", which, bucket, 97), normed = output(bucket, 97);
            const Tensor apart = output(bucket, 65), fused = output(bucket, 65);
            run_gpu(bucket, [&](Plan& plan, Side side) {
                rms_norm(plan, "norm", step.memory(side), x.rows(side), weight.view[side], normed.rows(side),
                         1e-6f);
                matmul(plan, "apart", step.memory(side), w.matrix(side), normed.rows(side), apart.rows(side),
                       false);
                matmul(plan, "fused", step.memory(side), w.matrix(side),
                       {x.rows(side), weight.view[side], 1e-6f}, fused.rows(side), false);
            });
            CHECK(split(fused, n_rows) == split(apart, n_rows));
        }
    }
}

TEST_CASE("ops: invariance of matmul") {
    for (const Format format : PLAIN_FORMATS)
        for (const auto& [n_out, n_in] : {std::pair(65u, 97u), {28u, 576u}}) {
            const Weights w = random_weights("invariance", format, n_out, n_in);
            check_rows(fmt::format("matmul {} ({}, {})", name_of(format), n_out, n_in), [&](const auto& which,
                                                                                            uint32_t bucket) {
                const Step step = step_of(std::vector<StepRow>(which.size()));
                const Tensor x = rows_of("product", which, bucket, n_in), y = output(bucket, n_out);
                const Tensor sum = rows_of("sum", which, bucket, n_out);
                run_gpu(bucket, [&](Plan& plan, Side side) {
                    matmul(plan, "matmul", step.memory(side), w.matrix(side), x.rows(side), y.rows(side),
                           false);
                    matmul(plan, "matmul", step.memory(side), w.matrix(side), x.rows(side), sum.rows(side),
                           true);
                });
                auto bits = split(y, static_cast<uint32_t>(which.size()));
                const auto more = split(sum, static_cast<uint32_t>(which.size()));
                for (size_t i = 0; i < bits.size(); ++i)
                    bits[i].insert(bits[i].end(), more[i].begin(), more[i].end());
                return bits;
            });
        }
}

TEST_CASE("ops: invariance of absorb and latent_attention") {
    for (const Attention& a : {SHAPES[0], SHAPES[3]}) check_latent_invariance(a, Tier::base);
    for (const Tier tier : {Tier::tiled, Tier::matrix})
        if (is_possible(tier, cached_product(SHAPES[3].shape, CACHE_F32, false), executor(GPU).caps()))
            check_latent_invariance(SHAPES[3], tier);
}

TEST_CASE("ops: invariance of expanded_attention to the room in the step and to later rows") {
    check_expanded_invariance(SHAPES[0], Tier::base);
    for (const Tier tier : {Tier::tiled, Tier::matrix})
        if (is_possible(tier, expanded_product(SHAPES[1].shape, true), executor(GPU).caps()))
            check_expanded_invariance(SHAPES[1], tier);
}

TEST_CASE("ops: invariance of router") {
    const RoutingShape shape{16, 4, 1, 4, 2, ROUTER_SIGMOID | ROUTER_GROUP_TOP2 | ROUTER_NORMALISE, 2.5f};
    const RoutingShape soft{65, 6, 0, 1, 1, 0, 1};
    for (const RoutingShape& routing_shape : {shape, soft})
        check_rows("router", [&](const auto& which, uint32_t bucket) {
            Routing routing(routing_shape, 80, static_cast<uint32_t>(which.size()), "invariance");
            routing.x = rows_of("routed", which, bucket, 80);
            const uint32_t slots = routing_shape.n_slots();
            const Tensor experts = output(bucket, slots, slots), weights = output(bucket, slots, slots);
            const Buffer arrivals = arrivals_of(bucket, routing_shape.n_experts);
            const Step step = step_of(std::vector<StepRow>(which.size()));
            run_gpu(bucket, [&](Plan& plan, Side side) {
                router(plan, "router", step.memory(side), routing_shape, routing.gate.matrix(side),
                       routing.x.rows(side),
                       {{},
                        routing.control.view[side],
                        experts.view[side],
                        weights.view[side],
                        arrivals.view[side],
                        {}});
            });
            auto bits = split(experts, static_cast<uint32_t>(which.size()));
            const auto more = split(weights, static_cast<uint32_t>(which.size()));
            for (size_t i = 0; i < bits.size(); ++i)
                bits[i].insert(bits[i].end(), more[i].begin(), more[i].end());
            return bits;
        });
}

TEST_CASE("ops: invariance of the experts, single and grouped") {
    for (const bool dense : {false, true}) {
        const uint32_t slots = dense ? 1 : 5;
        const Experts layer("invariance", Format::bf16, 80, 65, dense ? 1 : 12, slots, dense);
        const auto choice = random_choice("invariance", 256, 12, 5);
        const auto weight = random_floats("weights", 256 * 5, 0.5f, 1);
        check_rows(dense ? "dense layer" : "experts", [&](const auto& which, uint32_t bucket) {
            const Step step = step_of(std::vector<StepRow>(which.size()));
            std::vector<uint32_t> experts(bucket * slots);
            std::vector<float> weights(bucket * slots);
            for (size_t i = 0; i < which.size() * slots && !dense; ++i) {
                experts[i] = choice[which[i / slots] * slots + i % slots];
                weights[i] = weight[which[i / slots] * slots + i % slots];
            }
            const Tensor x = rows_of("x", which, bucket, 80), y = rows_of("y", which, bucket, 80);
            const Tensor act = output(bucket * slots, 65);
            const Buffer e = buffer(experts), w = buffer(weights);
            run_gpu(bucket, [&](Plan& plan, Side side) {
                layer.append(plan, step.memory(side), side, x, e, w, act, y);
            });
            auto bits = split(act, static_cast<uint32_t>(which.size()), slots);
            const auto more = split(y, static_cast<uint32_t>(which.size()));
            for (size_t i = 0; i < bits.size(); ++i)
                bits[i].insert(bits[i].end(), more[i].begin(), more[i].end());
            return bits;
        });
    }
}
