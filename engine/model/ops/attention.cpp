// Latent attention: cache write, absorption of queries, attention over the cache with its value
// up-projection; and the expanded attention of a prefill chunk, which plain attention uses too. Shapes and
// formulas: the shaders of these names.
#include "base/numbers.h"
#include "model/ops/cached.h"
#include "model/ops/product.h"
#include "model/ops/reference.h"

#include "base/error.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fathom {

using namespace reference;

namespace {

void latent_write_reference(const LatentWrite& p) {
    for (uint32_t t = 0; t < n_rows(p.state); ++t) {
        const StepRow& r = step_row(p.state, t);
        const float* kv = row(p.kv, t, p.kv_stride);
        std::vector<float> y(p.row_floats);
        double squares = 0;
        for (uint32_t i = 0; i < p.latent_dim; ++i) squares += double(kv[i]) * kv[i];
        const double scale = 1 / std::sqrt(squares / p.latent_dim + p.eps);
        for (uint32_t i = 0; i < p.latent_dim; ++i)
            y[i] = static_cast<float>(kv[i] * scale * floats(p.weight)[i]);
        rotate(p.rope, r.position, p.rope_dim, p.half_split, kv + p.latent_dim, &y[pad4(p.latent_dim)]);
        write_cache_row(p.cache_format, y,
                        cache_row(p.cache, p.pages, r, r.position, p.max_pages, p.page_bytes, p.row_bytes));
    }
}

template <Format F> void absorb_reference(const Absorb& p) {
    const uint32_t head_dim = p.nope_dim + p.rope_dim;
    std::vector<double> sum(p.latent_dim);
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            const float* q = row(p.q, t, p.q_stride) + h * head_dim;
            float* y = row(p.y, uint64_t{t} * p.n_heads + h, p.row_floats);
            std::fill(sum.begin(), sum.end(), 0.0);
            for (uint32_t d = 0; d < p.nope_dim; ++d) {
                const auto w = weight_row<F>(p.weights, uint64_t{h} * (p.nope_dim + p.value_dim) + d,
                                             p.row_bytes, p.latent_dim);
                for (uint32_t c = 0; c < p.latent_dim; ++c) sum[c] += double(w[c]) * q[d];
            }
            std::fill_n(y, p.row_floats, 0.0f);
            for (uint32_t c = 0; c < p.latent_dim; ++c) y[c] = static_cast<float>(sum[c]);
            rotate(p.rope, step_row(p.state, t).position, p.rope_dim, p.half_split, q + p.nope_dim,
                   y + pad4(p.latent_dim));
        }
}

template <Format F> void absorb_split_reference(const AbsorbSplit& p) {
    const uint32_t head_dim = p.nope_dim + p.rope_dim;
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            const float* q = row(p.q, t, p.q_stride) + h * head_dim;
            float* y = row(p.y, uint64_t{t} * p.n_heads + h, p.row_floats);
            std::fill_n(y, p.row_floats, 0.0f);
            for (uint32_t c = 0; c < p.latent_dim; ++c)
                y[c] = static_cast<float>(
                    dot<F>(p.weights, uint64_t{h} * p.latent_dim + c, p.row_bytes, q, p.nope_dim));
            rotate(p.rope, step_row(p.state, t).position, p.rope_dim, p.half_split, q + p.nope_dim,
                   y + pad4(p.latent_dim));
        }
}

template <Format F> void expand_keys_reference(const ExpandKeys& p) {
    std::vector<double> sum(p.nope_dim);
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            std::fill(sum.begin(), sum.end(), 0.0);
            for (uint32_t c = 0; c < p.latent_dim; ++c) {
                const auto w =
                    weight_row<F>(p.weights, uint64_t{h} * p.latent_dim + c, p.row_bytes, p.nope_dim);
                const double x = row(p.latent, t, p.latent_stride)[c];
                for (uint32_t d = 0; d < p.nope_dim; ++d) sum[d] += double(w[d]) * x;
            }
            float* y = row(p.y, t, p.y_stride) + h * p.nope_dim;
            for (uint32_t d = 0; d < p.nope_dim; ++d) y[d] = static_cast<float>(sum[d]);
        }
}

