// Kernels embed, rms_norm, matmul and copy_rows against their references.
#include "gpu/help.h"

using namespace fathom;
using namespace fathom::test;

namespace {

constexpr uint32_t DIMS[] = {1, 7, 20, 28, 65, 80, 97, 576};

void check_matmul(Format format, uint32_t n_rows, uint32_t n_out, uint32_t n_in, Worst& worst,
                  uint32_t lanes = 0) {
    const Scratch scratch;
    const auto what = fmt::format("matmul {} ({}, {}) of {} rows", name_of(format), n_out, n_in, n_rows);
    const Step step = step_of(n_rows);
    const uint32_t bucket = bucket_of(n_rows);
    const Weights w = random_weights(what, format, n_out, n_in);
    const Tensor x = random_tensor(what + " x", bucket, n_in), y = output(bucket, n_out);
    const Tensor sum = random_tensor(what + " y", bucket, n_out);
    const auto before = read<float>(CPU, sum);
    run(
        bucket,
        [&](Plan& plan, Side side) {
            matmul(plan, "matmul", step.memory(side), w.matrix(side), x.rows(side), y.rows(side), false);
            matmul(plan, "matmul", step.memory(side), w.matrix(side), x.rows(side), sum.rows(side), true);
        },
        lanes);
    // f32 sums of up to 576 terms against double ones: relative errors of about 1e-7 a term, partly
    // cancelling.
    compare(y, n_rows, 1e-12, worst, what);
    compare(sum, n_rows, 1e-12, worst, what + " added", false);
    const auto after = read<float>(GPU, sum);
    for (size_t i = size_t{n_rows} * sum.stride; i < after.size(); ++i)
        if (std::bit_cast<uint32_t>(after[i]) != std::bit_cast<uint32_t>(before[i]))
            FAIL_CHECK(what << ": a row past the step was written");
}

} // namespace

TEST_CASE("ops: rms_norm") {
    Worst worst("rms_norm");
    for (const uint32_t n_rows : ROWS)
        for (const uint32_t n : DIMS) {
            const Scratch scratch;
            const auto what = fmt::format("rms_norm {} of {} rows", n, n_rows);
            const Step step = step_of(n_rows);
            const uint32_t bucket = bucket_of(n_rows);
            const Tensor x = random_tensor(what, bucket, n, 3), y = output(bucket, n);
            const Buffer weight = random_vector(what + " weight", n);
            run(bucket, [&](Plan& plan, Side side) {
                rms_norm(plan, "rms_norm", step.memory(side), x.rows(side), weight.view[side], y.rows(side),
                         1e-6f);
            });
            compare(y, n_rows, 1e-12, worst, what); // a sum of squares and one inverse square root in f32
        }
}

TEST_CASE("ops: rms_norm of rows that lie within wider rows, and of zeros") {
    Worst worst("rms_norm");
    const Step step = step_of(3);
    const Tensor wide = random_tensor("wide", 4, 100), y = output(4, 20), zeros = output(4, 20);
    const Tensor zero = tensor(4, 20, std::vector<float>(80));
    const Buffer weight = random_vector("weight", 20);
    run(4, [&](Plan& plan, Side side) {
        rms_norm(plan, "columns", step.memory(side), wide.rows(side).columns(37, 20), weight.view[side],
                 y.rows(side), 1e-6f);
        rms_norm(plan, "zeros", step.memory(side), zero.rows(side), weight.view[side], zeros.rows(side),
                 1e-6f);
    });
    compare(y, 3, 1e-12, worst, "columns of a wider row");
    compare(zeros, 3, 0, worst, "zeros");
}

