// Loading: the checkpoint is checked against the layout, then every target is filled piece by piece.
#include "model/weights.h"

#include "base/error.h"
#include "base/numbers.h"
#include "checkpoint/blocks.h"
#include "model/layout.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <unordered_set>

namespace fathom {

namespace {

constexpr const char* WRONG_FILES =
    "the checkpoint does not belong to this config, or its download is incomplete";

// What lies beside an FP8 tensor: one f32 for each FP8_BLOCK x FP8_BLOCK weights, the last ones ragged.
std::string scale_name(std::string_view tensor) { return std::string(tensor) + "_scale_inv"; }

// Extras that change nothing: a buffer of old checkpoints of the family, and what llama.cpp may add to a GGUF
// for models whose RoPE frequencies its own code determines.
bool ignorable(std::string_view name) {
    return name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight";
}

void check_scales(const TensorView& tensor, const Checkpoint& checkpoint) {
    const std::string name = scale_name(tensor.name);
    const TensorView* scales = checkpoint.find(name);
    const std::vector<uint64_t> shape = {(tensor.shape[0] + FP8_BLOCK - 1) / FP8_BLOCK,
                                         (tensor.shape[1] + FP8_BLOCK - 1) / FP8_BLOCK};
    if (!scales || scales->shape != shape || scales->dtype != DType::f32)
        throw Error({.what = "an FP8 tensor without its scales",
                     .where = (scales ? scales->file : tensor.file) + ": " + name,
                     .expected = shape_text(shape) + " F32, one for 128 x 128 weights",
                     .got = scales ? shape_text(scales->shape) + " " + std::string(name_of(scales->dtype))
                                   : "no such tensor",
                     .fix = WRONG_FILES});
}

void check_tensor(const TensorSpec& spec, const TensorView* tensor, const Checkpoint& checkpoint) {
    if (!tensor)
        throw Error({.what = "the checkpoint lacks a tensor",
                     .where = spec.name,
                     .expected = shape_text(spec.shape),
                     .got = "no such tensor",
                     .fix = WRONG_FILES});
    if (tensor->shape != spec.shape)
        throw Error({.what = "a tensor has another shape than the config says",
                     .where = tensor->file + ": " + spec.name,
                     .expected = shape_text(spec.shape),
                     .got = shape_text(tensor->shape),
                     .fix = WRONG_FILES});
    if (format_of(*tensor) == Format::fp8) check_scales(*tensor, checkpoint);
}

void check_tensors(const Layout& layout, const Checkpoint& checkpoint, bool keep_mtp) {
    std::unordered_set<std::string_view> known;
    const bool has_mtp = std::any_of(layout.tensors.begin(), layout.tensors.end(), [&](const auto& spec) {
        return spec.mtp && checkpoint.find(spec.name);
    });
    for (const TensorSpec& spec : layout.tensors) {
        known.insert(spec.name);
        const TensorView* tensor = checkpoint.find(spec.name);
        if (!tensor && (spec.optional || (spec.mtp && !has_mtp && !keep_mtp))) continue;
        check_tensor(spec, tensor, checkpoint);
    }
    for (const TensorView& tensor : checkpoint.tensors()) {
        if (known.contains(tensor.name) || ignorable(tensor.name)) continue;
        const std::string_view suffix = "_scale_inv", name = tensor.name;
        const bool scales =
            name.ends_with(suffix) && known.contains(name.substr(0, name.size() - suffix.size()));
        if (scales && checkpoint.find(name.substr(0, name.size() - suffix.size()))->dtype == DType::f8_e4m3)
            continue;
        throw Error({.what = "the checkpoint has a tensor that this model has no place for",
                     .where = tensor.file + ": " + printable(tensor.name),
                     .expected = "only tensors of the config",
                     .got = shape_text(tensor.shape),
                     .fix = WRONG_FILES});
    }
}

// Reads rows of one piece of a tensor as a target wants them.
class RowReader {
  public:
    RowReader(const Checkpoint& checkpoint, const TensorView& tensor, const Piece& piece, const Matrix& to)
        : tensor_(tensor), piece_(piece), to_(to), from_(format_of(tensor)),
          file_row_(tensor.shape.back() / block_of(tensor.dtype) * bytes_of(tensor.dtype)) {
        const uint64_t first = piece.first_col / block_of(tensor.dtype) * bytes_of(tensor.dtype);
        source_ = tensor.data.data() + piece.first_row * file_row_ + first;
        bytes_ = piece.cols / block_of(tensor.dtype) * bytes_of(tensor.dtype);
        if (from_ == Format::fp8) scales_ = checkpoint.find(scale_name(tensor.name));
    }
    uint64_t file_bytes() const { return bytes_; } // of one row of the piece
    std::span<const std::byte> file_rows(uint64_t row, uint64_t rows) const {
        return {source_ + row * file_row_, (rows - 1) * file_row_ + bytes_};
    }
    // Whether rows in the file are rows in memory, one behind the other.
    bool as_it_is() const {
        return from_ == to_.format && from_ <= Format::bf16 && bytes_ == file_row_ && bytes_ == to_.row_bytes;
    }

    void read(uint64_t row, std::byte* out) {
        const std::byte* from = source_ + row * file_row_;
        if (from_ == to_.format) {
            if (from_ == Format::fp8)
                pack_fp8_row(codes(from), scales_of(row), piece_.cols, out);
            else
                pack_row(from_, from, piece_.cols, out);
            return;
        }
        check(to_.format == Format::f32, "weights are only ever converted to f32");
        values_.resize(piece_.cols);
        if (from_ == Format::fp8) {
            packed_.resize(row_bytes(Format::fp8, piece_.cols));
            pack_fp8_row(codes(from), scales_of(row), piece_.cols, packed_.data());
            unpack_row(Format::fp8, packed_.data(), piece_.cols, values_.data());
        } else {
            decode_blocks(tensor_.dtype, {from, bytes_}, values_);
        }
        pack_row(Format::f32, reinterpret_cast<const std::byte*>(values_.data()), piece_.cols, out);
    }

