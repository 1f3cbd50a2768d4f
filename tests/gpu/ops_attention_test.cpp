// Kernels latent_write, absorb, latent_attention with attention_combine, and expanded_attention against their
// references, over scattered pages of several sequences.
#include "gpu/attention.h"

using namespace fathom;
using namespace fathom::test;

namespace {

constexpr uint32_t SOME_ROWS[] = {1, 3, 8, 31};

void check_latent_write(const Attention& a, uint32_t n_rows, bool unpaged, Worst& worst) {
    const Scratch scratch;
    const auto what = fmt::format("latent_write {} of {} rows", a.name(), n_rows);
    std::vector<StepRow> rows; // no two write one cache row
    for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({t, 62 + t / SEQUENCES, t % SEQUENCES, 0});
    const Step step = attention_step(a, rows);
    const uint32_t bucket = bucket_of(n_rows), columns = a.shape.latent_dim + a.shape.rope_dim;
    const Tensor wide = random_tensor(what, bucket, columns + 13),
                 cache = output(N_PAGES * PAGE_TOKENS, a.row_floats(), a.row_floats());
    const Tensor copies = output(bucket, a.row_floats(), a.row_floats());
    const Buffer weight = random_vector(what, a.shape.latent_dim);
    run(bucket, [&](Plan& plan, Side side) {
        View copy = copies.view[side];
        if (!unpaged) copy.bytes = 0;
        latent_write(plan, "latent_write", step.memory(side), a.shape, wide.rows(side).columns(13, columns),
                     weight.view[side], cache.view[side], copy, 1e-6f);
    });
    if (unpaged)
        compare(copies, n_rows, 1e-12, worst, what + " unpaged");
    else
        compare(copies, 0, 0, worst, what + " unpaged");
    const auto got = read<float>(GPU, cache), expected = read<float>(CPU, cache);
    std::vector<float> a_rows, b_rows;
    std::vector<bool> written(cache.n_rows);
    for (const StepRow& row : rows) written[cache_row_of(row, row.position)] = true;
    size_t strays = 0;
    for (uint32_t r = 0; r < cache.n_rows; ++r)
        for (uint32_t c = 0; c < cache.stride; ++c) {
            const size_t i = size_t{r} * cache.stride + c;
            if (written[r])
                a_rows.push_back(got[i]), b_rows.push_back(expected[i]);
            else
                strays += std::bit_cast<uint32_t>(got[i]) != SENTINEL;
        }
    const double nmse = distance(a_rows, b_rows);
    worst.add(nmse);
    if (nmse > 1e-12) FAIL_CHECK(fmt::format("{}: NMSE {:.3e}", what, nmse)); // a norm and a rotation in f32
    if (strays) FAIL_CHECK(fmt::format("{}: {} words of other cache rows written", what, strays));
}

void check_absorb(const Attention& a, Format format, uint32_t n_rows, Worst& worst) {
    const Scratch scratch;
    const auto what = fmt::format("absorb {} {} of {} rows", name_of(format), a.name(), n_rows);
    const Step step = attention_step(a, scattered_rows(n_rows));
    const uint32_t bucket = bucket_of(n_rows), row_floats = a.row_floats();
    const Weights kv_b = random_weights(what, format, a.kv_b_rows(), a.shape.latent_dim);
    const Tensor q = random_tensor(what + " q", bucket, a.shape.n_heads * a.head_dim());
    const Tensor y = output(bucket * a.shape.n_heads, row_floats, row_floats);
    run(bucket, [&](Plan& plan, Side side) {
        absorb(plan, "absorb", step.memory(side), a.shape, {kv_b.matrix(side), {}, {}}, q.rows(side),
               y.view[side]);
    });
    compare(y, n_rows * a.shape.n_heads, 1e-12, worst, what); // f32 sums of up to 128 terms
}

struct LatentCase {
    Format format = Format::f32;
    uint32_t parts = 0;      // 0: as the device has it
    bool history = false;    // joins a chunk
    uint32_t block_rows = 0; // rows whose partial results fit, 0: all
    uint32_t lanes = 0;      // 0: as the device has it
    bool split = false;      // values have a matrix of their own
    CacheFormat cache = CacheFormat::f32;
};

// Rows of one chunk that began at `history`, and the random expanded half of them.
std::vector<StepRow> chunk_rows(uint32_t n_rows, uint32_t history) {
    std::vector<StepRow> rows;
    for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({t, history + t, 1, history});
    return rows;
}
Tensor random_chunk(const Attention& a, uint32_t n_rows) {
    const uint32_t rows = n_rows * a.shape.n_heads, cols = a.shape.value_dim + 2;
    auto values = random_floats("chunk " + a.name(), uint64_t{rows} * cols);
    for (uint32_t r = 0; r < rows; ++r) {
        values[uint64_t{r} * cols + cols - 2] *= 4; // maximum
        values[uint64_t{r} * cols + cols - 1] = 1 + std::abs(values[uint64_t{r} * cols + cols - 1]); // sum
    }
    return tensor(rows, cols, values, cols);
}

void check_latent_attention(const Attention& a, const LatentCase& c, const std::vector<StepRow>& rows,
                            Worst& worst) {
    const Scratch scratch;
    const auto n_rows = static_cast<uint32_t>(rows.size());
    const auto what =
        fmt::format("latent_attention {} {} of {} rows from {}, {} parts, cache {}", name_of(c.format),
                    a.name(), n_rows, rows[0].history, c.parts, name_of(c.cache));
    const Step step = attention_step(a, rows, c.cache);
    const uint32_t bucket = bucket_of(n_rows);
    const Weights kv_b = random_weights(what, c.format, a.kv_b_rows(), a.shape.latent_dim);
    const Weights v_b =
        random_weights(what, c.format, a.shape.n_heads * a.shape.value_dim, a.shape.latent_dim);
    const Tensor q = random_q_latent(a, bucket), cache = random_cache(a, rows, c.history),
                 chunk = random_chunk(a, bucket);
    const Buffer packed = packed_cache(cache, c.cache);
    const Tensor y = output(bucket, a.shape.n_heads * a.shape.value_dim);
    for (const Side side : SIDES) {
        gpu::Caps caps = executor(side).caps();
        if (c.parts) caps.attention_parts = c.parts;
        if (c.lanes) caps.k_lanes = c.lanes;
        const uint64_t row_bytes = partial_row_bytes(caps, a.shape);
        const View partial = Scratch::take(side, row_bytes * (c.block_rows ? c.block_rows : bucket));
        run(
            side, bucket,
            [&](Plan& plan, Side) {
                View joined = chunk.view[side];
                if (!c.history) joined.bytes = 0;
                const KvB both = c.split ? KvB{{}, {}, v_b.matrix(side)} : KvB{kv_b.matrix(side), {}, {}};
                latent_attention(plan, "latent_attention", step.memory(side), a.shape, both, q.view[side],
                                 packed.view[side], partial, c.history, joined, y.rows(side));
            },
            caps);
    }
    // Scores of size 1 through f32 exp: lavapipe's and SwiftShader's exp are good to about 1e-6.
    compare(y, n_rows, 1e-11, worst, what);
}

void check_expanded(const Attention& a, uint32_t n_rows, uint32_t start, bool join, Worst& worst,
                    bool split = false) {
    const Scratch scratch;
    const auto what = fmt::format("expanded_attention {} of {} rows from {}{}", a.name(), n_rows, start,
                                  join ? " join" : "");
    const auto rows = chunk_rows(n_rows, start);
    const Step step = attention_step(a, rows);
    const uint32_t bucket = bucket_of(n_rows);
    const Tensor q = random_tensor(what + " q", bucket, a.shape.n_heads * a.head_dim());
    const Tensor kv = random_tensor(what + " kv", bucket, a.kv_b_rows());
    const Tensor latent = random_tensor(what + " latent", bucket, a.row_floats(), 1, a.row_floats());
    const uint32_t chunk_cols = a.shape.value_dim + 2;
    const Tensor y = output(bucket, a.shape.n_heads * a.shape.value_dim);
    const Tensor chunk = output(bucket * a.shape.n_heads, chunk_cols, chunk_cols);
    run(bucket, [&](Plan& plan, Side side) {
        expanded_attention(plan, "expanded", step.memory(side), a.shape, q.rows(side), kv.rows(side), split,
                           latent.view[side], join, chunk.view[side], y.rows(side));
    });
    // The running maximum is the same number on both sides: unnormalised values compare directly.
    compare(y, join ? 0 : n_rows, 1e-11, worst, what);
    compare(chunk, join ? n_rows * a.shape.n_heads : 0, 1e-11, worst, what);
}

} // namespace

