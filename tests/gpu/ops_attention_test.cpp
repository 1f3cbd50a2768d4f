// Kernels latent_write, cache_read, absorb, latent_attention with attention_combine, and expanded_attention
// against their references, over scattered pages of several sequences.
#include "gpu/attention.h"
#include "model/ops/cached.h"
#include "model/ops/product.h"
#include "model/traffic.h"

using namespace fathom;
using namespace fathom::test;

namespace {

constexpr uint32_t SOME_ROWS[] = {1, 3, 8, 31};

void check_latent_write(const Attention& a, uint32_t n_rows, Worst& worst) {
    const Scratch scratch;
    const auto what = fmt::format("latent_write {} of {} rows", a.name(), n_rows);
    std::vector<StepRow> rows; // no two write one cache row
    for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({t, 62 + t / SEQUENCES, t % SEQUENCES});
    const Step step = attention_step(a, rows);
    const uint32_t bucket = bucket_of(n_rows), columns = a.shape.latent_dim + a.shape.rope_dim;
    const Tensor wide = random_tensor(what, bucket, columns + 13),
                 cache = output(N_PAGES * PAGE_TOKENS, a.row_floats(), a.row_floats());
    const Buffer weight = random_vector(what, a.shape.latent_dim);
    run(bucket, [&](Plan& plan, Side side) {
        latent_write(plan, "latent_write", step.memory(side), a.shape, wide.rows(side).columns(13, columns),
                     weight.view[side], cache.view[side], 1e-6f);
    });
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
    uint32_t block_rows = 0; // rows whose partial results fit, 0: all
    uint32_t lanes = 0;      // 0: as the device has it
    bool split = false;      // values have a matrix of their own
    CacheFormat cache = CacheFormat::f32;
    Tier tier = Tier::base;
    double limit = 1e-11; // scores of size 1 through f32 exp: lavapipe's and SwiftShader's are good to 1e-6
    bool by_keys = false; // also on CPUs, which would have an invocation for each head
};

// Rows of one chunk that begins at `first`.
std::vector<StepRow> chunk_rows(uint32_t n_rows, uint32_t first) {
    std::vector<StepRow> rows;
    for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({t, first + t, 1});
    return rows;
}

void check_latent_attention(const Attention& a, const LatentCase& c, const std::vector<StepRow>& rows,
                            Worst& worst) {
    const Scratch scratch;
    const auto n_rows = static_cast<uint32_t>(rows.size());
    const auto what =
        fmt::format("latent_attention {} {} {} of {} rows from {}, {} parts, cache {}", name_of(c.tier),
                    name_of(c.format), a.name(), n_rows, rows[0].position, c.parts, name_of(c.cache));
    const Step step = attention_step(a, rows, c.cache);
    const uint32_t bucket = bucket_of(n_rows);
    const Weights kv_b = random_weights(what, c.format, a.kv_b_rows(), a.shape.latent_dim);
    const Weights v_b =
        random_weights(what, c.format, a.shape.n_heads * a.shape.value_dim, a.shape.latent_dim);
    const Tensor q = random_cached_queries(a, bucket), cache = random_cache(a, rows);
    const Buffer packed = packed_cache(cache, c.cache);
    const Tensor y = output(bucket, a.shape.n_heads * a.shape.value_dim);
    for (const Side side : SIDES) {
        gpu::Caps caps = executor(side).caps();
        if (c.parts) caps.attention_parts = c.parts;
        if (c.lanes) caps.k_lanes = c.lanes;
        if (c.by_keys) caps.iterations = 0; // as if texts were too long
        const uint64_t row_bytes = partial_row_bytes(caps, a.shape);
        const View partial = Scratch::take(side, row_bytes * (c.block_rows ? c.block_rows : bucket));
        run(
            side, bucket,
            [&](Plan& plan, Side) {
                const KvB both = c.split ? KvB{{}, {}, v_b.matrix(side)} : KvB{kv_b.matrix(side), {}, {}};
                latent_attention(plan, "latent_attention", step.memory(side), a.shape, both, q.view[side],
                                 packed.view[side], partial, y.rows(side));
                if (side == CPU) return;
                CHECK(tier_of(plan.ops().front().module) == c.tier);
                const bool by_heads = caps.cpu && !c.by_keys && c.cache == CacheFormat::f32;
                if (c.tier == Tier::base) CHECK(plan.ops().front().constants.at(7) == by_heads);
            },
            caps, c.tier);
    }
    compare(y, n_rows, c.limit, worst, what);
}

void check_cache_read(const Attention& a, uint32_t n_rows, uint32_t first, CacheFormat format, Worst& worst) {
    const Scratch scratch;
    const auto what =
        fmt::format("cache_read {} of {} rows from {}, cache {}", a.name(), n_rows, first, name_of(format));
    const auto rows = chunk_rows(1, first + n_rows);
    const Step step = attention_step(a, rows, format, {{7, 0, 0, 1}, {n_rows, 0, 0, first}});
    const uint32_t bucket = bucket_of(n_rows);
    const Buffer cache = packed_cache(random_cache(a, rows), format);
    const Tensor y = output(bucket, a.row_floats(), a.row_floats());
    run(bucket, [&](Plan& plan, Side side) {
        cache_read(plan, "cache_read", step.memory(side), step.block(side, 1), cache.view[side],
                   y.view[side]);
    });
    compare(y, n_rows, 1e-14, worst, what); // q8: a product that may be rounded in another way
}

struct ExpandedCase {
    bool split = false; // all keys before all values
    Tier tier = Tier::base;
    double limit = 1e-11; // exp as above
};

// A chunk that attends to `first` positions before it, in blocks of its bucket, and to itself.
void check_expanded(const Attention& a, uint32_t n_rows, uint32_t first, Worst& worst,
                    const ExpandedCase& c = {}) {
    const Scratch scratch;
    const auto what = fmt::format("expanded_attention {} {} of {} rows from {}{}", name_of(c.tier), a.name(),
                                  n_rows, first, c.split ? ", split" : "");
    const uint32_t bucket = bucket_of(n_rows), n_blocks = history_blocks(bucket, first);
    std::vector<StepHeader> headers;
    for (uint32_t i = 0; i < n_blocks; ++i) {
        const uint32_t begin = std::min(i * bucket, first);
        headers.push_back({std::min(bucket, first - begin), 0, 0, begin});
    }
    const Step step = attention_step(a, chunk_rows(n_rows, first), CacheFormat::f32, headers);
    const Tensor q = random_tensor(what + " q", bucket, a.shape.n_heads * a.head_dim());
    std::vector<Tensor> kv, latent;
    for (uint32_t i = 0; i <= n_blocks; ++i) {
        kv.push_back(random_tensor(fmt::format("{} kv {}", what, i), bucket, a.kv_b_rows()));
        latent.push_back(
            random_tensor(fmt::format("{} latent {}", what, i), bucket, a.row_floats(), 1, a.row_floats()));
    }
    const Tensor y = output(bucket, a.shape.n_heads * a.shape.value_dim);
    const Tensor running = output(bucket * a.shape.n_heads, 2, 2);
    const uint32_t query_floats = a.shape.query_floats();
    const Tensor rotated = output(bucket * a.shape.n_heads, query_floats, query_floats);
    run(
        bucket,
        [&](Plan& plan, Side side) {
            rotate_queries(plan, "rotate", step.memory(side), a.shape, q.rows(side), rotated.view[side]);
            for (uint32_t i = 0; i <= n_blocks; ++i) {
                const bool own = i == n_blocks;
                expanded_attention(plan, "expanded", step.memory(side), a.shape, rotated.view[side],
                                   {own ? step.header(side) : step.block(side, i), latent[i].view[side],
                                    kv[i].rows(side), expanded_ranges(a.shape, c.split),
                                    (i == 0 ? EXPANDED_FIRST : 0u) | (own ? EXPANDED_LAST : 0u)},
                                   running.view[side], y.rows(side));
                if (side == GPU) CHECK(tier_of(plan.ops().back().module) == c.tier);
            }
        },
        0, c.tier);
    compare(rotated, n_rows * a.shape.n_heads, 1e-13, worst, what + " queries");
    compare(y, n_rows, c.limit, worst, what);
    compare(running, n_blocks ? n_rows * a.shape.n_heads : 0, c.limit, worst, what + " running");
}

} // namespace