template <Format F> void attention_combine_reference(const AttentionCombine& p) {
    const uint32_t latent4 = pad4(p.latent_dim), stride = latent4 + 4;
    std::vector<float> context(p.latent_dim);
    for (uint32_t t = p.first_row; t < std::min(p.last_row, n_rows(p.state)); ++t) {
        const uint32_t used = parts_used(step_row(p.state, t), p.n_parts);
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            const uint64_t nth = uint64_t{t - p.first_row} * p.n_heads + h;
            const JoinedParts joined(row(p.partial, nth * p.n_parts, stride), used, latent4);
            for (uint32_t c = 0; c < p.latent_dim; ++c) context[c] = static_cast<float>(joined.value(c));
            for (uint32_t i = 0; i < p.value_dim; ++i) {
                const uint64_t weight_row = uint64_t{h} * (p.skipped_rows + p.value_dim) + p.skipped_rows + i;
                const double value = dot<F>(p.weights, weight_row, p.row_bytes, context.data(), p.latent_dim);
                row(p.y, t, p.y_stride)[h * p.value_dim + i] = static_cast<float>(value / joined.sum);
            }
        }
    }
}

void rotate_queries_reference(const RotateQueries& p) {
    const uint32_t nope4 = pad4(p.nope_dim), step = nope4 + pad4(p.rope_dim);
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            const float* q = row(p.q, t, p.q_stride) + h * (p.nope_dim + p.rope_dim);
            float* y = row(p.y, uint64_t{t} * p.n_heads + h, step);
            std::fill_n(y, step, 0.0f);
            std::copy_n(q, p.nope_dim, y);
            rotate(p.rope, step_row(p.state, t).position, p.rope_dim, p.half_split, q + p.nope_dim,
                   y + nope4);
        }
}

void expanded_attention_reference(const ExpandedAttention& p) {
    const uint32_t nope4 = pad4(p.nope_dim), query_floats = nope4 + pad4(p.rope_dim);
    const StepHeader& block = header(p.block);
    std::vector<double> scores;
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            const uint32_t position = step_row(p.state, t).position;
            const float* query = row(p.q, uint64_t{t} * p.n_heads + h, query_floats);
            scores.clear();
            for (uint32_t j = 0; j < block.n_rows && block.first + j <= position; ++j) {
                const float* nope = row(p.kv, j, p.kv_stride) + h * p.k_stride;
                const float* k_pe = row(p.latent, j, p.row_floats) + pad4(p.latent_dim);
                double score = 0;
                for (uint32_t d = 0; d < p.nope_dim; ++d) score += double(query[d]) * nope[d];
                for (uint32_t d = 0; d < p.rope_dim; ++d) score += double(query[nope4 + d]) * k_pe[d];
                scores.push_back(score * p.scale);
            }
            if (scores.empty()) continue;
            float* const running = row(p.running, uint64_t{t} * p.n_heads + h, 2);
            const bool first = p.place & EXPANDED_FIRST, last = p.place & EXPANDED_LAST;
            const Softmax softmax(scores);
            const double largest = first ? softmax.largest : std::max<double>(running[0], softmax.largest);
            const double before = first ? 0 : std::exp(running[0] - largest);
            const double now = std::exp(softmax.largest - largest);
            const double sum = (first ? 0 : before * running[1]) + now * softmax.sum;
            float* y = row(p.y, t, p.y_stride) + h * p.value_dim;
            for (uint32_t c = 0; c < p.value_dim; ++c) {
                double value = 0;
                for (size_t j = 0; j < scores.size(); ++j)
                    value += scores[j] * row(p.kv, j, p.kv_stride)[p.v_first + h * p.v_stride + c];
                value = (first ? 0 : before * y[c]) + now * value;
                y[c] = static_cast<float>(last ? value / sum : value);
            }
            if (last) continue;
            running[0] = static_cast<float>(largest);
            running[1] = static_cast<float>(sum);
        }
}

} // namespace

