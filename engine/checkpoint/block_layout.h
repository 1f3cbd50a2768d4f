// How ggml's block formats lie in their bytes: one row of a table for each, and two functions that interpret
// it, so that a format is described once for decoding, encoding and repacking. A block is a vector of values
// that share what is stored for them:
//
//     value i = (d * scales[i / group]) * level(codes[i]) - dmin * mins[i / group]
//
// where level() is a table of 16, or the code counted from the first level. Formats without groups have the
// scale 1; those with one minimum for the whole block have the min -1, which makes an addition of the last
// term.
#pragma once

#include "checkpoint/checkpoint.h"

namespace fathom {

inline constexpr uint32_t largest_block = 256, largest_groups = 16;

// `bits` bits of each of many numbers, to be shifted left by `shift`. Bytes come in runs of `run`: the lowest
// bits of a run's bytes belong to its first `run` numbers, the next higher bits to the next `run`, and so on.
struct BitField {
    uint8_t bits = 0, run = 1, offset = 0, shift = 0;
};

// Small integers stored as the sum of one or two fields: a signed byte where the first field has 8 bits, else
// counted from `first`.
struct PackedNumbers {
    BitField fields[2];
    int16_t first = 1, last = 1; // what an encoder may store
    int stored(int number) const { return fields[0].bits == 8 ? number & 0xFF : number - first; }
    int number(int stored) const {
        return fields[0].bits == 8 ? static_cast<int8_t>(stored) : stored + first;
    }
};

struct BlockLayout {
    uint16_t group;              // values that share a scale
    uint8_t d_at, dmin_at;       // offsets of d and dmin, both f16; MXFP4 has an exponent at d_at
    PackedNumbers codes, scales; // scales has no fields where d alone is the scale
    const int8_t* levels;        // nullptr: a code's number is its level

    static constexpr uint8_t nowhere = 0xFF;
    bool has_min() const { return dmin_at != nowhere; }
    bool has_scales() const { return scales.fields[0].bits != 0; }
    int level(uint8_t code) const { return levels ? levels[code] : codes.number(code); }
};
const BlockLayout& layout_of(DType dtype); // of a block format

struct BlockParts {
    float d, dmin;
    int16_t scales[largest_groups], mins[largest_groups];
    uint8_t codes[largest_block]; // as stored
};
// Between the bytes of one block and its parts. pack_block() rounds d and dmin to what the block can hold
// (f16; a power of two from 2^-128 to 2^126 in MXFP4), which for parts that came from unpack_block() changes
// nothing.
void unpack_block(DType dtype, const std::byte* block, BlockParts& parts);
void pack_block(DType dtype, const BlockParts& parts, std::byte* block);

} // namespace fathom