TEST_CASE("ops: latent_write") {
    Worst worst("latent_write");
    for (const Attention& a : SHAPES)
        for (const uint32_t n_rows : {1u, 2u, 7u, 65u, 256u}) check_latent_write(a, n_rows, worst);
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
            const Step plain = attention_step(a, rows);
            const Tensor kv = random_tensor(what, 8, columns), exact = output(N_PAGES * PAGE_TOKENS, n, n);
            const uint32_t row_bytes = step.shape.row_bytes;
            const Buffer weight = random_vector(what, a.shape.latent_dim);
            const Buffer cache = blank(uint64_t{N_PAGES} * PAGE_TOKENS * row_bytes / 4);
            run(8, [&](Plan& plan, Side side) {
                latent_write(plan, "latent_write", step.memory(side), a.shape, kv.rows(side),
                             weight.view[side], cache.view[side], 1e-6f);
                latent_write(plan, "latent_write", plain.memory(side), a.shape, kv.rows(side),
                             weight.view[side], exact.view[side], 1e-6f);
            });
            const auto bytes = read<std::byte>(GPU, cache);
            const auto floats = read<float>(CPU, exact);
            std::vector<float> got, expected;
            std::vector<bool> written(bytes.size());
            for (uint32_t t = 0; t < 7; ++t) {
                const uint64_t nth = cache_row_of(rows[t], rows[t].position), at = nth * row_bytes;
                const auto row = reference::read_cache_row(static_cast<uint32_t>(format),
                                                           reinterpret_cast<ADDRESS>(bytes.data() + at), n);
                got.insert(got.end(), row.begin(), row.end());
                const auto of_row = std::span(floats).subspan(nth * n, n);
                expected.insert(expected.end(), of_row.begin(), of_row.end());
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

TEST_CASE("ops: cache_read") {
    Worst worst("cache_read");
    for (const CacheFormat format : {CacheFormat::f32, CacheFormat::f16, CacheFormat::q8})
        for (const Attention& a : SHAPES)
            for (const uint32_t n_rows : {1u, 7u, 65u})
                for (const uint32_t first : {0u, 61u}) check_cache_read(a, n_rows, first, format, worst);
}

TEST_CASE("ops: latent_attention over a cache of halves or bytes" * doctest::test_suite("formats")) {
    Worst worst("latent_attention");
    for (const CacheFormat format : {CacheFormat::f16, CacheFormat::q8})
        for (const Attention& a : SHAPES)
            for (const uint32_t n_rows : {1u, 7u})
                check_latent_attention(a, {Format::bf16, 0, 0, 0, false, format}, scattered_rows(n_rows),
                                       worst);
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
        check_latent_attention(a, {Format::bf16, 0, 0, 0, true}, scattered_rows(3), worst);
}

TEST_CASE("ops: latent_attention by keys where a CPU would have an invocation for each head") {
    Worst worst("latent_attention");
    for (const Attention& a : SHAPES) check_latent_attention(a, {.by_keys = true}, scattered_rows(7), worst);
}

TEST_CASE("ops: attention over the cache takes a form whose loops come to their end") {
    const AttentionShape v3{128, 128, 64, 128, 512, 0.1f};
    gpu::Caps caps;
    caps.cpu = true, caps.registers = 512, caps.shared_bytes = 32768;
    const auto form = [&](uint32_t iterations, uint32_t positions, Tier tier) -> std::string {
        caps.iterations = iterations;
        Plan plan("", caps, 1, false, Tiers(tier));
        StepMemory step;
        step.max_pages = positions / PAGE_TOKENS, step.row_floats = v3.row_floats();
        cached_attention(plan, "", step, v3, {}, {}, {0, partial_row_bytes(caps, v3)}, [](const auto&) {});
        const Op& op = plan.ops().front();
        if (tier_of(op.module) != Tier::base) return "tiles";
        return op.constants.at(7) ? "heads" : "keys";
    };
    CHECK(form(65535, 65536, Tier::base) == "heads"); // 65 times 578 iterations to a part
    CHECK(form(65535, 163840, Tier::base) == "keys");
    CHECK(form(UINT32_MAX, 163840, Tier::base) == "heads");
    CHECK(form(0, 4096, Tier::base) == "keys");
    CHECK(form(65535, 65536, Tier::tiled) == "tiles"); // 33 times 1323
    CHECK(form(65535, 163840, Tier::tiled) == "keys");
    CHECK(form(UINT32_MAX, 163840, Tier::tiled) == "tiles");
}

TEST_CASE("ops: latent_attention at every edge of pages and parts") {
    Worst worst("latent_attention");
    for (const uint32_t parts : {1u, 2u, 3u, 8u, 16u})
        check_latent_attention(SHAPES[0], {Format::f32, parts}, scattered_rows(16), worst);
    const Attention many{{70, 6, 2, 5, 9, 0.3f}, 0}; // more heads than a workgroup has invocations
    check_latent_attention(many, {Format::f32, 3}, scattered_rows(4), worst);
}

TEST_CASE("ops: latent_attention with values raised by any number of lanes") {
    Worst worst("latent_attention");
    for (const uint32_t lanes : possible_lanes())
        for (const Attention& a : {SHAPES[0], SHAPES[4]})
            check_latent_attention(a, {Format::bf16, 0, 0, lanes}, scattered_rows(3), worst);
}

TEST_CASE("ops: latent_attention in blocks of rows") {
    Worst worst("latent_attention");
    for (const uint32_t block_rows : {1u, 3u, 8u})
        check_latent_attention(SHAPES[1], {Format::f32, 0, block_rows}, scattered_rows(13), worst);
}

TEST_CASE("ops: expanded_attention") {
    Worst worst("expanded_attention");
    for (const Attention& a : SHAPES)
        for (const uint32_t n_rows : {1u, 2u, 7u, 65u}) check_expanded(a, n_rows, 0, worst);
    check_expanded(SHAPES[0], 256, 0, worst);
    check_expanded(SHAPES[1], 300, 0, worst);
    for (const Attention& a : SHAPES) check_expanded(a, 7, 0, worst, {.split = true});
}

TEST_CASE("ops: expanded_attention to blocks of what came before") {
    Worst worst("expanded_attention");
    for (const Attention& a : SHAPES)
        for (const uint32_t first : {1u, 31u, 32u, 61u})
            check_expanded(a, 31, first, worst, {.split = first == 61});
    for (const uint32_t first : {7u, 20u, 33u, 70u})
        check_expanded(SHAPES[0], 3, first, worst); // up to 20 blocks
    check_expanded(SHAPES[1], 65, 300, worst);
    check_expanded(SHAPES[3], 250, 130, worst);
}

TEST_CASE("ops: latent_attention in every tier and format of the cache") {
    const Attention of_many_heads{{33, 16, 8, 16, 96, 0.2f}, 0};
    for (const Tier tier : {Tier::tiled, Tier::matrix}) {
        if (!is_possible(tier, cached_product(SHAPES[5].shape, CACHE_F32, false), executor(GPU).caps())) {
            MESSAGE(executor(GPU).device_name() << " has no cached_attention " << name_of(tier));
            continue;
        }
        Worst worst(fmt::format("latent_attention {}", name_of(tier)));
        LatentCase c{.tier = tier, .limit = tier == Tier::matrix ? 1e-6 : 1e-11}; // factors in f16
        for (const CacheFormat format : {CacheFormat::f32, CacheFormat::f16, CacheFormat::q8}) {
            c.cache = format;
            for (const Attention& a : {SHAPES[0], SHAPES[2], SHAPES[4], SHAPES[5], of_many_heads})
                for (const uint32_t n_rows : {1u, 7u})
                    check_latent_attention(a, c, scattered_rows(n_rows), worst);
        }
        c.cache = CacheFormat::f32;
        for (const uint32_t parts : {1u, 3u}) {
            c.parts = parts;
            check_latent_attention(SHAPES[3], c, scattered_rows(16), worst);
        }
    }
}

TEST_CASE("ops: expanded_attention in every tier") {
    const Attention with_values_of_two_tiles{{2, 96, 32, 200, 64, 0.1f}, 0};
    for (const Tier tier : {Tier::tiled, Tier::matrix}) {
        if (!is_possible(tier, expanded_product(SHAPES[5].shape, true), executor(GPU).caps())) {
            MESSAGE(executor(GPU).device_name() << " has no expanded_attention " << name_of(tier));
            continue;
        }
        Worst worst(fmt::format("expanded_attention {}", name_of(tier)));
        const ExpandedCase c{false, tier, tier == Tier::matrix ? 1e-6 : 1e-11}; // factors in f16
        for (const Attention& a : {SHAPES[1], SHAPES[3], SHAPES[5], with_values_of_two_tiles})
            for (const uint32_t n_rows : {1u, 15u, 65u, 140u})
                for (const uint32_t first : {0u, 61u, 128u}) check_expanded(a, n_rows, first, worst, c);
        check_expanded(SHAPES[5], 7, 61, worst, {true, tier, c.limit});
    }
}
