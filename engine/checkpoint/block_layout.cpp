// The table of ggml's block formats, and its interpreter. The layouts are those that the Python package gguf
// dequantises; tests/golden/blocks.safetensors holds what it makes of random blocks.
#include "checkpoint/block_layout.h"

#include "base/error.h"
#include "base/numbers.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

namespace fathom {

namespace {

// Steps that grow with the distance from zero, as weights of a normal distribution want them.
constexpr int8_t nonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
// The values of E2M1, doubled to be integers.
constexpr int8_t e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

constexpr uint8_t nowhere = BlockLayout::nowhere;
constexpr uint8_t six_bits = 6; // scales and mins of Q4_K and Q5_K, the one thing that is no BitField

// clang-format off
constexpr BlockLayout layouts[] = { // in the order of DType
// group, d, dmin, codes: {{{bits, run, offset, shift}, ...}, first, last}, scales likewise, levels
    {32,   0, nowhere, {{{4, 16, 2, 0}},                    -8,   7}, {}, nullptr},                  // Q4_0
    {32,   0,       2, {{{4, 16, 4, 0}},                     0,  15}, {}, nullptr},                  // Q4_1
    {32,   0, nowhere, {{{4, 16, 6, 0}, {1, 1, 2, 4}},     -16,  15}, {}, nullptr},                  // Q5_0
    {32,   0,       2, {{{4, 16, 8, 0}, {1, 1, 4, 4}},       0,  31}, {}, nullptr},                  // Q5_1
    {32,   0, nowhere, {{{8, 32, 2, 0}},                  -127, 127}, {}, nullptr},                  // Q8_0
    {16,  80,      82, {{{2, 32, 16, 0}},                    0,   3}, {{{4, 16}}, 0, 15}, nullptr},  // Q2_K
    {16, 108, nowhere, {{{2, 32, 32, 0}, {1, 32, 0, 2}},    -4,   3},
                       {{{4, 8, 96, 0}, {2, 4, 104, 4}},   -32,  31}, nullptr},                      // Q3_K
    {32,   0,       2, {{{4, 32, 16, 0}},                    0,  15}, {{{six_bits}}, 0, 63}, nullptr}, // Q4_K
    {32,   0,       2, {{{4, 32, 48, 0}, {1, 32, 16, 4}},    0,  31}, {{{six_bits}}, 0, 63}, nullptr}, // Q5_K
    {16, 208, nowhere, {{{4, 64, 0, 0}, {2, 32, 128, 4}},  -32,  31},
                       {{{8, 16, 192, 0}},                -128, 127}, nullptr},                      // Q6_K
    {32,   0, nowhere, {{{4, 16, 2, 0}},                     0,  15}, {}, nonlinear},                // IQ4_NL
    {32,   0, nowhere, {{{4, 16, 8, 0}},                     0,  15},
                       {{{4, 1, 4, 0}, {2, 1, 2, 4}},      -32,  31}, nonlinear},                    // IQ4_XS
    {32,   0, nowhere, {{{4, 16, 1, 0}},                     0,  15}, {}, e2m1},                     // MXFP4
};
// clang-format on
static_assert(std::size(layouts) == static_cast<size_t>(DType::mxfp4) - static_cast<size_t>(DType::q4_0) + 1);

void read_field(const BitField& field, const uint8_t* block, uint32_t count, uint8_t* numbers) {
    const uint32_t planes = 8 / field.bits, mask = (1u << field.bits) - 1;
    const uint8_t* run = block + field.offset;
    for (uint32_t start = 0; start < count; run += field.run)
        for (uint32_t plane = 0; plane < planes; ++plane, start += field.run)
            for (uint32_t i = 0; i < field.run; ++i)
                numbers[start + i] |= (run[i] >> (plane * field.bits) & mask) << field.shift;
}

void write_field(const BitField& field, const uint8_t* numbers, uint32_t count, uint8_t* block) {
    const uint32_t planes = 8 / field.bits, mask = (1u << field.bits) - 1;
    uint8_t* run = block + field.offset;
    for (uint32_t start = 0; start < count; run += field.run)
        for (uint32_t plane = 0; plane < planes; ++plane, start += field.run)
            for (uint32_t i = 0; i < field.run; ++i)
                run[i] |= (numbers[start + i] >> field.shift & mask) << (plane * field.bits);
}

// Eight scales, then eight mins, of six bits each in the 12 bytes at 4. The first four of each kind fill the
// lower six bits of the bytes 0 to 7, whose upper two bits are the upper two of the last four, whose lower
// four bits share the bytes 8 to 11.
void read_six_bits(const uint8_t* block, uint8_t* numbers) {
    const uint8_t* at = block + 4;
    for (uint32_t i = 0; i < 4; ++i) {
        numbers[i] = at[i] & 63, numbers[8 + i] = at[4 + i] & 63;
        numbers[4 + i] = (at[8 + i] & 15) | (at[i] >> 6) << 4;
        numbers[12 + i] = at[8 + i] >> 4 | (at[4 + i] >> 6) << 4;
    }
}

void write_six_bits(const uint8_t* numbers, uint8_t* block) {
    uint8_t* at = block + 4;
    for (uint32_t i = 0; i < 4; ++i) {
        at[i] = numbers[i] | (numbers[4 + i] >> 4) << 6;
        at[4 + i] = numbers[8 + i] | (numbers[12 + i] >> 4) << 6;
        at[8 + i] = (numbers[4 + i] & 15) | (numbers[12 + i] & 15) << 4;
    }
}

float half_at(const uint8_t* at) {
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    return f16_to_f32(bits);
}

void store_half(uint8_t* at, float value) {
    const uint16_t bits = f32_to_f16(value);
    std::memcpy(at, &bits, 2);
}

uint32_t scale_numbers(const BlockLayout& layout, uint32_t groups) { // scales and mins are stored alike
    return layout.has_min() ? 2 * groups : groups;
}

} // namespace

const BlockLayout& layout_of(DType dtype) {
    check(dtype >= DType::q4_0, "a layout is asked for of a block format");
    return layouts[static_cast<size_t>(dtype) - static_cast<size_t>(DType::q4_0)];
}

void unpack_block(DType dtype, const std::byte* block, BlockParts& parts) {
    const BlockLayout& layout = layout_of(dtype);
    const auto* bytes = reinterpret_cast<const uint8_t*>(block);
    const uint32_t size = block_of(dtype), groups = size / layout.group;
    parts.d = dtype == DType::mxfp4 ? std::ldexp(1.0f, bytes[0] - 128) : half_at(bytes + layout.d_at);
    parts.dmin = layout.has_min() ? half_at(bytes + layout.dmin_at) : 0;

    std::fill_n(parts.codes, size, uint8_t{0});
    for (const BitField& field : layout.codes.fields)
        if (field.bits != 0) read_field(field, bytes, size, parts.codes);

    if (!layout.has_scales()) {
        parts.scales[0] = 1;
        parts.mins[0] = layout.has_min() ? -1 : 0;
        return;
    }
    uint8_t stored[2 * largest_groups] = {};
    for (const BitField& field : layout.scales.fields)
        if (field.bits == six_bits)
            read_six_bits(bytes, stored);
        else if (field.bits != 0)
            read_field(field, bytes, scale_numbers(layout, groups), stored);
    for (uint32_t g = 0; g < groups; ++g) {
        parts.scales[g] = static_cast<int16_t>(layout.scales.number(stored[g]));
        parts.mins[g] = layout.has_min() ? stored[groups + g] : 0;
    }
}

void pack_block(DType dtype, const BlockParts& parts, std::byte* block) {
    const BlockLayout& layout = layout_of(dtype);
    auto* bytes = reinterpret_cast<uint8_t*>(block);
    const uint32_t size = block_of(dtype), groups = size / layout.group;
    std::fill_n(bytes, bytes_of(dtype), uint8_t{0});
    if (dtype == DType::mxfp4)
        bytes[0] = parts.d == 0 ? 0 : static_cast<uint8_t>(std::clamp(std::ilogb(parts.d) + 128, 0, 254));
    else
        store_half(bytes + layout.d_at, parts.d);
    if (layout.has_min()) store_half(bytes + layout.dmin_at, parts.dmin);

    for (const BitField& field : layout.codes.fields)
        if (field.bits != 0) write_field(field, parts.codes, size, bytes);

    if (!layout.has_scales()) return;
    uint8_t stored[2 * largest_groups] = {};
    for (uint32_t g = 0; g < groups; ++g) {
        stored[g] = static_cast<uint8_t>(layout.scales.stored(parts.scales[g]));
        if (layout.has_min()) stored[groups + g] = static_cast<uint8_t>(parts.mins[g]);
    }
    for (const BitField& field : layout.scales.fields)
        if (field.bits == six_bits)
            write_six_bits(stored, bytes);
        else if (field.bits != 0)
            write_field(field, stored, scale_numbers(layout, groups), bytes);
}

} // namespace fathom
