// The cache: its rows in every format, read back, and attention over it in parts. Shapes and formulas: the
// shaders of these names.
#include "model/ops/cached.h"
#include "model/ops/product.h"
#include "model/ops/reference.h"

#include "base/error.h"
#include "base/numbers.h"

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

void cache_read_reference(const CacheRead& p) {
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

// The partial result of head h over positions [first, last), whose rows are `cached`.
void sum_part(const CachedAttention& p, const std::vector<std::vector<float>>& cached, uint32_t h,
              uint32_t first, uint32_t last, const float* q, float* y) {
    const uint32_t key = h * p.key_step, value = p.value_first + h * p.value_step, value4 = pad4(p.value_dim);
    std::vector<double> scores;
    for (uint32_t j = first; j < last; ++j) {
        double score = 0;
        for (uint32_t c = 0; c < p.key_floats; ++c) score += double(q[c]) * cached[j][key + c];
        scores.push_back(score * p.scale);
    }
    const Softmax softmax(scores);
    for (uint32_t c = 0; c < value4; ++c) {
        double sum = 0;
        for (uint32_t j = first; j < last; ++j) sum += scores[j - first] * cached[j][value + c];
        y[c] = static_cast<float>(sum);
    }
    y[value4] = static_cast<float>(softmax.largest);
    y[value4 + 1] = static_cast<float>(softmax.sum);
    y[value4 + 2] = y[value4 + 3] = 0;
}

void cached_attention_reference(const CachedAttention& p) {
    for (uint32_t t = p.first_row; t < std::min(p.last_row, n_rows(p.state)); ++t) {
        const StepRow& r = step_row(p.state, t);
        const uint32_t length = r.position + 1;
        const uint32_t pages = div_up(length, PAGE_TOKENS), per_part = div_up(pages, p.n_parts);
        std::vector<std::vector<float>> cached;
        for (uint32_t j = 0; j < length; ++j)
            cached.push_back(read_cache_row(
                p.cache_format, cache_row(p.cache, p.pages, r, j, p.max_pages, p.page_bytes, p.row_bytes),
                p.row_floats));
        for (uint32_t h = 0; h < p.n_heads; ++h)
            for (uint32_t part = 0; part * per_part < pages; ++part) {
                const uint32_t first = std::min(part * per_part * PAGE_TOKENS, length);
                const uint32_t last = std::min(first + per_part * PAGE_TOKENS, length);
                const uint64_t nth = uint64_t{t - p.first_row} * p.n_heads + h;
                sum_part(p, cached, h, first, last, row(p.q, uint64_t{t} * p.n_heads + h, p.key_floats),
                         row(p.partial, nth * p.n_parts + part, pad4(p.value_dim) + 4));
            }
    }
}

// Heads that share a read of the cache: one where each has a range of its own, else as many as leave room in
// shared memory and registers, at most eight.
uint32_t group_of(const gpu::Caps& caps, const AttentionShape& shape) {
    if (shape.is_plain()) return 1;
    const uint32_t bytes = 4 * (ATTENTION_TILE_PAGES * PAGE_TOKENS + 2 * WORKGROUP / 4);
    const uint32_t room = (std::min(caps.shared_bytes, 32768u) - 512) / bytes;
    return std::bit_floor(
        std::max(1u, std::min({caps.registers / 64, 8u, std::bit_ceil(shape.n_heads), room})));
}

// Of a short text a GPU has but few subgroups at work, none of which may wait for each load alone.
uint32_t loads_at_once(const gpu::Caps& caps) {
    return caps.cpu || caps.registers < 256 ? 4 : std::clamp(512 / caps.subgroup_size, 4u, 16u);
}

// Ranges that the cache is cut into: as the device says, and on a GPU so many that heads and ranges together
// fill it. By shapes alone, so that a token's bits do not depend on its company.
uint32_t parts_for(const gpu::Caps& caps, const AttentionShape& shape) {
    constexpr uint32_t WORKGROUPS = 256;
    check(caps.attention_parts <= MAX_PARTS, "the parts of a head can be joined");
    if (caps.cpu) return caps.attention_parts;
    const uint32_t groups = div_up(shape.n_heads, group_of(caps, shape));
    return std::max(caps.attention_parts,
                    std::min(std::bit_ceil(div_up(WORKGROUPS, groups)), uint32_t{MAX_PARTS}));
}

// Times that an invocation which has a head goes round its loops, with `keys` to attend to; the numbers are
// shaders/attention_lanes.glsl's.
uint64_t iterations_by_heads(uint32_t key_floats, uint32_t values, uint64_t keys, uint32_t sums) {
    constexpr uint32_t TILE = 64, WEIGHTS = TILE / 4;
    const uint32_t scores = TILE / sums * (1 + key_floats / 4);
    return (keys / TILE + 1) * (1 + scores + WEIGHTS + div_up(pad4(values), sums) * (1 + WEIGHTS));
}

// The same of one that takes part in tiles: shaders/attention_block.glsl, whose products are block.glsl's.
uint64_t iterations_by_tiles(uint32_t key_floats, uint32_t values, uint64_t keys) {
    constexpr uint32_t TILE = 128, SPAN = 1 + 4 * (1 + 8), LOADS = 4;
    const uint32_t scores = div_up(key_floats, 32) * SPAN;
    return (keys / TILE + 1) * (1 + scores + div_up(pad4(values), TILE) * (1 + 4 * (LOADS + SPAN)));
}

uint32_t cached_values(const AttentionShape& shape) { // numbers of a head's value, as the cache has it
    return shape.is_plain() ? shape.value_dim : shape.latent_dim;
}

} // namespace