TEST_CASE("ops: latent_write") {
    Worst worst("latent_write");
    for (const Attention& a : SHAPES)
        for (const uint32_t n_rows : {1u, 2u, 7u, 65u, 256u})
            check_latent_write(a, n_rows, n_rows % 2 == 0, worst);
}

TEST_CASE("ops: latent_write into a cache of halves or bytes") {
    for (const CacheFormat format : {CacheFormat::f16, CacheFormat::q8}) {
        Worst worst(fmt::format("latent_write {}", name_of(format)));
        for (const Attention& a : SHAPES) {
            const Scratch scratch;
            const auto rows = scattered_rows(7);
            const auto what = fmt::format("latent_write {} {}", name_of(format), a.name());
            const Step step = attention_step(a, rows, format);
            const uint32_t columns = a.shape.latent_dim + a.shape.rope_dim, n = a.row_floats();
            const Tensor kv = random_tensor(what, 8, columns), exact = output(8, n, n);
            const uint32_t row_bytes = step.shape.row_bytes;
            const Buffer weight = random_vector(what, a.shape.latent_dim);
            const Buffer cache = blank(uint64_t{N_PAGES} * PAGE_TOKENS * row_bytes / 4);
            run(8, [&](Plan& plan, Side side) {
                latent_write(plan, "latent_write", step.memory(side), a.shape, kv.rows(side),
                             weight.view[side], cache.view[side], exact.view[side], 1e-6f);
            });
            const auto bytes = read<std::byte>(GPU, cache);
            const auto floats = read<float>(CPU, exact);
            std::vector<float> got, expected;
            std::vector<bool> written(bytes.size());
            for (uint32_t t = 0; t < 7; ++t) {
                const uint64_t at = uint64_t{cache_row_of(rows[t], rows[t].position)} * row_bytes;
                const auto row = reference::read_cache_row(static_cast<uint32_t>(format),
                                                           reinterpret_cast<ADDRESS>(bytes.data() + at), n);
                got.insert(got.end(), row.begin(), row.end());
                expected.insert(expected.end(), floats.begin() + t * n, floats.begin() + (t + 1) * n);
                std::fill_n(written.begin() + static_cast<ptrdiff_t>(at), row_bytes, true);
            }
            const double nmse = distance(got, expected); // of rounding to 11 bits, or to 127 steps
            worst.add(nmse);
            CHECK(nmse < (format == CacheFormat::f16 ? 1e-7 : 5e-5));
            size_t strays = 0;
            for (size_t i = 0; i < bytes.size(); ++i)
                strays += !written[i] && bytes[i] != std::byte(SENTINEL >> (8 * (i % 4)) & 255);
            CHECK(strays == 0);
        }
    }
}

