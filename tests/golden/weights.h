// Weights out of nothing: the C++ twin of weights.py, which documents the generator. Both give the same bits,
// so a golden checkpoint is committed as a list of names, shapes, scales and offsets and written out again by
// the test.
#pragma once

#include <cstdint>
#include <string_view>

namespace fathom::golden {

constexpr uint64_t fnv1a64(std::string_view text) {
    uint64_t value = 0xCBF29CE484222325;
    for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3;
    return value;
}

// Element `index` of the tensor whose name hashes to `hash`, a multiple of 2^-23 in [-1, 1).
constexpr float unit(uint64_t hash, uint64_t index) {
    uint64_t z = hash + (index + 1) * 0x9E3779B97F4A7C15;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    z = z ^ (z >> 31);
    return static_cast<float>(static_cast<int32_t>(z >> 40) - (1 << 23)) * 0x1p-23f;
}

constexpr float weight(uint64_t hash, uint64_t index, float scale, float offset) {
    return offset + scale * unit(hash, index);
}

} // namespace fathom::golden
