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

} // namespace fathom
