// The weight formats on the CPU: sizes and decoding. The numbers are those of shaders/formats.h; rows in
// memory start at multiples of 16 bytes and hold a multiple of 8 weights, the last ones zero, as
// shaders/dequant.glsl reads them.
#pragma once

#include "base/error.h"
#include "base/numbers.h"
#include "checkpoint/checkpoint.h"
#include "formats.h"

#include <cstring>

namespace fathom {

enum class Format : uint8_t { f32 = FORMAT_F32, f16 = FORMAT_F16, bf16 = FORMAT_BF16 };

inline std::string_view name_of(Format format) { // as in the names of shader modules
    return format == Format::f32 ? "f32" : format == Format::f16 ? "f16" : "bf16";
}
inline uint32_t bytes_of(Format format) { return format == Format::f32 ? 4 : 2; } // of one weight
inline uint32_t row_bytes(Format format, uint32_t cols) {
    return static_cast<uint32_t>(round_up(cols, 8)) * bytes_of(format);
}

// Weight `k` of a row in memory.
inline float weight_at(Format format, const std::byte* row, uint64_t k) {
    if (format == Format::f32) {
        float value;
        std::memcpy(&value, row + 4 * k, 4);
        return value;
    }
    uint16_t bits;
    std::memcpy(&bits, row + 2 * k, 2);
    return format == Format::f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}
inline void store_weight(Format format, std::byte* row, uint64_t k, float value) {
    if (format == Format::f32) {
        std::memcpy(row + 4 * k, &value, 4);
        return;
    }
    const uint16_t bits = format == Format::f16 ? f32_to_f16(value) : f32_to_bf16(value);
    std::memcpy(row + 2 * k, &bits, 2);
}

// The format that holds a checkpoint's dtype without loss.
inline Format format_of(const TensorView& tensor) {
    if (tensor.dtype == DType::f32) return Format::f32;
    if (tensor.dtype == DType::f16) return Format::f16;
    if (tensor.dtype == DType::bf16) return Format::bf16;
    throw Error({.what = "a weight has a dtype that this engine cannot run",
                 .where = tensor.file + ": " + printable(tensor.name),
                 .expected = "F32, F16 or BF16",
                 .got = std::string(name_of(tensor.dtype)),
                 .fix = "convert the checkpoint to BF16"});
}

} // namespace fathom
