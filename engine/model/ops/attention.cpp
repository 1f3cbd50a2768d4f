// Latent attention: cache write, absorption of queries, attention over the cache, its combination with the
// value up-projection, and the expanded attention of a prefill chunk. (Plain attention: plain_attention.cpp.)
// Shapes and formulas: the shaders of these names.
#include "base/numbers.h"
#include "model/ops/ops.h"
#include "model/ops/reference.h"

#include "base/error.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fathom {

using namespace reference;

namespace reference {

void write_cache_row(uint32_t format, std::span<const float> numbers, ADDRESS row) {
    const auto n = static_cast<uint32_t>(numbers.size());
    if (format == CACHE_F32) std::copy(numbers.begin(), numbers.end(), floats(row));
    if (format == CACHE_F16)
        for (uint32_t i = 0; i < n; ++i) at<uint16_t>(row)[i] = f32_to_f16(numbers[i]);
    if (format != CACHE_Q8) return;
    for (uint32_t first = 0; first < n; first += 32) {
        const auto block = numbers.subspan(first, std::min(32u, n - first));
        float most = 0;
        for (const float x : block) most = std::max(most, std::abs(x));
        const float inverse = most > 0 ? 127 / most : 0;
        for (size_t i = 0; i < block.size(); ++i)
            at<int8_t>(row)[first + i] = static_cast<int8_t>(std::nearbyint(block[i] * inverse));
        floats(row + CACHE_SCALES_AT(n))[first / 32] = most / 127;
    }
}

std::vector<float> read_cache_row(uint32_t format, ADDRESS row, uint32_t row_floats) {
    std::vector<float> numbers(row_floats);
    for (uint32_t i = 0; i < row_floats; ++i)
        numbers[i] = format == CACHE_F32   ? floats(row)[i]
                     : format == CACHE_F16 ? f16_to_f32(at<uint16_t>(row)[i])
                                           : floats(row + CACHE_SCALES_AT(row_floats))[i / 32] *
                                                 static_cast<float>(at<int8_t>(row)[i]);
    return numbers;
}

} // namespace reference

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

