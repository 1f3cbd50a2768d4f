// The shapes, caches and steps that the tests of the attention kernels share.
#pragma once

#include "gpu/help.h"
#include "model/cache_format.h"
#include "model/ops/reference.h"

namespace fathom::test {

struct Attention {
    AttentionShape shape;
    uint32_t half_split = 0;
    uint32_t latent4() const { return static_cast<uint32_t>(round_up(shape.latent_dim, 4)); }
    uint32_t row_floats() const { return shape.row_floats(); }
    // Whether a number of a cache row, or of a key in it, is padding.
    bool is_padding(uint32_t c) const {
        const HeadRanges heads = shape.ranges();
        if (!shape.is_plain()) return c < latent4() ? c >= shape.latent_dim : c >= latent4() + shape.rope_dim;
        return c < heads.value_first ? c % heads.key_step >= shape.rope_dim
                                     : (c - heads.value_first) % heads.value_step >= shape.value_dim;
    }
    uint32_t head_dim() const { return shape.nope_dim + shape.rope_dim; }
    uint32_t kv_b_rows() const { return shape.n_heads * (shape.nope_dim + shape.value_dim); }
    std::string name() const {
        return fmt::format("{} heads, {}+{} {} latent {}{}", shape.n_heads, shape.nope_dim, shape.rope_dim,
                           shape.value_dim, shape.latent_dim, half_split ? " half-split" : "");
    }
};

// Heads and dims of models, of none, and beyond one workgroup's width; 9 heads are more than one group's.
inline const Attention SHAPES[] = {
    {{3, 14, 6, 22, 20, 0.25f}, 0}, {{4, 16, 8, 16, 32, 0.2f}, 1}, {{1, 7, 2, 5, 7, 0.3f}, 1},
    {{9, 20, 10, 28, 65, 0.2f}, 0}, {{2, 8, 4, 70, 260, 0.3f}, 0}, {{2, 128, 64, 128, 512, 0.07f}, 0},
};

constexpr uint32_t SEQUENCES = 3, MAX_PAGES = 6, N_PAGES = SEQUENCES * MAX_PAGES;
constexpr uint32_t POSITIONS = MAX_PAGES * PAGE_TOKENS;

// Page tables whose pages are scattered over the cache: page p of sequence s is the (7 (6 s + p) + 5 mod
// 18)th.
inline uint32_t page_of(uint32_t sequence, uint32_t page) {
    return (7 * (MAX_PAGES * sequence + page) + 5) % N_PAGES;
}
inline uint32_t cache_row_of(const StepRow& row, uint32_t position) {
    return page_of(row.sequence, position / PAGE_TOKENS) * PAGE_TOKENS + position % PAGE_TOKENS;
}

inline Step attention_step(const Attention& a, const std::vector<StepRow>& rows,
                           CacheFormat format = CacheFormat::f32,
                           const std::vector<StepHeader>& blocks = {}) {
    Step step = step_of(rows, 0, blocks);
    std::vector<uint32_t> pages;
    for (uint32_t s = 0; s < SEQUENCES; ++s)
        for (uint32_t p = 0; p < MAX_PAGES; ++p) pages.push_back(page_of(s, p));
    std::vector<float> rope;
    for (uint32_t position = 0; position < POSITIONS; ++position)
        for (uint32_t i = 0; i < a.shape.rope_dim / 2; ++i) {
            const double angle = position * std::pow(10000.0, -2.0 * i / a.shape.rope_dim);
            rope.push_back(static_cast<float>(std::cos(angle)));
            rope.push_back(static_cast<float>(std::sin(angle)));
        }
    step.pages = buffer(pages);
    step.rope = buffer(rope);
    step.shape.max_pages = MAX_PAGES;
    step.shape.row_floats = a.row_floats();
    step.shape.row_bytes = cache_row_bytes(format, a.row_floats());
    step.shape.cache_format = static_cast<uint32_t>(format);
    step.shape.page_bytes = PAGE_TOKENS * step.shape.row_bytes;
    step.shape.half_split = a.half_split;
    return step;
}

// Rows of several sequences, at positions around the edges of pages and parts.
inline std::vector<StepRow> scattered_rows(uint32_t n_rows) {
    const uint32_t edges[] = {0, 64, 130, 1, 63, 65, 127, 128, 129, 191, 192, 200, 255, 256, 320, 383};
    std::vector<StepRow> rows;
    for (uint32_t t = 0; t < n_rows; ++t)
        rows.push_back({t, t < 16 ? edges[(t + n_rows) % 16] : (t * 37 + 11) % POSITIONS, t % SEQUENCES});
    return rows;
}

// A cache as latent_write or kv_write leaves it: random rows with zeros in their padding, for the positions
// that `rows` see; poison elsewhere.
inline Tensor random_cache(const Attention& a, const std::vector<StepRow>& rows) {
    const uint32_t row_floats = a.row_floats();
    std::vector<float> values(uint64_t{N_PAGES} * PAGE_TOKENS * row_floats, std::bit_cast<float>(SENTINEL));
    const auto random = random_floats("cache " + a.name(), values.size());
    for (const StepRow& row : rows)
        for (uint32_t j = 0; j <= row.position; ++j)
            for (uint32_t c = 0; c < row_floats; ++c) {
                const uint64_t i = uint64_t{cache_row_of(row, j)} * row_floats + c;
                values[i] = a.is_padding(c) ? 0 : random[i];
            }
    return tensor(N_PAGES * PAGE_TOKENS, row_floats, values, row_floats);
}

// Rows of a cache in another format.
inline Buffer packed_cache(const Tensor& cache, CacheFormat format) {
    const auto values = read<float>(CPU, cache);
    const uint32_t row_bytes = cache_row_bytes(format, cache.cols);
    std::vector<std::byte> bytes(uint64_t{cache.n_rows} * row_bytes);
    for (uint32_t r = 0; r < cache.n_rows; ++r) {
        const std::span row = std::span(values).subspan(uint64_t{r} * cache.stride, cache.cols);
        const auto to = reinterpret_cast<ADDRESS>(bytes.data() + uint64_t{r} * row_bytes);
        if (std::isfinite(row[0])) reference::write_cache_row(static_cast<uint32_t>(format), row, to);
    }
    return buffer(bytes);
}

// Queries as the cache's keys are, which absorb and kv_write make.
inline Tensor random_cached_queries(const Attention& a, uint32_t n_rows) {
    const uint32_t key_floats = a.shape.key_floats(), rows = n_rows * a.shape.n_heads;
    auto values = random_floats("queries " + a.name(), uint64_t{rows} * key_floats);
    for (uint64_t i = 0; i < values.size(); ++i)
        if (a.is_padding(static_cast<uint32_t>(i % key_floats))) values[i] = 0;
    return tensor(rows, key_floats, values, key_floats);
}

} // namespace fathom::test
