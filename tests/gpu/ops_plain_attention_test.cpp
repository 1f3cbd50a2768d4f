// Kernels kv_write and plain_attention against their references, over scattered pages of several sequences.
#include "gpu/attention.h"

using namespace fathom;
using namespace fathom::test;

namespace {

// Heads rotate as a whole; heads and dims of the model, of none, and beyond one workgroup's width.
const Attention PLAIN[] = {
    {{3, 0, 6, 5, 0, 0.4f}, 1},     {{1, 0, 2, 1, 0, 0.7f}, 0},           {{5, 0, 14, 14, 0, 0.27f}, 1},
    {{2, 0, 70, 130, 0, 0.12f}, 0}, {{4, 0, 128, 128, 0, 0.0883883f}, 1},
};
uint32_t keys_of(const Attention& a) { return a.shape.n_heads * a.shape.rope_dim; }
uint32_t values_of(const Attention& a) { return a.shape.n_heads * a.shape.value_dim; }
uint32_t first_value(const Attention& a) { return static_cast<uint32_t>(round_up(keys_of(a), 4)); }
uint32_t row_floats_of(const Attention& a) {
    return first_value(a) + static_cast<uint32_t>(round_up(values_of(a), 4));
}
Step plain_step(const Attention& a, const std::vector<StepRow>& rows) {
    Step step = attention_step(a, rows);
    step.shape.row_floats = row_floats_of(a);
    step.shape.page_bytes = 4 * PAGE_TOKENS * row_floats_of(a);
    return step;
}

void check_kv_write(const Attention& a, uint32_t n_rows, Worst& worst) {
    const Scratch scratch;
    const auto what = fmt::format("kv_write {} of {} rows", a.name(), n_rows);
    std::vector<StepRow> rows; // no two write one cache row
    for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({t, 62 + t / SEQUENCES, t % SEQUENCES});
    const Step step = plain_step(a, rows);
    const uint32_t bucket = bucket_of(n_rows), row_floats = row_floats_of(a);
    const Tensor k = random_tensor(what + " k", bucket, keys_of(a)),
                 v = random_tensor(what + " v", bucket, values_of(a));
    const Tensor cache = output(N_PAGES * PAGE_TOKENS, row_floats, row_floats);
    run(bucket, [&](Plan& plan, Side side) {
        kv_write(plan, "kv_write", step.memory(side), a.shape, k.rows(side), v.rows(side), cache.view[side]);
    });
    const auto got = read<float>(GPU, cache), expected = read<float>(CPU, cache);
    std::vector<bool> written(cache.n_rows);
    for (const StepRow& row : rows) written[cache_row_of(row, row.position)] = true;
    std::vector<float> a_rows, b_rows;
    size_t strays = 0;
    for (size_t i = 0; i < size_t{cache.n_rows} * row_floats; ++i)
        if (written[i / row_floats])
            a_rows.push_back(got[i]), b_rows.push_back(expected[i]);
        else
            strays += std::bit_cast<uint32_t>(got[i]) != SENTINEL;
    const double nmse = distance(a_rows, b_rows);
    worst.add(nmse);
    if (nmse > 1e-13) FAIL_CHECK(fmt::format("{}: NMSE {:.3e}", what, nmse)); // a rotation in f32
    if (strays) FAIL_CHECK(fmt::format("{}: {} words of other cache rows written", what, strays));
}

void check_plain_attention(const Attention& a, const std::vector<StepRow>& rows, Worst& worst) {
    const Scratch scratch;
    const auto n_rows = static_cast<uint32_t>(rows.size());
    const auto what = fmt::format("plain_attention {} of {} rows", a.name(), n_rows);
    const Step step = plain_step(a, rows);
    const uint32_t bucket = bucket_of(n_rows), row_floats = row_floats_of(a);
    const Tensor q = random_tensor(what + " q", bucket, keys_of(a));
    std::vector<float> values(uint64_t{N_PAGES} * PAGE_TOKENS * row_floats, std::bit_cast<float>(SENTINEL));
    const auto random = random_floats("cache " + a.name(), values.size());
    for (const StepRow& row : rows) // what rows see; poison elsewhere
        for (uint32_t j = 0; j <= row.position; ++j) {
            const uint64_t first = uint64_t{cache_row_of(row, j)} * row_floats;
            std::copy_n(random.begin() + static_cast<std::ptrdiff_t>(first), row_floats,
                        values.begin() + static_cast<std::ptrdiff_t>(first));
        }
    const Tensor cache = tensor(N_PAGES * PAGE_TOKENS, row_floats, values, row_floats);
    const Tensor y = output(bucket, values_of(a));
    run(bucket, [&](Plan& plan, Side side) {
        plain_attention(plan, "plain_attention", step.memory(side), a.shape, q.rows(side), cache.view[side],
                        y.rows(side));
    });
    // Scores of size 1 through f32 exp: lavapipe's and SwiftShader's exp are good to about 1e-6.
    compare(y, n_rows, 1e-11, worst, what);
}

} // namespace

TEST_CASE("ops: kv_write") {
    Worst worst("kv_write");
    for (const Attention& a : PLAIN)
        for (const uint32_t n_rows : {1u, 7u, 65u}) check_kv_write(a, n_rows, worst);
}

TEST_CASE("ops: plain_attention") {
    Worst worst("plain_attention");
    for (const Attention& a : PLAIN)
        for (const uint32_t n_rows : {1u, 3u, 17u}) check_plain_attention(a, scattered_rows(n_rows), worst);
    check_plain_attention(PLAIN[0], scattered_rows(256), worst);
}