void latent_read_reference(const LatentRead& p) {
    const StepHeader& block = header(p.block);
    const StepRow& r = step_row(p.state, 0);
    for (uint32_t i = 0; i < block.n_rows; ++i) {
        const auto numbers = read_cache_row(
            p.cache_format,
            cache_row(p.cache, p.pages, r, block.first + i, p.max_pages, p.page_bytes, p.row_bytes),
            p.row_floats);
        std::copy(numbers.begin(), numbers.end(), row(p.y, i, p.row_floats));
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

void latent_attention_reference(const LatentAttention& p) {
    const uint32_t latent4 = pad4(p.latent_dim);
    std::vector<double> scores;
    for (uint32_t t = p.first_row; t < std::min(p.last_row, n_rows(p.state)); ++t) {
        const StepRow& r = step_row(p.state, t);
        const uint32_t length = r.position + 1;
        const uint32_t pages = div_up(length, PAGE_TOKENS), per_part = div_up(pages, p.n_parts);
        std::vector<std::vector<float>> keys;
        for (uint32_t j = 0; j < length; ++j)
            keys.push_back(read_cache_row(
                p.cache_format, cache_row(p.cache, p.pages, r, j, p.max_pages, p.page_bytes, p.row_bytes),
                p.row_floats));
        for (uint32_t h = 0; h < p.n_heads; ++h)
            for (uint32_t part = 0; part * per_part < pages; ++part) {
                const uint32_t first = std::min(part * per_part * PAGE_TOKENS, length);
                const uint32_t last = std::min(first + per_part * PAGE_TOKENS, length);
                const float* q = row(p.q, uint64_t{t} * p.n_heads + h, p.row_floats);
                scores.clear();
                for (uint32_t j = first; j < last; ++j) {
                    double score = 0;
                    for (uint32_t c = 0; c < p.row_floats; ++c) score += double(q[c]) * keys[j][c];
                    scores.push_back(score * p.scale);
                }
                const Softmax softmax(scores);
                float* y = row(p.partial, (uint64_t{t - p.first_row} * p.n_heads + h) * p.n_parts + part,
                               latent4 + 4);
                for (uint32_t c = 0; c < latent4; ++c) {
                    double value = 0;
                    for (uint32_t j = first; j < last; ++j) value += scores[j - first] * keys[j][c];
                    y[c] = static_cast<float>(value);
                }
                y[latent4] = static_cast<float>(softmax.largest);
                y[latent4 + 1] = static_cast<float>(softmax.sum);
                y[latent4 + 2] = y[latent4 + 3] = 0;
            }
    }
}

template <Format F> void attention_combine_reference(const AttentionCombine& p) {
    const uint32_t latent4 = pad4(p.latent_dim), stride = latent4 + 4;
    std::vector<float> context(p.latent_dim);
    for (uint32_t t = p.first_row; t < std::min(p.last_row, n_rows(p.state)); ++t) {
        const uint32_t used = parts_used(step_row(p.state, t), p.n_parts);
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            const float* parts =
                row(p.partial, (uint64_t{t - p.first_row} * p.n_heads + h) * p.n_parts, stride);
            double largest = -1.7e38, sum = 0;
            for (uint32_t i = 0; i < used; ++i)
                largest = std::max(largest, double(parts[i * stride + latent4]));
            const auto weight = [&](uint32_t i) { return std::exp(parts[i * stride + latent4] - largest); };
            for (uint32_t i = 0; i < used; ++i) sum += weight(i) * parts[i * stride + latent4 + 1];
            for (uint32_t c = 0; c < p.latent_dim; ++c) {
                double joined = 0;
                for (uint32_t i = 0; i < used; ++i) joined += weight(i) * parts[i * stride + c];
                context[c] = static_cast<float>(joined);
            }
            for (uint32_t i = 0; i < p.value_dim; ++i) {
                const uint64_t weight_row = uint64_t{h} * (p.skipped_rows + p.value_dim) + p.skipped_rows + i;
                const double value = dot<F>(p.weights, weight_row, p.row_bytes, context.data(), p.latent_dim);
                row(p.y, t, p.y_stride)[h * p.value_dim + i] = static_cast<float>(value / sum);
            }
        }
    }
}

void expanded_attention_reference(const ExpandedAttention& p) {
    const uint32_t head_dim = p.nope_dim + p.rope_dim;
    const StepHeader& block = header(p.block);
    std::vector<float> query(head_dim);
    std::vector<double> scores;
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            const uint32_t position = step_row(p.state, t).position;
            const float* q = row(p.q, t, p.q_stride) + h * head_dim;
            std::copy_n(q, p.nope_dim, query.begin());
            rotate(p.rope, position, p.rope_dim, p.half_split, q + p.nope_dim, &query[p.nope_dim]);
            scores.clear();
            for (uint32_t j = 0; j < block.n_rows && block.first + j <= position; ++j) {
                const float* nope = row(p.kv, j, p.kv_stride) + h * p.k_stride;
                const float* k_pe = row(p.latent, j, p.row_floats) + pad4(p.latent_dim);
                double score = 0;
                for (uint32_t d = 0; d < p.nope_dim; ++d) score += double(query[d]) * nope[d];
                for (uint32_t d = 0; d < p.rope_dim; ++d) score += double(query[p.nope_dim + d]) * k_pe[d];
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

constexpr uint32_t TILE_PAGES = 4; // keys of an attention tile, in pages; see shaders/softmax.glsl

// Queries that share a tile of keys: as many as leave room in shared memory and registers, at most eight.
uint32_t queries_for(const gpu::Caps& caps, uint32_t floats_per_query, uint32_t wanted) {
    const uint32_t bytes = 4 * (floats_per_query + TILE_PAGES * PAGE_TOKENS + 2 * WORKGROUP / 4);
    const uint32_t queries =
        std::min({caps.registers / 64, 8u, wanted, (std::min(caps.shared_bytes, 32768u) - 512) / bytes});
    check(queries > 0, "one query fits shared memory");
    return std::bit_floor(queries);
}

// Ranges that the cache is cut into: as the device says, and on a GPU so many that heads and ranges together
// fill it. By shapes alone, so that a token's bits do not depend on its company.
uint32_t parts_for(const gpu::Caps& caps, const AttentionShape& shape) {
    constexpr uint32_t WORKGROUPS = 256, MOST = 64; // joining them costs as much as it reads
    if (caps.cpu) return caps.attention_parts;
    const uint32_t groups = div_up(shape.n_heads, queries_for(caps, 0, std::bit_ceil(shape.n_heads)));
    return std::max(caps.attention_parts, std::min(std::bit_ceil(div_up(WORKGROUPS, groups)), MOST));
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

void latent_read(Plan& plan, const std::string& label, const StepMemory& step, View block, View cache,
                 View y) {
    const LatentRead p{block.address,  step.state.address, step.pages.address, cache.address,
                       y.address,      step.max_pages,     step.page_bytes,    step.row_floats,
                       step.row_bytes, step.cache_format};
    plan.add<latent_read_reference>("latent_read", label, p, {1, plan.rows(), 1},
                                    {step.cache_format, step.row_floats}, {step.state, step.pages, cache},
                                    {y});
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
                             {div_up(shape.latent_dim, 8 * WORKGROUP), shape.n_heads, blocks}, {tokens},
                             reads, {y});
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

uint64_t partial_row_bytes(const gpu::Caps& caps, const AttentionShape& shape) {
    return 4ull * shape.n_heads * parts_for(caps, shape) * (pad4(shape.latent_dim) + 4);
}

namespace {

// The rows of a step whose partial results are in memory at once, and where those are.
struct Block {
    uint32_t first, last;
    View written;
};

void add_latent_attention(Plan& plan, const std::string& label, const StepMemory& step,
                          const AttentionShape& shape, View q, View cache, const Block& block) {
    const uint32_t parts = parts_for(plan.caps(), shape);
    const uint32_t queries = queries_for(plan.caps(), 0, std::bit_ceil(shape.n_heads));
    const uint32_t channels = div_up(pad4(shape.latent_dim) / 4, WORKGROUP);
    const LatentAttention p{
        step.state.address, q.address,        step.pages.address, cache.address,   block.written.address,
        shape.n_heads,      shape.latent_dim, shape.rope_dim,     step.row_floats, step.row_bytes,
        step.cache_format,  step.max_pages,   step.page_bytes,    parts,           block.first,
        block.last,         shape.scale};
    plan.add<latent_attention_reference>("latent_attention", label, p,
                                         {parts, div_up(shape.n_heads, queries), block.last - block.first},
                                         {queries, step.row_floats, channels, TILE_PAGES, step.cache_format},
                                         {step.state, q, step.pages, cache}, {block.written});
}

} // namespace

void latent_attention(Plan& plan, const std::string& label, const StepMemory& step,
                      const AttentionShape& shape, const KvB& kv_b, View q, View cache, View partial,
                      Rows y) {
    const Matrix& w = kv_b.split() ? kv_b.v : kv_b.whole;
    const gpu::Caps& caps = plan.caps();
    const uint64_t row_bytes = partial_row_bytes(caps, shape);
    const auto rows = static_cast<uint32_t>(std::min<uint64_t>(plan.rows(), partial.bytes / row_bytes));
    check(rows > 0, "partial results of one row fit their buffer");
    const uint32_t tokens = std::min(4u, std::bit_floor(rows));
    // Few tokens: their heads alone would leave a GPU idle, so that some groups share the values of one.
    const uint32_t slices = caps.cpu || rows >= 16 ? 1 : std::max(1u, 4 / tokens);
    for (uint32_t first = 0; first < plan.rows(); first += rows) {
        const uint32_t last = std::min(first + rows, plan.rows());
        const Block block{first, last, {partial.address, row_bytes * (last - first)}};
        add_latent_attention(plan, label, step, shape, q, cache, block);
        const AttentionCombine c{step.state.address,
                                 partial.address,
                                 w.view.address,
                                 y.address,
                                 shape.n_heads,
                                 kv_b.split() ? 0 : shape.nope_dim,
                                 shape.value_dim,
                                 shape.latent_dim,
                                 parts_for(caps, shape),
                                 w.row_bytes,
                                 y.stride,
                                 first,
                                 last};
        const Rows block_y{y.address + 4ull * first * y.stride, y.cols, y.stride};
        FATHOM_ADD_BY_FORMAT(plan, attention_combine, w.format, label + ".combine", c,
                             {shape.n_heads, slices, div_up(last - first, tokens)},
                             {caps.k_lanes, div_up(shape.latent_dim, 8), tokens},
                             {step.state, block.written, w.view}, {block_y.span(last - first)});
    }
}

uint32_t history_blocks(uint32_t bucket, uint32_t before) {
    const uint32_t blocks = div_up(before, bucket);
    return static_cast<uint32_t>(round_up(blocks, std::max(std::bit_floor(blocks) / 2, 1u)));
}

void expanded_attention(Plan& plan, const std::string& label, const StepMemory& step,
                        const AttentionShape& shape, Rows q, const Expanded& block, View running, Rows y) {
    const uint32_t both = shape.nope_dim + shape.value_dim;
    const uint32_t head_floats = pad4(shape.nope_dim) + pad4(shape.rope_dim);
    const uint32_t queries = queries_for(plan.caps(), head_floats, plan.rows());
    const ExpandedAttention p{step.state.address,
                              block.header.address,
                              q.address,
                              block.kv.address,
                              step.rope.address,
                              block.latent.address,
                              running.address,
                              y.address,
                              shape.n_heads,
                              shape.nope_dim,
                              shape.rope_dim,
                              shape.value_dim,
                              shape.latent_dim,
                              q.stride,
                              block.kv.stride,
                              y.stride,
                              step.row_floats,
                              step.half_split,
                              block.split ? shape.nope_dim : both,
                              block.split ? shape.n_heads * shape.nope_dim : shape.nope_dim,
                              block.split ? shape.value_dim : both,
                              block.place,
                              shape.scale};
    std::vector<View> reads{step.state, q.span(plan.rows()), block.kv.span(plan.rows()), step.rope,
                            block.latent},
        writes{y.span(plan.rows())};
    if (!(block.place & EXPANDED_FIRST)) reads.insert(reads.end(), {running, y.span(plan.rows())});
    if (!(block.place & EXPANDED_LAST)) writes.push_back(running);
    plan.add<expanded_attention_reference>("expanded_attention", label, p,
                                           {div_up(plan.rows(), queries), shape.n_heads, 1},
                                           {queries, head_floats / 4, div_up(shape.value_dim, WORKGROUP),
                                            TILE_PAGES, shape.nope_dim % 4 == 0 && p.k_stride % 4 == 0},
                                           reads, writes);
}

} // namespace fathom
