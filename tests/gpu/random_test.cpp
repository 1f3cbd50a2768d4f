// Weights out of a seed: the kernel against its reference to the bit, and what comes out of them.
#include "gpu/help.h"
#include "model/layout.h"
#include "model/synthetic.h"

using namespace fathom;
using namespace fathom::test;

namespace {

// The rows that a target of one matrix gets, on both sides.
struct Made {
    Matrix shape;
    std::vector<std::byte> bytes[2];
    std::vector<float> row(uint32_t r) const {
        std::vector<float> values(shape.cols);
        unpack_row(shape.format, bytes[GPU].data() + uint64_t{r} * shape.row_bytes, shape.cols,
                   values.data());
        return values;
    }
};
Made make(Format format, uint32_t rows, uint32_t cols, TensorSpec tensor, const SyntheticWeights& weights) {
    const Scratch scratch;
    Made made;
    made.shape = matrix_shape(format, rows, cols, 1);
    tensor.shape = {rows, cols};
    for (const Side side : SIDES) {
        Layout layout;
        layout.tensors = {tensor};
        Target target{.shape = made.shape, .pieces = {{0, 0, rows, 0, cols, 0, 0}}};
        target.shape.view = Scratch::take(side, made.shape.matrix_bytes);
        run(
            side, 1, [&](Plan& plan, Side) { fill_target(target, layout, weights, 3, plan); },
            executor(side).caps());
        made.bytes[side].resize(made.shape.matrix_bytes);
        executor(side).download(target.shape.view, made.bytes[side]);
    }
    return made;
}

double rms(const Made& made, uint32_t first, uint32_t rows) {
    double squares = 0;
    for (uint32_t r = first; r < first + rows; ++r)
        for (const float v : made.row(r)) squares += double(v) * v;
    return std::sqrt(squares / (double(rows) * made.shape.cols));
}

} // namespace

TEST_CASE("synthetic weights: as the reference makes them, to the bit, of the size that is wanted") {
    for (const Format format : FORMATS) {
        const uint32_t cols = block_of(format) == 1 ? 264 : 512, rows = 70;
        CAPTURE(name_of(format));
        const Made made = make(format, rows, cols, {.name = "w", .quantisable = true}, {.seed = 7});
        CHECK(made.bytes[GPU] == made.bytes[CPU]);
        const double size = rms(made, 0, rows) * std::sqrt(double(cols));
        CHECK(size > 0.5); // exponents are whole numbers
        CHECK(size < 1.45);
        double mean = 0;
        for (uint32_t r = 0; r < rows; ++r)
            for (const float v : made.row(r)) {
                CHECK_UNARY(std::isfinite(v));
                mean += v;
            }
        CHECK(std::abs(mean / (rows * cols)) < 0.25 / std::sqrt(double(cols)));
        const auto first = made.row(0), second = made.row(1);
        CHECK(first != second);
        const Made other = make(format, rows, cols, {.name = "w", .quantisable = true}, {.seed = 8});
        CHECK(other.row(0) != first);
    }
}

TEST_CASE("synthetic weights: a broken last block ends with zeros") {
    const Made made = make(Format::fp8, 5, 200, {.name = "w", .quantisable = true}, {});
    CHECK(made.bytes[GPU] == made.bytes[CPU]);
    for (uint32_t r = 0; r < 5; ++r)
        for (uint32_t k = 200; k < 256; ++k)
            CHECK(made.bytes[GPU][r * made.shape.row_bytes + k] == std::byte{0});
}
