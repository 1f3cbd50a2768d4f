// Rows of a checkpoint as a matrix in device memory wants them: as they are, packed, converted to f32, or
// quantised while they are loaded.
#pragma once

#include "model/layout.h"

namespace fathom {

// What lies beside an FP8 tensor: one f32 for each FP8_BLOCK x FP8_BLOCK weights, the last ones ragged.
std::string scale_name(std::string_view tensor);

// The rows of one piece of a tensor. All must outlive the reader; any number of threads may read.
class PieceReader {
  public:
    PieceReader(const Checkpoint& checkpoint, const TensorView& tensor, const Piece& piece, const Matrix& to);

    uint64_t file_bytes() const { return bytes_; } // of one row of the piece
    std::span<const std::byte> file_rows(uint64_t row, uint64_t rows) const {
        return {source_ + row * file_row_, (rows - 1) * file_row_ + bytes_};
    }
    // Whether rows in the file are rows in memory, one behind the other.
    bool as_it_is() const {
        return from_ == to_.format && from_ <= Format::bf16 && bytes_ == file_row_ && bytes_ == to_.row_bytes;
    }
    // Rows that are converted as one: a read begins at a multiple of them, and ends at one or at the last
    // row.
    uint64_t rows_together() const { return quantises_to_fp8() ? FP8_BLOCK : 1; }

    // Writes `rows` rows from `row` on to `out`, to.row_bytes apart. Throws Error naming tensor and weight
    // for an FP8 weight that is no number, and for one that cannot be quantised because it is none or
    // infinite.
    void read(uint64_t row, uint64_t rows, std::byte* out) const;

  private:
    bool quantises_to_fp8() const { return to_.format == Format::fp8 && from_ != Format::fp8; }
    const std::byte* codes(uint64_t row) const;
    std::vector<float> scales_of(uint64_t row) const;
    void decode(uint64_t row, std::span<float> values) const;
    void quantise(uint64_t row, std::span<const float> values, std::byte* out) const;

    const TensorView& tensor_;
    const Piece& piece_;
    const Matrix& to_;
    Format from_;
    uint64_t file_row_, bytes_ = 0;
    const std::byte* source_ = nullptr;
    const TensorView* scales_ = nullptr; // of FP8
};

} // namespace fathom
