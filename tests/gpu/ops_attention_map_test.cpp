// Kernel attention_map against its reference: of latent and of plain attention, pooled and whole, and
// whatever the number of workgroups that share the positions.
#include "gpu/attention.h"

using namespace fathom;
using namespace fathom::test;

namespace {

struct MapCase {
    uint32_t width = 64, first_head = 0, n_heads = 0; // 0: all
    uint32_t parts = 0;                               // 0: as the device has it
    CacheFormat cache = CacheFormat::f32;
};

void check_map(const Attention& a, const MapCase& c, const std::vector<StepRow>& rows, Worst& worst) {
    const Scratch scratch;
    const auto n_rows = static_cast<uint32_t>(rows.size());
    const auto what = fmt::format("attention_map {} of {} rows, width {}, {} parts, cache {}", a.name(),
                                  n_rows, c.width, c.parts, name_of(c.cache));
    const uint32_t bucket = bucket_of(n_rows), heads = c.n_heads ? c.n_heads : a.shape.n_heads - c.first_head;
    const Step step = attention_step(a, rows, c.cache);
    const Tensor q = random_cached_queries(a, bucket);
    const Buffer cache = packed_cache(random_cache(a, rows), c.cache);
    const uint32_t cols = heads * c.width, ring_rows = 2 * bucket;
    const Tensor map = output(ring_rows, cols + 3, cols + 3);
    for (const Side side : SIDES) {
        gpu::Caps caps = executor(side).caps();
        if (c.parts) caps.attention_parts = c.parts;
        run(
            side, bucket,
            [&](Plan& plan, Side) {
                Rows queries = q.rows(side);
                queries.cols = queries.stride = a.shape.n_heads * a.shape.key_floats();
                const View view{map.view[side].address + 12, map.view[side].bytes - 12};
                attention_map(plan, "attention_map", step.memory(side), a.shape, queries, cache.view[side],
                              {view, cols + 3, ring_rows, c.first_head, heads, c.width});
            },
            caps);
    }
    const auto got = read<float>(GPU, map), expected = read<float>(CPU, map);
    double most = 0;
    size_t strays = 0, bins_seen = 0;
    std::vector<bool> written(got.size());
    for (uint32_t t = 0; t < n_rows; ++t) { // the step begins at row 0 of the ring
        const uint32_t length = rows[t].position + 1, pool = attention_pool(length, c.width);
        for (uint32_t h = 0; h < heads; ++h)
            for (uint32_t bin = 0; bin * pool < length; ++bin)
                written[uint64_t{t} * map.stride + 3 + h * c.width + bin] = true;
    }
    for (size_t i = 0; i < got.size(); ++i) {
        if (!written[i]) {
            strays += std::bit_cast<uint32_t>(got[i]) != SENTINEL;
            continue;
        }
        ++bins_seen;
        most = std::max(most, std::abs(double(got[i]) - expected[i]));
        CHECK(std::isfinite(got[i]));
    }
    CHECK(bins_seen > 0);
    worst.add(most);
    if (!(most < 2e-5)) FAIL_CHECK(fmt::format("{}: a logarithm is {:.1e} away", what, most));
    if (strays) FAIL_CHECK(fmt::format("{}: {} words beside its bins written", what, strays));
}

} // namespace

TEST_CASE("ops: attention_map of latent attention") {
    Worst worst("attention_map");
    for (const Attention& a : SHAPES) {
        check_map(a, {512}, scattered_rows(3), worst);                     // a bin for each position
        check_map(a, {32}, scattered_rows(8), worst);                      // several bins of a page
        check_map(a, {3, a.shape.n_heads - 1}, scattered_rows(16), worst); // several pages of a bin
    }
    for (const uint32_t width : {1u, 2u, 6u, 7u, 100u})
        check_map(SHAPES[3], {width, 2, 5}, scattered_rows(16), worst);
    for (const uint32_t parts : {1u, 2u, 5u})
        check_map(SHAPES[0], {64, 0, 0, parts}, scattered_rows(16), worst);
}

TEST_CASE("ops: attention_map over a cache of halves or bytes" * doctest::test_suite("formats")) {
    Worst worst("attention_map");
    for (const CacheFormat format : CACHE_FORMATS)
        check_map(SHAPES[3], {40, 0, 0, 0, format}, scattered_rows(8), worst);
}

TEST_CASE("ops: attention_map of plain attention") {
    Worst worst("attention_map");
    const Attention plain[] = {
        {{3, 0, 6, 5, 0, 0.4f}, 1}, {{5, 0, 14, 14, 0, 0.27f}, 0}, {{2, 0, 70, 130, 0, 0.12f}, 0}};
    for (const Attention& a : plain)
        for (const uint32_t width : {3u, 50u, 512u})
            check_map(a, {width, 1, 0, 0, width == 50 ? CacheFormat::q8 : CacheFormat::f32},
                      scattered_rows(9), worst);
}
