// Kernels absorb_split and expand_keys: kv_b as two matrices, keys transposed. The one matrix with the same
// weights is the other side of each comparison, so that kernels and references are tested against what they
// replace.
#include "gpu/attention.h"

using namespace fathom;
using namespace fathom::test;

namespace {

// The same random numbers in both forms.
struct BothForms {
    Weights whole, k, v;
    KvB form(Side side, bool split) const {
        return split ? KvB{{}, k.matrix(side), v.matrix(side)} : KvB{whole.matrix(side), {}, {}};
    }
};
BothForms both_forms(const Attention& a, Format format, const std::string& name) {
    const auto& [heads, nope, rope, value, latent, scale] = a.shape;
    const auto whole = random_floats(name, uint64_t{a.kv_b_rows()} * latent, std::sqrt(3.0f / latent));
    std::vector<float> keys, values;
    for (uint32_t h = 0; h < heads; ++h) {
        const float* head = whole.data() + uint64_t{h} * (nope + value) * latent;
        for (uint32_t c = 0; c < latent; ++c)
            for (uint32_t d = 0; d < nope; ++d) keys.push_back(head[d * latent + c]);
        values.insert(values.end(), head + nope * latent, head + (nope + value) * latent);
    }
    return {weights_of(format, a.kv_b_rows(), latent, whole), weights_of(format, heads * latent, nope, keys),
            weights_of(format, heads * value, latent, values)};
}

constexpr uint32_t SOME_ROWS[] = {1, 3, 9};

void check_absorb(const Attention& a, Format format, uint32_t n_rows, Side split, Worst& worst) {
    const Scratch scratch;
    const auto what = fmt::format("absorb {} {} of {} rows", name_of(format), a.name(), n_rows);
    const Step step = attention_step(a, scattered_rows(n_rows));
    const uint32_t bucket = bucket_of(n_rows), row_floats = a.row_floats();
    const BothForms kv_b = both_forms(a, format, what);
    const Tensor q = random_tensor(what + " q", bucket, a.shape.n_heads * a.head_dim());
    const Tensor y = output(bucket * a.shape.n_heads, row_floats, row_floats);
    run(bucket, [&](Plan& plan, Side side) {
        absorb(plan, "absorb", step.memory(side), a.shape, kv_b.form(side, side == split), q.rows(side),
               y.view[side]);
    });
    compare(y, n_rows * a.shape.n_heads, 1e-12, worst, what); // f32 sums of up to 128 terms
}

// kv of the split form: all keys, then all values; of the other: head by head.
void check_expand(const Attention& a, Format format, uint32_t n_rows, Side split, Worst& worst) {
    const Scratch scratch;
    const auto what = fmt::format("expand_kv {} {} of {} rows", name_of(format), a.name(), n_rows);
    const Step step = attention_step(a, scattered_rows(n_rows));
    const uint32_t bucket = bucket_of(n_rows), nope = a.shape.nope_dim, value = a.shape.value_dim;
    const BothForms kv_b = both_forms(a, format, what);
    const Tensor latent = random_tensor(what + " latent", bucket, a.shape.latent_dim);
    const Tensor kv = output(bucket, a.kv_b_rows());
    run(bucket, [&](Plan& plan, Side side) {
        expand_kv(plan, "kv_b", step.memory(side), a.shape, kv_b.form(side, side == split), latent.rows(side),
                  kv.rows(side));
    });
    std::vector<float> got, expected;
    const auto forms = std::pair(read<float>(split, kv), read<float>(split == GPU ? CPU : GPU, kv));
    for (uint32_t t = 0; t < bucket; ++t)
        for (uint32_t i = 0; i < a.kv_b_rows(); ++i) {
            const uint32_t h = i / (nope + value), at = i % (nope + value);
            const uint32_t j = at < nope ? h * nope + at : a.shape.n_heads * nope + h * value + at - nope;
            got.push_back(forms.first[uint64_t{t} * kv.stride + j]);
            expected.push_back(forms.second[uint64_t{t} * kv.stride + i]);
        }
    const auto used = static_cast<std::ptrdiff_t>(n_rows) * a.kv_b_rows();
    const double nmse = distance(std::span(got).first(used), std::span(expected).first(used));
    worst.add(nmse);
    if (nmse > 1e-12) FAIL_CHECK(fmt::format("{}: NMSE {:.3e}", what, nmse)); // f32 sums of up to 512 terms
    for (size_t i = used; i < got.size(); ++i) CHECK(std::bit_cast<uint32_t>(got[i]) == SENTINEL);
}

} // namespace

TEST_CASE("ops: absorb_split") {
    Worst worst("absorb_split");
    for (const Attention& a : SHAPES)
        for (const uint32_t n_rows : SOME_ROWS)
            for (const Side split : SIDES) check_absorb(a, Format::f32, n_rows, split, worst);
    check_absorb(SHAPES[0], Format::bf16, 65, GPU, worst);
    check_absorb(SHAPES[3], Format::f16, 2, GPU, worst);
}

TEST_CASE("ops: expand_keys") {
    Worst worst("expand_keys");
    for (const Attention& a : SHAPES)
        for (const uint32_t n_rows : SOME_ROWS)
            for (const Side split : SIDES) check_expand(a, Format::f32, n_rows, split, worst);
    check_expand(SHAPES[0], Format::bf16, 65, GPU, worst);
}

TEST_CASE("ops: split kv_b in formats of blocks" * doctest::test_suite("formats")) {
    Worst worst("split kv_b");
    const Attention a{{2, 256, 8, 256, 256, 0.1f}, 0};
    for (const Format format : {Format::q8_0, Format::q4_k, Format::iq4_nl}) {
        const Scratch scratch;
        const std::string what = "split " + std::string(name_of(format));
        const Step step = attention_step(a, scattered_rows(3));
        const Weights k = random_weights(what + " k", format, 2 * 256, 256),
                      v = random_weights(what + " v", format, 2 * 256, 256);
        const Tensor q = random_tensor(what + " q", 4, 2 * a.head_dim()),
                     latent = random_tensor(what, 4, 256), kv = output(4, a.kv_b_rows());
        const Tensor y = output(4 * 2, a.row_floats(), a.row_floats());
        run(4, [&](Plan& plan, Side side) {
            const KvB both{{}, k.matrix(side), v.matrix(side)};
            absorb(plan, "absorb", step.memory(side), a.shape, both, q.rows(side), y.view[side]);
            expand_kv(plan, "kv_b", step.memory(side), a.shape, both, latent.rows(side), kv.rows(side));
        });
        compare(y, 3 * 2, 1e-12, worst, what + " absorbed");
        compare(kv, 3, 1e-12, worst, what + " expanded");
    }
}
