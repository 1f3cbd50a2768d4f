// FP8 weights: E4M3 codes with a scale for each square of FP8_BLOCK x FP8_BLOCK.
#include "checkpoint/blocks.h"

#include "base/error.h"
#include "base/numbers.h"
#include "checkpoint/weight_format.h"

#include <algorithm>
#include <cmath>

namespace fathom {

namespace {

// Calls `each` with the index of every square's scale, and the rows and columns it covers.
template <class Each> void for_squares(uint64_t count, uint64_t cols, size_t scales, Each&& each) {
    const uint64_t rows = cols == 0 ? 0 : count / cols;
    const uint64_t across = (cols + FP8_BLOCK - 1) / FP8_BLOCK, down = (rows + FP8_BLOCK - 1) / FP8_BLOCK;
    check(rows * cols == count && scales == across * down, "FP8 codes and scales belong together");
    for (uint64_t y = 0; y < down; ++y)
        for (uint64_t x = 0; x < across; ++x)
            each(y * across + x, y * FP8_BLOCK, std::min(rows, (y + 1) * FP8_BLOCK), x * FP8_BLOCK,
                 std::min(cols, (x + 1) * FP8_BLOCK));
}

float scale_for(float largest, Fp8Scale kind) {
    if (largest == 0) return 1;
    const float scale = std::max(largest / largest_f8, 0x1p-126f); // normal, so that dividing by it is exact
    if (kind == Fp8Scale::any) return scale;
    int exponent = 0;
    return std::ldexp(1.0f, std::frexp(scale, &exponent) == 0.5f ? exponent - 1 : exponent);
}

} // namespace

void encode_fp8(std::span<const float> values, uint64_t cols, Fp8Scale kind, std::span<std::byte> codes,
                std::span<float> scales) {
    check(codes.size() == values.size(), "an FP8 code for each value");
    check(finite_values(values) == values.size(), "values to encode are finite");
    for_squares(values.size(), cols, scales.size(),
                [&](uint64_t square, uint64_t top, uint64_t bottom, uint64_t left, uint64_t right) {
                    float largest = 0;
                    for (uint64_t r = top; r < bottom; ++r)
                        for (uint64_t c = left; c < right; ++c)
                            largest = std::max(largest, std::fabs(values[r * cols + c]));
                    const float scale = scales[square] = scale_for(largest, kind);
                    for (uint64_t r = top; r < bottom; ++r)
                        for (uint64_t c = left; c < right; ++c)
                            codes[r * cols + c] = std::byte{f32_to_f8(values[r * cols + c] / scale)};
                });
}

void decode_fp8(std::span<const std::byte> codes, uint64_t cols, std::span<const float> scales,
                std::span<float> values) {
    check(codes.size() == values.size(), "an FP8 code for each value");
    for_squares(values.size(), cols, scales.size(),
                [&](uint64_t square, uint64_t top, uint64_t bottom, uint64_t left, uint64_t right) {
                    for (uint64_t r = top; r < bottom; ++r)
                        for (uint64_t c = left; c < right; ++c)
                            values[r * cols + c] =
                                f8_to_f32(std::to_integer<uint8_t>(codes[r * cols + c])) * scales[square];
                });
}

} // namespace fathom
