// Kernels kv_write, cached_attention with attention_join, and expanded_attention of plain attention against
// their references, over scattered pages of several sequences.
#include "gpu/attention.h"

using namespace fathom;
using namespace fathom::test;

namespace {

// Heads rotate as a whole; heads and dims of the model, of none, and beyond one workgroup's width.
const Attention PLAIN[] = {
    {{3, 0, 6, 5, 0, 0.4f}, 1},     {{1, 0, 2, 1, 0, 0.7f}, 0},           {{5, 0, 14, 14, 0, 0.27f}, 1},
    {{2, 0, 70, 300, 0, 0.12f}, 0}, {{4, 0, 128, 128, 0, 0.0883883f}, 1},
};
uint32_t keys_of(const Attention& a) { return a.shape.n_heads * a.shape.rope_dim; }
uint32_t values_of(const Attention& a) { return a.shape.n_heads * a.shape.value_dim; }

double rounding_of(CacheFormat format) { // NMSE of what is rounded one step apart, now and then
    return format == CacheFormat::f32 ? 1e-13 : format == CacheFormat::f16 ? 1e-8 : 1e-5;
}

void check_kv_write(const Attention& a, uint32_t n_rows, CacheFormat format, Worst& worst) {
    const Scratch scratch;
    const auto what = fmt::format("kv_write {} of {} rows, cache {}", a.name(), n_rows, name_of(format));
    std::vector<StepRow> rows; // no two write one cache row
    for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({t, 62 + t / SEQUENCES, t % SEQUENCES});
    const Step step = attention_step(a, rows, format);
    const uint32_t bucket = bucket_of(n_rows), row_bytes = step.shape.row_bytes;
    const Tensor q = random_tensor(what + " q", bucket, keys_of(a)),
                 k = random_tensor(what + " k", bucket, keys_of(a)),
                 v = random_tensor(what + " v", bucket, values_of(a));
    const Buffer cache = blank(uint64_t{N_PAGES} * PAGE_TOKENS * row_bytes / 4);
    const uint32_t key_floats = a.shape.key_floats();
    const Tensor y = output(bucket * a.shape.n_heads, key_floats, key_floats);
    run(bucket, [&](Plan& plan, Side side) {
        kv_write(plan, "kv_write", step.memory(side), a.shape, q.rows(side), k.rows(side), v.rows(side),
                 cache.view[side], y.view[side]);
    });
    compare(y, n_rows * a.shape.n_heads, 1e-13, worst, what + " queries"); // a rotation in f32
    const auto got = read<std::byte>(GPU, cache), expected = read<std::byte>(CPU, cache);
    std::vector<bool> written(got.size());
    std::vector<float> numbers[2];
    for (const StepRow& row : rows) {
        const uint64_t at = uint64_t{cache_row_of(row, row.position)} * row_bytes;
        std::fill_n(written.begin() + static_cast<ptrdiff_t>(at), row_bytes, true);
        for (const Side side : SIDES) {
            const auto& bytes = side == GPU ? got : expected;
            const auto values = reference::read_cache_row(
                static_cast<uint32_t>(format), reinterpret_cast<ADDRESS>(bytes.data() + at), a.row_floats());
            numbers[side].insert(numbers[side].end(), values.begin(), values.end());
        }
    }
    const double nmse = distance(numbers[GPU], numbers[CPU]);
    worst.add(nmse);
    if (!(nmse < rounding_of(format))) FAIL_CHECK(fmt::format("{}: NMSE {:.3e}", what, nmse));
    size_t strays = 0;
    for (size_t i = 0; i < got.size(); ++i) strays += !written[i] && got[i] != expected[i];
    if (strays) FAIL_CHECK(fmt::format("{}: {} bytes of other cache rows written", what, strays));
}

struct PlainCase {
    CacheFormat cache = CacheFormat::f32;
    uint32_t parts = 0;      // 0: as the device has it
    uint32_t block_rows = 0; // rows whose partial results fit, 0: all
};

void check_plain_attention(const Attention& a, const PlainCase& c, uint32_t n_rows, Worst& worst) {
    const Scratch scratch;
    const auto what = fmt::format("plain_attention {} of {} rows, {} parts, cache {}", a.name(), n_rows,
                                  c.parts, name_of(c.cache));
    const auto rows = scattered_rows(n_rows);
    const Step step = attention_step(a, rows, c.cache);
    const uint32_t bucket = bucket_of(n_rows);
    const Tensor q = random_cached_queries(a, bucket);
    const Buffer cache = packed_cache(random_cache(a, rows), c.cache);
    const Tensor y = output(bucket, values_of(a));
    for (const Side side : SIDES) {
        gpu::Caps caps = executor(side).caps();
        if (c.parts) caps.attention_parts = c.parts;
        const uint64_t row_bytes = partial_row_bytes(caps, a.shape);
        const View partial = Scratch::take(side, row_bytes * (c.block_rows ? c.block_rows : bucket));
        run(
            side, bucket,
            [&](Plan& plan, Side) {
                plain_attention(plan, "plain_attention", step.memory(side), a.shape, q.view[side],
                                cache.view[side], partial, y.rows(side));
            },
            caps);
    }
    // Scores of size 1 through f32 exp: lavapipe's and SwiftShader's exp are good to about 1e-6.
    compare(y, n_rows, 1e-11, worst, what);
}

// A chunk that attends to unpaged rows of the cache, as a prefill does: `first` positions and its own.
void check_expanded(const Attention& a, uint32_t n_rows, uint32_t first, Worst& worst) {
    const Scratch scratch;
    const auto what = fmt::format("expanded plain attention {} of {} rows from {}", a.name(), n_rows, first);
    std::vector<StepRow> rows;
    for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({t, first + t, 1});
    const Step step = attention_step(a, rows, CacheFormat::f16, {{first, 0, 0, 0}});
    const uint32_t bucket = bucket_of(std::max(n_rows, first));
    const Tensor q = random_cached_queries(a, bucket);
    const Buffer cache = packed_cache(random_cache(a, rows), CacheFormat::f16);
    const Tensor unpaged = output(bucket, a.row_floats(), a.row_floats());
    const Tensor y = output(bucket, values_of(a)), running = output(bucket * a.shape.n_heads, 2, 2);
    AttentionShape shape = a.shape;
    shape.nope_dim = a.shape.key_floats();
    shape.rope_dim = 0;
    run(bucket, [&](Plan& plan, Side side) {
        for (const bool own : {false, true}) {
            if (!own && first == 0) continue;
            const View block = own ? step.header(side) : step.block(side, 0);
            cache_read(plan, "read", step.memory(side), block, cache.view[side], unpaged.view[side]);
            expanded_attention(plan, "expanded", step.memory(side), shape, q.view[side],
                               {block, unpaged.view[side], unpaged.rows(side), a.shape.ranges(),
                                (own && first ? 0u : EXPANDED_FIRST) | (own ? EXPANDED_LAST : 0u)},
                               running.view[side], y.rows(side));
        }
    });
    compare(y, n_rows, 1e-11, worst, what);
}

} // namespace

