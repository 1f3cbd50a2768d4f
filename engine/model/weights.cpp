// The checkpoint is checked against the layout, then every target is filled piece by piece.
#include "model/weights.h"

#include "base/error.h"
#include "base/numbers.h"
#include "base/parallel.h"
#include "checkpoint/blocks.h"
#include "model/layout.h"
#include "model/piece_reader.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <unordered_set>

namespace fathom {

namespace {

constexpr const char* WRONG_FILES =
    "the checkpoint does not belong to this config, or its download is incomplete";

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

// The format a tensor's weights shall have: as stored, or `quantize` where the plain and FP8 weights of a
// matrix are to be quantised.
Format wanted_format(const TensorSpec& spec, const TensorView& tensor, std::optional<Format> quantize) {
    const Format stored = format_of(tensor);
    if (!quantize || !spec.quantisable || stored > Format::fp8) return stored;
    return format_of(block_fallback(dtype_of(*quantize), spec.cols()));
}

class Uploader {
  public:
    Uploader(const Checkpoint& checkpoint, Executor& executor,
             const std::function<void(uint64_t, uint64_t)>& progress, uint64_t total)
        : checkpoint_(checkpoint), executor_(executor), progress_(progress), total_(total) {}

    void upload(const Matrix& m, const Piece& piece, const TensorView& tensor) {
        const PieceReader reader(checkpoint_, tensor, piece, m);
        const uint64_t offset = piece.to_matrix * m.matrix_bytes + uint64_t{piece.to_row} * m.row_bytes;
        const uint64_t rows_at_once =
            round_up(std::max<uint64_t>(1, AT_ONCE / m.row_bytes), reader.rows_together());
        std::byte* const direct = executor_.writable(m.view);
        for (uint64_t row = 0; row < piece.rows; row += rows_at_once) {
            const uint64_t rows = std::min<uint64_t>(rows_at_once, piece.rows - row);
            const uint64_t to = offset + row * m.row_bytes, bytes = rows * m.row_bytes;
            if (direct) {
                read(reader, m, row, rows, direct + to);
            } else if (reader.as_it_is()) {
                executor_.upload(m.view, to, reader.file_rows(row, rows));
            } else {
                buffer_.resize(std::max<size_t>(buffer_.size(), bytes));
                read(reader, m, row, rows, buffer_.data());
                executor_.upload(m.view, to, std::span(buffer_).first(bytes));
            }
            checkpoint_.drop(reader.file_rows(row, rows));
            done_ += rows * reader.file_bytes();
            if (progress_) progress_(done_, total_);
        }
    }

  private:
    static constexpr uint64_t AT_ONCE = 8u << 20, PART = 128u << 10; // bytes of rows in memory

    // On several threads: on a software device most of the time goes into memory that is touched first.
    static void read(const PieceReader& reader, const Matrix& m, uint64_t row, uint64_t rows,
                     std::byte* out) {
        const uint64_t grain = round_up(std::max<uint64_t>(1, PART / m.row_bytes), reader.rows_together());
        parallel_ranges(rows, grain, [&](uint64_t first, uint64_t last) {
            std::byte* const to = out + first * m.row_bytes;
            if (reader.as_it_is())
                std::memcpy(to, reader.file_rows(row + first, last - first).data(),
                            (last - first) * m.row_bytes);
            else
                reader.read(row + first, last - first, to);
        });
    }

    const Checkpoint& checkpoint_;
    Executor& executor_;
    const std::function<void(uint64_t, uint64_t)>& progress_;
    uint64_t done_ = 0, total_;
    std::vector<std::byte> buffer_;
};

void upload_weights(const Layout& layout, const Checkpoint& checkpoint,
                    const std::function<void(uint64_t, uint64_t)>& progress, Executor& executor) {
    const auto tensor_of = [&](const Piece& piece) -> const TensorView& {
        return *checkpoint.find(layout.tensors[piece.tensor].name);
    };
    uint64_t total = 0;
    for (const Target& target : layout.targets)
        for (const Piece& piece : target.pieces)
            total += piece.rows * PieceReader(checkpoint, tensor_of(piece), piece, target.shape).file_bytes();
    Uploader uploader(checkpoint, executor, progress, total);
    for (const Target& target : layout.targets) {
        for (size_t k = 0; k < target.pieces.size(); ++k) {
            uploader.upload(target.shape, target.pieces[k], tensor_of(target.pieces[k]));
            if (k % 256 == 255) checkpoint.drop_all(); // small tensors leave neighbours of theirs mapped
        }
        checkpoint.drop_all();
    }
    executor.flush();
}

} // namespace

WeightSource source_of(const Checkpoint& checkpoint, const WeightOptions& options) {
    const auto format_of = [&checkpoint, quantize = options.quantize](const TensorSpec& spec) {
        const TensorView* tensor = checkpoint.find(spec.name);
        return tensor ? wanted_format(spec, *tensor, quantize)
                      : Format::bf16; // the check refuses what is missing
    };
    const auto check = [&checkpoint, keep_mtp = options.keep_mtp](const Layout& layout) {
        check_tensors(layout, checkpoint, keep_mtp);
    };
    const auto fill = [&checkpoint, progress = options.progress](const Layout& layout, Executor& executor) {
        upload_weights(layout, checkpoint, progress, executor);
    };
    return {Naming::of(checkpoint), format_of, check, fill};
}

} // namespace fathom
