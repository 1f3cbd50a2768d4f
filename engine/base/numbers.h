// The small float formats of checkpoints (IEEE half, bfloat16, E4M3, E8M0), and small integer helpers.
// Conversions round to nearest even and keep NaN quiet; both directions are exact for every representable
// value.
#pragma once

#include <bit>
#include <cstdint>

namespace fathom {

inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

inline uint16_t f32_to_bf16(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
    return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

inline float f16_to_f32(uint16_t bits) {
    const uint32_t sign = uint32_t{bits & 0x8000u} << 16, exponent = (bits >> 10) & 31,
                   mantissa = bits & 0x3FF;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000 | mantissa << 13);
    if (exponent == 0) { // zero and subnormals: mantissa * 2^-24
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

inline uint16_t f32_to_f16(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
    const uint32_t magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00);  // NaN
    if (magnitude >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00); // rounds to infinity
    if (magnitude < 0x38800000) { // subnormal or zero: adding 0.5 aligns the mantissa at 2^-24 and rounds
        const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3F000000));
    }
    const uint32_t rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

// E4M3 without infinities ("e4m3fn"): bias 7, largest value 448, NaN where all bits but the sign are set.
inline constexpr float largest_f8 = 448;

inline float f8_to_f32(uint8_t bits) {
    const uint32_t sign = uint32_t{bits & 0x80u} << 24, magnitude = bits & 0x7F;
    if (magnitude == 0x7F) return std::bit_cast<float>(sign | 0x7FC00000);
    if (magnitude < 8) { // zero and subnormals: mantissa * 2^-9
        const float value = static_cast<float>(magnitude) * 0x1p-9f;
        return sign ? -value : value;
    }
    return std::bit_cast<float>(sign | (magnitude + (120 << 3)) << 20);
}

// What is too large, infinity too, becomes +-448.
inline uint8_t f32_to_f8(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80);
    const uint32_t magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return static_cast<uint8_t>(sign | 0x7F);
    if (magnitude >= 0x43E00000) return static_cast<uint8_t>(sign | 0x7E);
    if (magnitude < 0x3C800000) { // subnormal or zero: adding 2^14 aligns the mantissa at 2^-9 and rounds
        const float aligned = std::bit_cast<float>(magnitude) + 0x1p14f;
        return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x46800000));
    }
    const uint32_t rounded = magnitude + 0x7FFFF + ((magnitude >> 20) & 1);
    return static_cast<uint8_t>(sign | ((rounded - 0x3C000000) >> 20));
}

// A power of two as its exponent + 127; 0xFF is NaN.
inline float e8m0_to_f32(uint8_t bits) {
    if (bits == 0xFF) return std::bit_cast<float>(0x7FC00000u);
    return std::bit_cast<float>(bits == 0 ? 0x00400000u : uint32_t{bits} << 23);
}

constexpr uint64_t round_up(uint64_t value, uint64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}
constexpr uint32_t div_up(uint32_t value, uint32_t divisor) { return (value + divisor - 1) / divisor; }

} // namespace fathom
