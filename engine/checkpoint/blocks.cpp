#include "checkpoint/blocks.h"

#include "base/error.h"
#include "base/numbers.h"
#include "checkpoint/block_layout.h"

#include <cstring>

namespace fathom {

namespace {

template <class Bits>
void convert_each(const std::byte* stored, std::span<float> values, float (&to_f32)(Bits)) {
    for (size_t i = 0; i < values.size(); ++i) {
        Bits bits;
        std::memcpy(&bits, stored + i * sizeof bits, sizeof bits);
        values[i] = to_f32(bits);
    }
}

void decode_block(DType dtype, const BlockLayout& layout, const std::byte* block, float* values) {
    BlockParts parts;
    unpack_block(dtype, block, parts);
    for (uint32_t start = 0, g = 0; start < block_of(dtype); start += layout.group, ++g) {
        const float scale = parts.d * static_cast<float>(parts.scales[g]);
        const float min = parts.dmin * static_cast<float>(parts.mins[g]);
        for (uint32_t i = start; i < start + layout.group; ++i) {
            const float product = scale * static_cast<float>(layout.level(parts.codes[i]));
            values[i] = layout.has_min() ? product - min : product;
        }
    }
}

} // namespace

void decode_blocks(DType dtype, std::span<const std::byte> stored, std::span<float> values) {
    const uint64_t block = block_of(dtype), blocks = values.size() / block;
    check(values.size() % block == 0 && stored.size() == blocks * bytes_of(dtype),
          "the blocks to decode are those of the values");
    if (dtype == DType::f32) {
        if (!values.empty()) std::memcpy(values.data(), stored.data(), stored.size());
        return;
    }
    if (dtype == DType::f16) return convert_each(stored.data(), values, f16_to_f32);
    if (dtype == DType::bf16) return convert_each(stored.data(), values, bf16_to_f32);
    if (dtype == DType::f8_e4m3) return convert_each(stored.data(), values, f8_to_f32);
    if (dtype == DType::f8_e8m0) return convert_each(stored.data(), values, e8m0_to_f32);
    const BlockLayout& layout = layout_of(dtype);
    for (uint64_t b = 0; b < blocks; ++b)
        decode_block(dtype, layout, stored.data() + b * bytes_of(dtype), values.data() + b * block);
}

DType block_fallback(DType wanted, uint64_t cols) {
    if (cols % block_of(wanted) == 0) return wanted;
    if (cols % 32 != 0) return DType::f16;
    switch (wanted) {
    case DType::q2_k:
    case DType::q3_k:
        return DType::q4_0;
    case DType::q4_k:
        return DType::q5_0;
    case DType::q5_k:
        return DType::q5_1;
    case DType::q6_k:
        return DType::q8_0;
    default:
        return DType::iq4_nl; // of iq4_xs
    }
}

} // namespace fathom
