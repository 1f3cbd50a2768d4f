// Rows of weights in the number formats of a checkpoint, as f32. Functions are pure, so that many threads can
// convert parts of one tensor; `stored` may lie at any address.
#pragma once

#include "checkpoint/checkpoint.h"

namespace fathom {

// The values of `stored`, which holds whole blocks of f32, f16, bf16, f8_e4m3 or f8_e8m0 (these two without
// any scale of theirs) or a block format; `values` has exactly their number. Products are rounded as ggml's
// Python package does it, so the values are the same bits. A block whose scale is no number gives values that
// are none.
void decode_blocks(DType dtype, std::span<const std::byte> stored, std::span<float> values);

// The number of values before the first that is infinite or no number: all of them, if they can be encoded.
uint64_t finite_values(std::span<const float> values);

// Rounds finite values to f32, f16, bf16 or blocks of a block format, as near to them as the format allows by
// the sum of squared errors. The same values give the same bits everywhere. What is too large for a format
// becomes the largest it holds.
void encode_blocks(DType dtype, std::span<const float> values, std::span<std::byte> stored);

// What rows of `cols` values become that should become `wanted`: `wanted` itself where its blocks fill a row,
// else a format of at least as many bits in blocks of 32 (as llama-quantize has it), else f16.
DType block_fallback(DType wanted, uint64_t cols);

// FP8 as in the checkpoints of DeepSeek V3: E4M3 codes (rows, cols), and one scale for each FP8_BLOCK x
// FP8_BLOCK of them (weight_format.h), the last ones ragged: (rows / FP8_BLOCK, cols / FP8_BLOCK), rounded
// up. A value is code * scale.
enum class Fp8Scale : uint8_t { any, power_of_two };
void encode_fp8(std::span<const float> values, uint64_t cols, Fp8Scale kind, std::span<std::byte> codes,
                std::span<float> scales);
void decode_fp8(std::span<const std::byte> codes, uint64_t cols, std::span<const float> scales,
                std::span<float> values);

} // namespace fathom