TEST_CASE("ops: latent_attention over a cache of halves or bytes" * doctest::test_suite("formats")) {
    Worst worst("latent_attention");
    for (const CacheFormat format : {CacheFormat::f16, CacheFormat::q8})
        for (const Attention& a : SHAPES)
            for (const uint32_t n_rows : {1u, 7u})
                check_latent_attention(a, {Format::bf16, 0, false, 0, 0, false, format},
                                       scattered_rows(n_rows), worst);
}

TEST_CASE("ops: absorb") {
    Worst worst("absorb");
    for (const Format format : PLAIN_FORMATS)
        for (const Attention& a : SHAPES)
            for (const uint32_t n_rows : SOME_ROWS) check_absorb(a, format, n_rows, worst);
    check_absorb(SHAPES[0], Format::bf16, 256, worst);
}

TEST_CASE("ops: latent_attention of rows of several sequences") {
    Worst worst("latent_attention");
    for (const Attention& a : SHAPES)
        for (const uint32_t n_rows : SOME_ROWS) check_latent_attention(a, {}, scattered_rows(n_rows), worst);
    for (const Format format : PLAIN_FORMATS)
        check_latent_attention(SHAPES[0], {format}, scattered_rows(7), worst);
    check_latent_attention(SHAPES[1], {}, scattered_rows(256), worst);
    for (const Attention& a : SHAPES)
        check_latent_attention(a, {Format::bf16, 0, false, 0, 0, true}, scattered_rows(3), worst);
}

TEST_CASE("ops: latent_attention at every edge of pages and parts") {
    Worst worst("latent_attention");
    for (const uint32_t parts : {1u, 2u, 3u, 8u, 16u})
        check_latent_attention(SHAPES[0], {Format::f32, parts}, scattered_rows(16), worst);
}

TEST_CASE("ops: latent_attention with values raised by any number of lanes") {
    Worst worst("latent_attention");
    for (const uint32_t lanes : possible_lanes())
        for (const Attention& a : {SHAPES[0], SHAPES[4]})
            check_latent_attention(a, {Format::bf16, 0, false, 0, lanes}, scattered_rows(3), worst);
}

TEST_CASE("ops: latent_attention in blocks of rows") {
    Worst worst("latent_attention");
    for (const uint32_t block_rows : {1u, 3u, 8u})
        check_latent_attention(SHAPES[1], {Format::f32, 0, false, block_rows}, scattered_rows(13), worst);
}

TEST_CASE("ops: latent_attention of a prefill chunk to what came before, joined with the chunk") {
    Worst worst("latent_attention");
    for (const uint32_t history : {0u, 1u, 63u, 64u, 65u, 130u, 320u})
        for (const uint32_t n_rows : {1u, 7u, 31u})
            check_latent_attention(SHAPES[0], {Format::bf16, 0, true}, chunk_rows(n_rows, history), worst);
    for (const Attention& a : SHAPES)
        check_latent_attention(a, {Format::f16, 3, true, 2}, chunk_rows(3, 200), worst);
}

TEST_CASE("ops: expanded_attention") {
    Worst worst("expanded_attention");
    for (const Attention& a : SHAPES)
        for (const uint32_t n_rows : {1u, 2u, 7u, 65u})
            for (const bool join : {false, true}) check_expanded(a, n_rows, join ? 61 : 0, join, worst);
    for (const bool join : {false, true}) check_expanded(SHAPES[0], 256, 70, join, worst);
    for (const bool join : {false, true}) check_expanded(SHAPES[1], 300, join ? 61 : 0, join, worst);
    for (const Attention& a : SHAPES) check_expanded(a, 7, 0, false, worst, true);
}