void latent_write(Plan& plan, const std::string& label, const StepMemory& step, const AttentionShape& shape,
                  Rows kv, View weight, View cache, float eps) {
    const LatentWrite p{step.state.address, kv.address,      weight.address,    step.rope.address,
                        step.pages.address, cache.address,   kv.stride,         shape.latent_dim,
                        shape.rope_dim,     step.half_split, step.max_pages,    step.page_bytes,
                        step.row_floats,    step.row_bytes,  step.cache_format, eps};
    plan.add<latent_write_reference>("latent_write", label, p, {1, plan.rows(), 1}, {step.cache_format},
                                     {step.state, kv.span(plan.rows()), weight, step.rope, step.pages},
                                     {cache});
}

void absorb(Plan& plan, const std::string& label, const StepMemory& step, const AttentionShape& shape,
            const KvB& kv_b, Rows q, View y) {
    const uint32_t tokens = std::min(plan.rows(), 4u), blocks = div_up(plan.rows(), tokens);
    const Matrix& w = kv_b.split() ? kv_b.k : kv_b.whole;
    const std::vector<View> reads{step.state, q.span(plan.rows()), w.view, step.rope};
    if (!kv_b.split()) {
        const Absorb p{step.state.address, q.address,        w.view.address, step.rope.address,
                       y.address,          shape.n_heads,    shape.nope_dim, shape.rope_dim,
                       shape.value_dim,    shape.latent_dim, q.stride,       w.row_bytes,
                       step.row_floats,    step.half_split};
        FATHOM_ADD_BY_FORMAT(plan, absorb, w.format, label, p,
                             {div_up(shape.latent_dim, WORKGROUP), shape.n_heads, blocks}, {tokens}, reads,
                             {y});
        return;
    }
    const AbsorbSplit p{step.state.address, q.address,       w.view.address, step.rope.address, y.address,
                        shape.n_heads,      shape.nope_dim,  shape.rope_dim, shape.latent_dim,  q.stride,
                        w.row_bytes,        step.row_floats, step.half_split};
    const uint32_t chunks = div_up(shape.nope_dim, 8);
    check(tokens * chunks * 32 <= plan.caps().shared_bytes, "the queries of a tile fit shared memory");
    FATHOM_ADD_BY_FORMAT(plan, absorb_split, w.format, label, p,
                         {div_up(shape.latent_dim, WORKGROUP), shape.n_heads, blocks},
                         {plan.caps().k_lanes, tokens, chunks}, reads, {y});
}

void expand_kv(Plan& plan, const std::string& label, const StepMemory& step, const AttentionShape& shape,
               const KvB& kv_b, Rows latent, Rows kv) {
    if (!kv_b.split()) return matmul(plan, label, step, kv_b.whole, latent, kv, false);
    const uint32_t tokens = std::min(plan.rows(), 8u), key_cols = shape.n_heads * shape.nope_dim;
    const Rows keys = kv.columns(0, key_cols);
    const ExpandKeys p{step.state.address, latent.address, kv_b.k.view.address, keys.address,
                       shape.n_heads,      shape.nope_dim, shape.latent_dim,    latent.stride,
                       kv_b.k.row_bytes,   keys.stride};
    FATHOM_ADD_BY_FORMAT(
        plan, expand_keys, kv_b.k.format, label + ".keys", p,
        {div_up(shape.n_heads * div_up(shape.nope_dim, 8), WORKGROUP), div_up(plan.rows(), tokens), 1},
        {tokens}, {step.state, latent.span(plan.rows()), kv_b.k.view}, {keys.span(plan.rows())});
    matmul(plan, label, step, kv_b.v, latent, kv.columns(key_cols, shape.n_heads * shape.value_dim), false);
}