TEST_CASE("ops: kv_write") {
    Worst worst("kv_write");
    for (const Attention& a : PLAIN)
        for (const uint32_t n_rows : {1u, 7u, 65u}) check_kv_write(a, n_rows, CacheFormat::f32, worst);
    for (const CacheFormat format : {CacheFormat::f16, CacheFormat::q8})
        for (const Attention& a : PLAIN) check_kv_write(a, 7, format, worst);
}

TEST_CASE("ops: plain_attention") {
    Worst worst("plain_attention");
    for (const Attention& a : PLAIN)
        for (const uint32_t n_rows : {1u, 3u, 17u}) check_plain_attention(a, {}, n_rows, worst);
    check_plain_attention(PLAIN[0], {}, 256, worst);
    for (const CacheFormat format : {CacheFormat::f16, CacheFormat::q8})
        for (const Attention& a : PLAIN) check_plain_attention(a, {format}, 7, worst);
}

TEST_CASE("ops: plain_attention in parts and in blocks of rows") {
    Worst worst("plain_attention");
    for (const uint32_t parts : {1u, 3u, 16u})
        check_plain_attention(PLAIN[2], {CacheFormat::f32, parts}, 16, worst);
    for (const uint32_t block_rows : {1u, 3u})
        check_plain_attention(PLAIN[3], {CacheFormat::f16, 0, block_rows}, 13, worst);
}

TEST_CASE("ops: expanded_attention of plain attention") {
    Worst worst("expanded_attention");
    for (const Attention& a : PLAIN)
        for (const uint32_t first : {0u, 20u}) check_expanded(a, 31, first, worst);
    check_expanded(PLAIN[4], 65, 130, worst);
}
