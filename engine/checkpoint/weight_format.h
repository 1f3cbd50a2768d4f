// The weight formats in memory: rows as the kernels read them, made from a file's blocks and decoded again
// for the CPU reference. The numbers are those of shaders/formats.h, which says what a row looks like. Every
// row starts at a multiple of 16 bytes and holds a multiple of 8 weights, the last ones zero; packing moves
// bits and changes none.
#pragma once

#include "checkpoint/checkpoint.h"
#include "formats.h"

namespace fathom {

// Every format, for code that is made once for each.
#define FATHOM_EACH_FORMAT(X)                                                                                \
    X(f32, F32)                                                                                              \
    X(f16, F16)                                                                                              \
    X(bf16, BF16)                                                                                            \
    X(fp8, FP8) X(q8_0, Q8_0) X(q4_0, Q4_0) X(q4_1, Q4_1) X(q5_0, Q5_0) X(q5_1, Q5_1) X(q2_k, Q2_K)          \
        X(q3_k, Q3_K) X(q4_k, Q4_K) X(q5_k, Q5_K) X(q6_k, Q6_K) X(iq4_nl, IQ4_NL) X(iq4_xs, IQ4_XS)          \
            X(mxfp4, MXFP4)

enum class Format : uint8_t {
#define FATHOM_FORMAT(name, NAME) name = FORMAT_##NAME,
    FATHOM_EACH_FORMAT(FATHOM_FORMAT)
#undef FATHOM_FORMAT
};
constexpr Format FORMATS[] = {
#define FATHOM_FORMAT(name, NAME) Format::name,
    FATHOM_EACH_FORMAT(FATHOM_FORMAT)
#undef FATHOM_FORMAT
};
constexpr uint32_t FP8_BLOCK = 128; // rows and columns that share a scale

std::string_view name_of(Format format); // as in the names of shader modules: "bf16", "fp8", "q4_k"
DType dtype_of(Format format);           // of its weights in files
// The format that holds a checkpoint's dtype without loss. Throws Error naming the tensor for one that has
// none.
Format format_of(const TensorView& tensor);
Format format_of(DType dtype);              // the same for one that is known to have one
Format format_named(std::string_view name); // Error listing the names for one that is none

uint32_t block_of(Format format); // weights that share a block; a part of a row begins and ends with one
uint32_t row_bytes(Format format, uint32_t cols); // in memory
double bits_per_weight(Format format);            // in memory, of a long row

// The planes of a row in memory (shaders/formats.h), in bytes.
struct RowPlane {
    uint32_t at = 0, bytes = 0; // where it begins; up to the next one
    uint32_t used = 0;          // of them; the rest are 0
    uint32_t of_block = 0;      // of one block
    bool quants = false;        // weights, or a part of their bits; else scales
};
std::vector<RowPlane> planes_of_row(Format format, uint32_t cols);

// A row in memory from a row of a file: `cols` weights, a multiple of the file's block.
void pack_row(Format format, const std::byte* file_row, uint32_t cols, std::byte* row);
// A row of FP8: `codes`, and the scale of each FP8_BLOCK columns.
void pack_fp8_row(const std::byte* codes, const float* scales, uint32_t cols, std::byte* row);
// The weights of a row in memory, with the roundings of decode_blocks() (checkpoint/blocks.h).
void unpack_row(Format format, const std::byte* row, uint32_t cols, float* weights);

} // namespace fathom
