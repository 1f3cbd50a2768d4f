// The weight formats on the device: decoding, to the bit, and every kernel that reads weights, for the
// formats whose rows are blocks. How kernels tile, sum and share lanes does not depend on the format: the
// tests of ops_*.cpp have that, over rows of any length.
#include "gpu/attention.h"
#include "gpu/moe.h"

using namespace fathom;
using namespace fathom::test;

namespace {

// Lengths of rows: one block, several, and where the format allows it a broken last one.
std::vector<uint32_t> lengths(Format format) {
    const uint32_t block = block_of(format);
    if (format == Format::fp8) return {1, 7, 128, 200, 576};
    return block == 1 ? std::vector<uint32_t>{7, 80} : std::vector<uint32_t>{block, 3 * block};
}

} // namespace

TEST_CASE("formats: a row is as long as its blocks, with planes of whole 16 bytes") {
    for (const Format format : FORMATS) {
        CAPTURE(name_of(format));
        const uint32_t cols = 16 * 256;
        CHECK(row_bytes(format, cols) % 16 == 0);
        CHECK(row_bytes(format, cols) * 8 == bits_per_weight(format) * cols);
        if (format == Format::fp8) continue; // its scales are a tensor of their own in files
        CHECK(row_bytes(format, cols) == cols / block_of(dtype_of(format)) * bytes_of(dtype_of(format)));
    }
}

TEST_CASE("formats: packing loses nothing: a row decodes as its blocks do") {
    for (const Format format : FORMATS) {
        const DType dtype = dtype_of(format);
        if (format == Format::fp8) continue;
        CAPTURE(name_of(format));
        const uint32_t cols = 2 * 256;
        std::vector<std::byte> blocks(cols / block_of(dtype) * bytes_of(dtype)), row(row_bytes(format, cols));
        const auto noise = random_floats(std::string(name_of(format)), blocks.size(), 128);
        for (size_t i = 0; i < blocks.size(); ++i)
            blocks[i] = static_cast<std::byte>(static_cast<int>(noise[i]) & 0xFF);
        std::vector<float> expected(cols), got(cols);
        decode_blocks(dtype, blocks, expected);
        pack_row(format, blocks.data(), cols, row.data());
        unpack_row(format, row.data(), cols, got.data());
        CHECK(std::memcmp(got.data(), expected.data(), 4 * cols) == 0); // NaNs too
    }
}

TEST_CASE("formats: kernels decode to the bit as the CPU does") {
    constexpr uint32_t vocab = 60;
    for (const Format format : FORMATS)
        for (const uint32_t dim : lengths(format)) {
            const Scratch scratch;
            const auto what = fmt::format("{} rows of {}", name_of(format), dim);
            const Weights table = random_weights(what, format, vocab, dim);
            std::vector<StepRow> rows;
            for (uint32_t t = 0; t < vocab; ++t) rows.push_back({t, t, 0});
            const Step step = step_of(rows);
            const Tensor y = output(64, dim);
            const Buffer counts = buffer(std::vector<uint32_t>(vocab, 0));
            run(64, [&](Plan& plan, Side side) {
                embed(plan, "embed", step.memory(side), table.matrix(side), y.rows(side), counts.view[side]);
            });
            const auto got = read<float>(GPU, y), expected = read<float>(CPU, y);
            size_t wrong = 0;
            for (uint64_t r = 0; r < vocab; ++r)
                for (uint64_t c = 0; c < dim; ++c)
                    wrong += got[r * y.stride + c] != expected[r * y.stride + c];
            if (wrong != 0) FAIL_CHECK(what << ": " << wrong << " weights differ");
        }
}

TEST_CASE("formats: matmul") {
    Worst worst("matmul");
    for (const Format format : FORMATS)
        for (const uint32_t n_in : lengths(format))
            for (const uint32_t n_rows : {1u, 2u, 7u}) {
                const Scratch scratch;
                const auto what = fmt::format("matmul {} (33, {}) of {} rows", name_of(format), n_in, n_rows);
                const Step step = step_of(n_rows);
                const Weights w = random_weights(what, format, 33, n_in);
                const Tensor x = random_tensor(what + " x", bucket_of(n_rows), n_in),
                             y = output(bucket_of(n_rows), 33);
                run(bucket_of(n_rows), [&](Plan& plan, Side side) {
                    matmul(plan, "matmul", step.memory(side), w.matrix(side), x.rows(side), y.rows(side),
                           false);
                });
                compare(y, n_rows, 1e-12, worst, what); // f32 sums of up to 768 terms
            }
}

TEST_CASE("formats: experts") {
    Worst worst("experts");
    for (const Format format : FORMATS) {
        const Scratch scratch;
        const uint32_t block = std::max(block_of(format), 8u);
        const auto name = fmt::format("experts {}", name_of(format));
        const Experts layer(name, format, block, block, 5, 3);
        for (const uint32_t n_rows : {1u, 7u}) check_experts(layer, n_rows, worst, name);
    }
}

TEST_CASE("formats: experts whose gate and up differ") {
    const Scratch scratch;
    Worst worst("experts");
    Experts layer("mixed", Format::q8_0, 64, 96, 5, 3);
    layer.up = random_weights("mixed up", Format::q4_1, 96, 64, 5);
    for (const uint32_t n_rows : {1u, 7u}) check_experts(layer, n_rows, worst, "mixed experts");
}

TEST_CASE("formats: router") {
    for (const Format format : FORMATS) {
        const Scratch scratch;
        CAPTURE(name_of(format));
        const uint32_t dim = std::max(block_of(format), 8u);
        Routing routing({13, 4, 1, 1, 1, ROUTER_SIGMOID | ROUTER_NORMALISE, 2.5f}, dim, 3,
                        fmt::format("router {}", name_of(format)), format);
        routing.execute();
        for (uint32_t t = 0; t < 3; ++t) CHECK(routing.chosen(t, GPU) == routing.chosen(t, CPU));
    }
}
