#include "model/piece_reader.h"

#include "base/error.h"
#include "base/numbers.h"
#include "checkpoint/blocks.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace fathom {

std::string scale_name(std::string_view tensor) { return std::string(tensor) + "_scale_inv"; }

PieceReader::PieceReader(const Checkpoint& checkpoint, const TensorView& tensor, const Piece& piece,
                         const Matrix& to)
    : tensor_(tensor), piece_(piece), to_(to), from_(format_of(tensor)),
      file_row_(tensor.shape.back() / block_of(tensor.dtype) * bytes_of(tensor.dtype)) {
    const uint64_t first = piece.first_col / block_of(tensor.dtype) * bytes_of(tensor.dtype);
    source_ = tensor.data.data() + piece.first_row * file_row_ + first;
    bytes_ = piece.cols / block_of(tensor.dtype) * bytes_of(tensor.dtype);
    if (from_ == Format::fp8) scales_ = checkpoint.find(scale_name(tensor.name));
}

void PieceReader::read(uint64_t row, uint64_t rows, std::byte* out) const {
    if (from_ == to_.format) {
        for (uint64_t r = row; r < row + rows; ++r, out += to_.row_bytes)
            if (from_ == Format::fp8)
                pack_fp8_row(codes(r), scales_of(r).data(), piece_.cols, out);
            else
                pack_row(from_, source_ + r * file_row_, piece_.cols, out);
        return;
    }
    std::vector<float> values(rows_together() * piece_.cols);
    for (uint64_t r = row; r < row + rows; r += rows_together()) {
        const uint64_t together = std::min(rows_together(), row + rows - r);
        const std::span<float> part = std::span(values).first(together * piece_.cols);
        for (uint64_t k = 0; k < together; ++k) decode(r + k, part.subspan(k * piece_.cols, piece_.cols));
        if (to_.format == Format::f32)
            pack_row(Format::f32, std::as_bytes(part).data(), piece_.cols, out);
        else
            quantise(r, part, out);
        out += together * to_.row_bytes;
    }
}

// E4M3 has two codes without a number; kernels do not know them.
const std::byte* PieceReader::codes(uint64_t row) const {
    const std::byte* from = source_ + row * file_row_;
    bool broken = false;
    for (uint32_t k = 0; k < piece_.cols; ++k) broken |= (from[k] & std::byte{0x7F}) == std::byte{0x7F};
    if (broken)
        throw Error({.what = "an FP8 weight is not a number",
                     .where = tensor_.file + ": " + tensor_.name,
                     .expected = "E4M3 codes other than 0x7F and 0xFF",
                     .fix = "fetch the file again"});
    return from;
}

std::vector<float> PieceReader::scales_of(uint64_t row) const {
    const uint64_t per_row = scales_->shape[1], first = piece_.first_col / FP8_BLOCK;
    std::vector<float> scales(div_up(piece_.cols, FP8_BLOCK));
    std::memcpy(scales.data(),
                scales_->data.data() + 4 * ((piece_.first_row + row) / FP8_BLOCK * per_row + first),
                4 * scales.size());
    return scales;
}

void PieceReader::decode(uint64_t row, std::span<float> values) const {
    if (from_ == Format::fp8)
        decode_fp8({codes(row), values.size()}, values.size(), scales_of(row), values);
    else
        decode_blocks(tensor_.dtype, {source_ + row * file_row_, bytes_}, values);
}

// `values` are rows from `row` on.
void PieceReader::quantise(uint64_t row, std::span<const float> values, std::byte* out) const {
    if (const uint64_t at = finite_values(values); at != values.size())
        throw Error({.what = "a weight that is no finite number cannot be quantised",
                     .where = fmt::format("{}: {}, row {}, column {}", tensor_.file, tensor_.name,
                                          piece_.first_row + row + at / piece_.cols,
                                          piece_.first_col + at % piece_.cols),
                     .expected = "finite weights",
                     .got = fmt::format("{}", values[at]),
                     .fix = "load the model without --quantize, or fetch the file again"});
    if (to_.format != Format::fp8) {
        std::vector<std::byte> blocks(values.size() / block_of(dtype_of(to_.format)) *
                                      bytes_of(dtype_of(to_.format)));
        encode_blocks(dtype_of(to_.format), values, blocks);
        pack_row(to_.format, blocks.data(), piece_.cols, out);
        return;
    }
    const uint64_t across = div_up(piece_.cols, FP8_BLOCK), rows = values.size() / piece_.cols;
    std::vector<std::byte> codes(values.size());
    std::vector<float> scales(across);
    encode_fp8(values, piece_.cols, Fp8Scale::any, codes, scales);
    for (uint64_t r = 0; r < rows; ++r)
        pack_fp8_row(codes.data() + r * piece_.cols, scales.data(), piece_.cols, out + r * to_.row_bytes);
}

} // namespace fathom