uint32_t attention_sums(const gpu::Caps& caps) {
    return caps.registers >= 512 && caps.iterations > 0 ? 32 : 8;
}

HeadRanges AttentionShape::ranges() const {
    if (!is_plain()) return {};
    return {pad4(rope_dim), n_heads * pad4(rope_dim), pad4(value_dim)};
}

uint32_t AttentionShape::row_floats() const {
    const HeadRanges heads = ranges();
    return is_plain() ? heads.value_first + n_heads * heads.value_step : pad4(latent_dim) + pad4(rope_dim);
}

uint32_t AttentionShape::query_floats() const { return pad4(nope_dim) + pad4(rope_dim); }

uint64_t partial_row_bytes(const gpu::Caps& caps, const AttentionShape& shape) {
    return 4ull * shape.n_heads * parts_for(caps, shape) * (pad4(cached_values(shape)) + 4);
}

void cached_attention(Plan& plan, const std::string& label, const StepMemory& step,
                      const AttentionShape& shape, View q, View cache, View partial,
                      const std::function<void(const JoinedRows&)>& join) {
    const HeadRanges heads = shape.ranges();
    const uint32_t parts = parts_for(plan.caps(), shape), queries = group_of(plan.caps(), shape);
    const uint32_t values = cached_values(shape), key_floats = shape.key_floats();
    const uint64_t row_bytes = partial_row_bytes(plan.caps(), shape);
    const auto most = static_cast<uint32_t>(std::min<uint64_t>(plan.rows(), partial.bytes / row_bytes));
    check(most > 0, "partial results of one row fit their buffer");
    static const auto modules = modules_of("cached_attention");
    const uint64_t keys = uint64_t{div_up(step.max_pages, parts)} * PAGE_TOKENS;
    const uint32_t sums = attention_sums(plan.caps());
    const bool by_heads = plan.caps().cpu && !shape.is_plain() && step.cache_format == CACHE_F32 &&
                          iterations_by_heads(key_floats, values, keys, sums) <= plan.caps().iterations;
    ProductLaunch launch{Tier::base,
                         {queries, step.row_floats, div_up(pad4(values) / 4, WORKGROUP), ATTENTION_TILE_PAGES,
                          step.cache_format, key_floats, loads_at_once(plan.caps()), by_heads, sums},
                         0,
                         by_heads ? WORKGROUP : queries};
    const Product product = cached_product(shape, step.cache_format, plan.prefill());
    // Heads of plain attention share nothing that a tile could.
    const bool by_tiles = !shape.is_plain() && tier_for(plan, product) != Tier::base &&
                          iterations_by_tiles(key_floats, values, keys) <= plan.caps().iterations;
    if (by_tiles) {
        launch = launch_for(plan, product, {.tokens = shape.n_heads});
        launch.constants.resize(5); // those of shaders/block.glsl
        launch.constants.insert(launch.constants.end(), {step.row_floats, step.cache_format});
    }
    for (uint32_t first = 0; first < plan.rows(); first += most) {
        const uint32_t last = std::min(first + most, plan.rows());
        const JoinedRows rows{first, last, most, parts, {partial.address, row_bytes * (last - first)}};
        const CachedAttention p{step.state.address,
                                q.address,
                                step.pages.address,
                                cache.address,
                                partial.address,
                                shape.n_heads,
                                key_floats,
                                heads.key_step,
                                values,
                                heads.value_first,
                                heads.value_step,
                                step.row_floats,
                                step.row_bytes,
                                step.cache_format,
                                step.max_pages,
                                step.page_bytes,
                                parts,
                                first,
                                last,
                                shape.scale};
        if (!shape.is_plain()) plan.note(product);
        plan.add<cached_attention_reference>(modules[static_cast<size_t>(launch.tier)], label, p,
                                             {parts, div_up(shape.n_heads, launch.tokens), last - first},
                                             launch.constants, {step.state, q, step.pages, cache},
                                             {rows.partial});
        join(rows);
    }
}

void cache_read(Plan& plan, const std::string& label, const StepMemory& step, View block, View cache,
                View y) {
    const CacheRead p{block.address,  step.state.address, step.pages.address, cache.address,
                      y.address,      step.max_pages,     step.page_bytes,    step.row_floats,
                      step.row_bytes, step.cache_format};
    plan.add<cache_read_reference>("cache_read", label, p, {1, plan.rows(), 1},
                                   {step.cache_format, step.row_floats}, {step.state, step.pages, cache},
                                   {y});
}

} // namespace fathom