  private:
    // E4M3 has two codes without a number; kernels do not know them.
    const std::byte* codes(const std::byte* from) const {
        bool broken = false;
        for (uint32_t k = 0; k < piece_.cols; ++k) broken |= (from[k] & std::byte{0x7F}) == std::byte{0x7F};
        if (broken)
            throw Error({.what = "an FP8 weight is not a number",
                         .where = tensor_.file + ": " + tensor_.name,
                         .expected = "E4M3 codes other than 0x7F and 0xFF",
                         .fix = "fetch the file again"});
        return from;
    }
    const float* scales_of(uint64_t row) {
        const uint64_t per_row = scales_->shape[1], first = piece_.first_col / FP8_BLOCK;
        scale_row_.resize(div_up(piece_.cols, FP8_BLOCK));
        std::memcpy(scale_row_.data(),
                    scales_->data.data() + 4 * ((piece_.first_row + row) / FP8_BLOCK * per_row + first),
                    4 * scale_row_.size());
        return scale_row_.data();
    }

    const TensorView& tensor_;
    const Piece& piece_;
    const Matrix& to_;
    Format from_;
    uint64_t file_row_, bytes_ = 0;
    const std::byte* source_ = nullptr;
    const TensorView* scales_ = nullptr;
    std::vector<float> values_, scale_row_;
    std::vector<std::byte> packed_;
};

class Uploader {
  public:
    Uploader(const Checkpoint& checkpoint, Executor& executor,
             const std::function<void(uint64_t, uint64_t)>& progress, uint64_t total)
        : checkpoint_(checkpoint), executor_(executor), progress_(progress), total_(total) {}

    void upload(const Matrix& m, const Piece& piece, const TensorView& tensor) {
        RowReader reader(checkpoint_, tensor, piece, m);
        const uint64_t offset = piece.to_matrix * m.matrix_bytes + uint64_t{piece.to_row} * m.row_bytes;
        const uint64_t rows_at_once = std::max<uint64_t>(1, (4u << 20) / m.row_bytes);
        for (uint64_t row = 0; row < piece.rows; row += rows_at_once) {
            const uint64_t rows = std::min<uint64_t>(rows_at_once, piece.rows - row);
            std::span<const std::byte> bytes = reader.file_rows(row, rows);
            if (!reader.as_it_is()) {
                buffer_.resize(rows * m.row_bytes);
                for (uint64_t r = 0; r < rows; ++r) reader.read(row + r, buffer_.data() + r * m.row_bytes);
                bytes = buffer_;
            }
            executor_.upload(m.view, offset + row * m.row_bytes, bytes);
            checkpoint_.drop(reader.file_rows(row, rows));
            done_ += rows * reader.file_bytes();
            if (progress_) progress_(done_, total_);
        }
    }

  private:
    const Checkpoint& checkpoint_;
    Executor& executor_;
    const std::function<void(uint64_t, uint64_t)>& progress_;
    uint64_t done_ = 0, total_;
    std::vector<std::byte> buffer_;
};

// Memory for all targets, owner by owner.
void allocate(std::vector<Target>& targets, Executor& executor) {
    std::vector<std::string_view> owners;
    for (const Target& t : targets)
        if (std::find(owners.begin(), owners.end(), t.owner) == owners.end()) owners.push_back(t.owner);
    for (const std::string_view owner : owners) {
        std::vector<uint64_t> sizes;
        for (const Target& t : targets)
            if (t.owner == owner) sizes.push_back(t.bytes());
        const auto views =
            executor.allocate(fmt::format("weights: {}", owner), gpu::Placement::device, sizes, false);
        size_t next = 0;
        for (Target& t : targets)
            if (t.owner == owner) t.shape.view = views[next++];
    }
}

} // namespace

Weights load_weights(const ModelConfig& config, const Checkpoint& checkpoint, bool keep_mtp,
                     Executor& executor, const std::function<void(uint64_t, uint64_t)>& progress) {
    Weights weights;
    const Naming naming = Naming::of(checkpoint);
    const FormatOf stored = [&](const TensorSpec& spec) {
        const TensorView* tensor = checkpoint.find(spec.name);
        return tensor ? format_of(*tensor) : Format::bf16; // check_tensors refuses what is missing
    };
    Layout layout = layout_of(config, naming, stored, keep_mtp, weights);
    check_tensors(layout, checkpoint, keep_mtp);
    allocate(layout.targets, executor);
    const auto tensor_of = [&](const Piece& piece) -> const TensorView& {
        return *checkpoint.find(layout.tensors[piece.tensor].name);
    };
    uint64_t total = 0;
    for (const Target& target : layout.targets)
        for (const Piece& piece : target.pieces)
            total += piece.rows * RowReader(checkpoint, tensor_of(piece), piece, target.shape).file_bytes();
    Uploader uploader(checkpoint, executor, progress, total);
    for (const Target& target : layout.targets) {
        for (size_t k = 0; k < target.pieces.size(); ++k) {
            uploader.upload(target.shape, target.pieces[k], tensor_of(target.pieces[k]));
            if (k % 256 == 255) checkpoint.drop_all(); // small tensors leave neighbours of theirs mapped
        }
        checkpoint.drop_all();
        if (target.matrix)
            *target.matrix = target.shape;
        else
            *target.vector = {target.shape.view.address, uint64_t{target.shape.cols} * 4};
    }
    if (naming.tied_head) weights.head = weights.embedding;
    executor.flush();
    return weights;
}

} // namespace fathom