TEST_CASE("ops: embed") {
    Worst worst("embed");
    const uint32_t vocab = 97;
    for (const Format format : PLAIN_FORMATS)
        for (const uint32_t n_rows : ROWS)
            for (const uint32_t dim : {7u, 80u, 576u}) {
                const Scratch scratch;
                const auto what = fmt::format("embed {} {} of {} rows", name_of(format), dim, n_rows);
                std::vector<StepRow> rows; // tokens that come twice, in three sequences
                for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({(t * 31 + 5) % 60, t, t % 3});
                const Step step = step_of(rows);
                const Weights table = random_weights(what, format, vocab, dim);
                const Tensor y = output(bucket_of(n_rows), dim);
                const Buffer counts = buffer(std::vector<uint32_t>(3 * vocab, 2));
                run(bucket_of(n_rows), [&](Plan& plan, Side side) {
                    embed(plan, "embed", step.memory(side), table.matrix(side), y.rows(side),
                          counts.view[side]);
                });
                compare(y, n_rows, 0, worst, what, false); // the same bits; the padding becomes zero
                CHECK(read<uint32_t>(GPU, counts) == read<uint32_t>(CPU, counts));
            }
}

TEST_CASE("ops: matmul") {
    Worst worst("matmul");
    const std::pair<uint32_t, uint32_t> shapes[] = {{1, 1},   {7, 20},  {28, 65}, {65, 7},
                                                    {80, 97}, {97, 80}, {33, 576}};
    for (const Format format : PLAIN_FORMATS)
        for (const uint32_t n_rows : ROWS)
            for (const auto& [n_out, n_in] : shapes) check_matmul(format, n_rows, n_out, n_in, worst);
}

TEST_CASE("ops: matmul of half and bfloat16 weights at the ends of their range") {
    Worst worst("matmul");
    const Step step = step_of(1);
    const std::vector<float> values{0.0f,          -0.0f,    0x1p-24f, 0x1p-14f,
                                    -0x1.ffcp-15f, 65504.0f, -1.0f,    0x1.004p0f};
    for (const Format format : PLAIN_FORMATS) {
        const Weights w = weights_of(format, 8, 8, [&] { // each value alone in a row
            std::vector<float> matrix(64);
            for (size_t i = 0; i < 8; ++i) matrix[9 * i] = values[i];
            return matrix;
        }());
        const Tensor x = tensor(1, 8, std::vector<float>(8, 1.0f)), y = output(1, 8);
        run(1, [&](Plan& plan, Side side) {
            matmul(plan, "matmul", step.memory(side), w.matrix(side), x.rows(side), y.rows(side), false);
        });
        // Exact but for halves too small to be normal numbers: a device may take those for zero, each by
        // itself.
        const auto got = read<float>(GPU, y), expected = read<float>(CPU, y);
        for (size_t i = 0; i < 8; ++i)
            if (std::abs(values[i]) >= 0x1p-14f)
                CHECK(got[i] == expected[i]);
            else
                CHECK(std::abs(got[i] - expected[i]) <= 0x1p-14f);
    }
}

TEST_CASE("ops: copy_rows") {
    Worst worst("copy_rows");
    for (const uint32_t repeat : {1u, 5u})
        for (const uint32_t n_rows : {1u, 7u, 65u})
            for (const uint32_t cols : {1u, 65u, 576u}) {
                const Step step = step_of(n_rows);
                const uint32_t bucket = bucket_of(n_rows);
                const Tensor x = random_tensor("copy", bucket * repeat, cols),
                             y = output(bucket * repeat, cols, cols);
                run(bucket, [&](Plan& plan, Side side) {
                    copy_rows(plan, "copy", step.memory(side), x.rows(side), repeat, y.rows(side));
                });
                compare(y, n_rows * repeat, 0, worst,
                        fmt::format("copy_rows {} of {} x {}", cols, n_rows, repeat));
            }
}

TEST_CASE("ops: matmul by any number of lanes") {
    Worst worst("matmul");
    for (const uint32_t lanes : possible_lanes())
        for (const Format format : PLAIN_FORMATS)
            for (const uint32_t n_rows : {1u, 2u, 7u, 31u})
                check_matmul(format, n_rows, 65, 97, worst, lanes);
}