void latent_attention(Plan& plan, const std::string& label, const StepMemory& step,
                      const AttentionShape& shape, const KvB& kv_b, View q, View cache, View partial,
                      Rows y) {
    const Matrix& w = kv_b.split() ? kv_b.v : kv_b.whole;
    const gpu::Caps& caps = plan.caps();
    cached_attention(plan, label, step, shape, q, cache, partial, [&](const JoinedRows& rows) {
        const uint32_t n = rows.last - rows.first, tokens = std::min(4u, std::bit_floor(rows.most));
        // Few tokens: their heads alone would leave a GPU idle, so that some groups share the values of one.
        const uint32_t slices = caps.cpu || rows.most >= 16 ? 1 : std::max(1u, 4 / tokens);
        const AttentionCombine c{step.state.address, rows.partial.address,
                                 w.view.address,     y.address,
                                 shape.n_heads,      kv_b.split() ? 0 : shape.nope_dim,
                                 shape.value_dim,    shape.latent_dim,
                                 rows.parts,         w.row_bytes,
                                 y.stride,           rows.first,
                                 rows.last};
        FATHOM_ADD_BY_FORMAT(plan, attention_combine, w.format, label + ".combine", c,
                             {shape.n_heads, slices, div_up(n, tokens)},
                             {caps.k_lanes, div_up(shape.latent_dim, 8), tokens},
                             {step.state, rows.partial, w.view}, {y.from(rows.first).span(n)});
    });
}

HeadRanges expanded_ranges(const AttentionShape& shape, bool split) {
    const uint32_t nope = shape.nope_dim, both = shape.nope_dim + shape.value_dim;
    if (split) return {nope, shape.n_heads * nope, shape.value_dim};
    return {both, nope, both};
}

uint32_t history_blocks(uint32_t bucket, uint32_t before) {
    const uint32_t blocks = div_up(before, bucket);
    return static_cast<uint32_t>(round_up(blocks, std::max(std::bit_floor(blocks) / 2, 1u)));
}

void rotate_queries(Plan& plan, const std::string& label, const StepMemory& step, const AttentionShape& shape,
                    Rows q, View y) {
    const RotateQueries p{step.state.address, q.address,     step.rope.address,
                          y.address,          shape.n_heads, shape.nope_dim,
                          shape.rope_dim,     q.stride,      step.half_split};
    const uint32_t numbers = shape.n_heads * shape.query_floats();
    plan.add<rotate_queries_reference>(
        "rotate_queries", label, p, {div_up(numbers, QUERY_SLICE), plan.rows(), 1}, {},
        {step.state, q.span(plan.rows()), step.rope}, {{y.address, 4ull * plan.rows() * numbers}});
}

void expanded_attention(Plan& plan, const std::string& label, const StepMemory& step,
                        const AttentionShape& shape, View q, const Expanded& block, View running, Rows y) {
    const ExpandedAttention p{step.state.address,
                              block.header.address,
                              q.address,
                              block.kv.address,
                              block.latent.address,
                              running.address,
                              y.address,
                              shape.n_heads,
                              shape.nope_dim,
                              shape.rope_dim,
                              shape.value_dim,
                              shape.latent_dim,
                              block.kv.stride,
                              y.stride,
                              step.row_floats,
                              block.heads.key_step,
                              block.heads.value_first,
                              block.heads.value_step,
                              block.place,
                              shape.scale};
    std::vector<View> reads{step.state, q, block.kv.span(plan.rows()), block.latent},
        writes{y.span(plan.rows())};
    if (!(block.place & EXPANDED_FIRST)) reads.insert(reads.end(), {running, y.span(plan.rows())});
    if (!(block.place & EXPANDED_LAST)) writes.push_back(running);
    // Tiles are made of keys in loads of 16 bytes.
    const bool whole = shape.nope_dim % 4 == 0 && p.k_stride % 4 == 0 && p.kv_stride % 4 == 0;
    ProductLaunch launch{Tier::base, {whole, attention_sums(plan.caps())}, 0, WORKGROUP};
    if (const Product product = expanded_product(shape, plan.prefill()); whole) {
        plan.note(product);
        if (tier_for(plan, product) != Tier::base)
            launch = launch_for(plan, product, {.tokens = plan.rows()});
    }
    static const auto modules = modules_of("expanded_attention");
    plan.add<expanded_attention_reference>(modules[static_cast<size_t>(launch.tier)], label, p,
                                           {div_up(plan.rows(), launch.tokens), shape.n_heads, 1},
                                           launch.constants, reads, writes);
}

} // namespace fathom
