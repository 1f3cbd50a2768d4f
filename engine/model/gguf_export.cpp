// Exporting; see gguf_export.h. First a list of the tensors of the new file, each with the rows of the old
// ones that it consists of, then one pass that writes them.
#include "model/gguf_export.h"

#include "base/error.h"
#include "checkpoint/blocks.h"
#include "checkpoint/gguf_writer.h"
#include "checkpoint/weight_format.h"
#include "model/config.h"
#include "model/gguf_keys.h"
#include "model/tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>

namespace fathom {

namespace {

// Rows of a tensor, taken as a matrix of its last dimension; in another order, or transposed as a whole.
struct Source {
    const TensorView* tensor;
    uint64_t first_row, rows;
    bool transposed = false;
    std::vector<uint32_t> order; // row i is row first_row + order[i]; empty: as they are
};
struct Output {
    std::string name;
    std::vector<uint64_t> shape;
    DType dtype;
    std::vector<Source> sources; // one behind the other
};

uint64_t rows_of(const TensorView& tensor) {
    uint64_t rows = 1;
    for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= tensor.shape[i];
    return rows;
}
Source whole(const TensorView& tensor) {
    format_of(tensor); // throws for numbers that no weights have
    return {&tensor, 0, rows_of(tensor)};
}

// The tensors of a Hugging Face folder, by the configuration, as a GGUF has them.
class Planner {
  public:
    Planner(const Checkpoint& checkpoint, const ModelConfig& config, DType wanted)
        : checkpoint_(checkpoint), c(config), wanted_(wanted) {}

    std::vector<Output> plan() {
        copy(Role::embedding, {c.vocab_size, c.dim});
        copy(Role::norm, {c.dim});
        copy(Role::head, {c.vocab_size, c.dim});
        for (layer_ = 0; layer_ < c.n_layers; ++layer_) layer();
        return std::move(outputs_);
    }

  private:
    const TensorView& need(Role role, const std::vector<uint64_t>& shape, uint32_t expert = 0) const {
        const std::string name = from_.name(role, layer_, expert);
        const TensorView* tensor = checkpoint_.find(name);
        if (tensor && tensor->shape == shape) return *tensor;
        throw Error({.what = tensor ? "a tensor has another shape than the config says"
                                    : "the checkpoint lacks a tensor",
                     .where = name,
                     .expected = shape_text(shape),
                     .got = tensor ? shape_text(tensor->shape) : "no such tensor",
                     .fix = "the checkpoint does not belong to this config, or its download is incomplete"});
    }
    void add(Role role, std::vector<uint64_t> shape, std::vector<Source> sources) {
        std::string name = to_.name(role, layer_);
        const DType dtype = exported_dtype(name, shape, wanted_);
        outputs_.push_back({std::move(name), std::move(shape), dtype, std::move(sources)});
    }
    void copy(Role role, const std::vector<uint64_t>& shape) { add(role, shape, {whole(need(role, shape))}); }

    void layer() {
        copy(Role::attn_norm, {c.dim});
        attention();
        copy(Role::ffn_norm, {c.dim});
        if (c.is_moe(layer_)) return experts();
        mlp(Role::gate, Role::up, Role::down, c.dense_dim);
    }

    void attention() {
        if (c.is_mla())
            latent_attention();
        else
            plain_attention();
        copy(Role::o, {c.dim, uint64_t{c.n_heads} * c.v_head_dim});
    }

    void plain_attention() {
        const uint64_t rows = uint64_t{c.n_heads} * c.qk_head_dim();
        rotary(Role::q, {rows, c.dim}, c.qk_head_dim(), 0);
        rotary(Role::k, {rows, c.dim}, c.qk_head_dim(), 0);
        copy(Role::v, {uint64_t{c.n_heads} * c.v_head_dim, c.dim});
    }

    void latent_attention() {
        const uint64_t q_rows = uint64_t{c.n_heads} * c.qk_head_dim();
        const Role q = c.q_lora_rank ? Role::q_b : Role::q;
        if (c.q_lora_rank) {
            copy(Role::q_a, {c.q_lora_rank, c.dim});
            copy(Role::q_a_norm, {c.q_lora_rank});
        }
        rotary(q, {q_rows, c.q_lora_rank ? c.q_lora_rank : c.dim}, c.qk_head_dim(), c.qk_nope_head_dim);
        rotary(Role::kv_a, {c.latent_dim(), c.dim}, c.latent_dim(), c.kv_lora_rank);
        copy(Role::kv_a_norm, {c.kv_lora_rank});
        split_kv_b();
    }

    // Rows whose heads end in a rotary part, from `rope` on: GGUF has its pairs beside each other.
    void rotary(Role role, const std::vector<uint64_t>& shape, uint32_t head, uint32_t rope) {
        Source source = whole(need(role, shape));
        if (!c.rope_interleaved) {
            const uint32_t half = (head - rope) / 2;
            for (uint32_t row = 0; row < shape[0]; ++row) {
                const uint32_t at = row % head, pair = at < rope ? 0 : (at - rope) / 2, odd = (at - rope) % 2;
                source.order.push_back(at < rope ? row : row - at + rope + pair + (odd ? half : 0));
            }
        }
        add(role, shape, {source});
    }

    // kv_b holds of each head the rows for keys, then those for values. Keys are wanted the other way round,
    // so that a query goes into the latent.
    void split_kv_b() {
        const uint64_t head = c.qk_nope_head_dim + c.v_head_dim;
        const TensorView& kv_b = need(Role::kv_b, {c.n_heads * head, c.kv_lora_rank});
        std::vector<Source> k, v;
        for (uint64_t h = 0; h < c.n_heads; ++h) {
            k.push_back({&kv_b, h * head, c.qk_nope_head_dim, true, {}});
            v.push_back({&kv_b, h * head + c.qk_nope_head_dim, c.v_head_dim});
        }
        add(Role::k_b, {c.n_heads, c.kv_lora_rank, c.qk_nope_head_dim}, std::move(k));
        add(Role::v_b, {c.n_heads, c.v_head_dim, c.kv_lora_rank}, std::move(v));
    }

    void mlp(Role gate, Role up, Role down, uint64_t width) {
        copy(gate, {width, c.dim});
        copy(up, {width, c.dim});
        copy(down, {c.dim, width});
    }

    void experts() {
        copy(Role::router, {c.n_routed_experts, c.dim});
        if (c.topk_method == TopkMethod::noaux_tc) copy(Role::router_bias, {c.n_routed_experts});
        bank(Role::expert_gate, {c.expert_dim, c.dim});
        bank(Role::expert_up, {c.expert_dim, c.dim});
        bank(Role::expert_down, {c.dim, c.expert_dim});
        if (c.n_shared_experts)
            mlp(Role::shared_gate, Role::shared_up, Role::shared_down,
                uint64_t{c.n_shared_experts} * c.expert_dim);
    }
    void bank(Role role, const std::vector<uint64_t>& shape) {
        std::vector<Source> experts;
        for (uint32_t i = 0; i < c.n_routed_experts; ++i) experts.push_back(whole(need(role, shape, i)));
        add(role, {c.n_routed_experts, shape[0], shape[1]}, std::move(experts));
    }

    const Checkpoint& checkpoint_;
    const ModelConfig& c;
    DType wanted_;
    Naming from_{}, to_{.gguf = true, .split_kv_b = true};
    uint32_t layer_ = 0;
    std::vector<Output> outputs_;
};

// The tensors of a GGUF, in the order of the file, in other formats.
std::vector<Output> plan_again(const Checkpoint& checkpoint, DType wanted) {
    std::vector<Output> outputs;
    for (const TensorView& tensor : checkpoint.tensors())
        outputs.push_back(
            {tensor.name, tensor.shape, exported_dtype(tensor.name, tensor.shape, wanted), {whole(tensor)}});
    return outputs;
}

// Writes the data of outputs. Rows that keep their format are copied.
class Exporter {
  public:
    Exporter(const Checkpoint& checkpoint, GgufWriter& writer,
             const std::function<void(uint64_t, uint64_t)>& progress)
        : checkpoint_(checkpoint), writer_(writer), progress_(progress) {}

    void write(const Output& output) {
        for (const Source& source : output.sources) {
            if (source.transposed)
                transposed(output, source);
            else
                rows(output, source);
            done_ += row_bytes(*source.tensor) * source.rows;
            if (progress_) progress_(done_, std::max(done_, checkpoint_.bytes()));
        }
        checkpoint_.drop_all();
    }

  private:
    static constexpr uint64_t CHUNK = 1 << 18; // values

    static uint64_t cols_of(const TensorView& tensor) {
        return tensor.shape.empty() ? 1 : tensor.shape.back();
    }
    static uint64_t row_bytes(const TensorView& tensor) {
        return cols_of(tensor) / block_of(tensor.dtype) * bytes_of(tensor.dtype);
    }

    void rows(const Output& output, const Source& source) {
        const TensorView& tensor = *source.tensor;
        const uint64_t cols = cols_of(tensor), bytes = row_bytes(tensor);
        const uint64_t step = std::max<uint64_t>(1, CHUNK / cols);
        for (uint64_t row = 0; row < source.rows; row += step) {
            const uint64_t count = std::min(step, source.rows - row);
            if (tensor.dtype == output.dtype && source.order.empty()) {
                writer_.write(tensor.data.subspan((source.first_row + row) * bytes, count * bytes));
                continue;
            }
            values_.resize(count * cols);
            for (uint64_t i = 0; i < count; ++i)
                read(tensor, source.first_row + (source.order.empty() ? row + i : source.order[row + i]),
                     std::span(values_).subspan(i * cols, cols));
            encode(output, tensor, values_);
        }
    }

    void transposed(const Output& output, const Source& source) {
        const uint64_t cols = cols_of(*source.tensor), rows = source.rows;
        values_.resize(rows * cols);
        turned_.resize(rows * cols);
        for (uint64_t i = 0; i < rows; ++i)
            read(*source.tensor, source.first_row + i, std::span(values_).subspan(i * cols, cols));
        for (uint64_t i = 0; i < rows; ++i)
            for (uint64_t k = 0; k < cols; ++k) turned_[k * rows + i] = values_[i * cols + k];
        encode(output, *source.tensor, turned_);
    }

    void read(const TensorView& tensor, uint64_t row, std::span<float> values) {
        const uint64_t bytes = row_bytes(tensor);
        decode_blocks(tensor.dtype, tensor.data.subspan(row * bytes, bytes), values);
        if (tensor.dtype != DType::f8_e4m3) return;
        const TensorView& scales = scales_of(tensor);
        const uint64_t across = scales.shape[1];
        for (uint64_t k = 0; k < values.size(); ++k) {
            float scale;
            std::memcpy(&scale, scales.data.data() + 4 * (row / FP8_BLOCK * across + k / FP8_BLOCK), 4);
            values[k] *= scale;
        }
    }

    const TensorView& scales_of(const TensorView& tensor) const {
        const std::string name = tensor.name + "_scale_inv";
        const TensorView* scales = checkpoint_.find(name);
        const auto squares = [](uint64_t size) { return (size + FP8_BLOCK - 1) / FP8_BLOCK; };
        const std::vector<uint64_t> shape = {squares(rows_of(tensor)), squares(cols_of(tensor))};
        if (scales && scales->shape == shape && scales->dtype == DType::f32) return *scales;
        throw Error({.what = "an FP8 tensor without its scales",
                     .where = tensor.file + ": " + name,
                     .expected = shape_text(shape) + " F32",
                     .got = scales ? shape_text(scales->shape) + " " + std::string(name_of(scales->dtype))
                                   : "no such tensor",
                     .fix = "fetch the rest of the checkpoint"});
    }

    void encode(const Output& output, const TensorView& tensor, std::span<const float> values) {
        const std::string where = tensor.file + ": " + printable(tensor.name);
        if (finite_values(values) != values.size())
            throw Error({.what = "a weight is not a finite number",
                         .where = where,
                         .expected = "numbers",
                         .fix = "fetch the checkpoint again"});
        const auto too_large = [](float value) { return std::abs(value) > 65504; };
        if (output.dtype == DType::f16 && std::any_of(values.begin(), values.end(), too_large))
            throw Error({.what = "a weight does not fit F16",
                         .where = where,
                         .expected = "at most 65504",
                         .fix = "choose another --format, such as bf16"});
        encoded_.resize(values.size() / block_of(output.dtype) * bytes_of(output.dtype));
        encode_blocks(output.dtype, values, encoded_);
        writer_.write(encoded_);
    }

    const Checkpoint& checkpoint_;
    GgufWriter& writer_;
    const std::function<void(uint64_t, uint64_t)>& progress_;
    uint64_t done_ = 0;
    std::vector<float> values_, turned_;
    std::vector<std::byte> encoded_;
};

bool plain(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

} // namespace

DType exported_dtype(std::string_view name, std::span<const uint64_t> shape, DType wanted) {
    if (shape.size() < 2 || name.ends_with("ffn_gate_inp.weight")) return DType::f32;
    if (plain(wanted)) return wanted;
    if (wanted == DType::mxfp4 && shape.size() < 3) wanted = DType::q8_0;
    if (wanted == DType::mxfp4 && !name.ends_with("_exps.weight")) wanted = DType::q8_0;
    if (name == "output.weight" && wanted != DType::q8_0) wanted = DType::q6_k;
    return block_fallback(wanted, shape.back());
}

void export_gguf(const ModelFiles& files, const std::filesystem::path& path, DType wanted,
                 const std::function<void(uint64_t, uint64_t)>& progress) {
    const ModelConfig config = model_config(files); // also checks what is copied
    GgufWriter writer(path);
    const std::vector<Output> outputs = files.gguf() ? plan_again(files.checkpoint, wanted)
                                                     : Planner(files.checkpoint, config, wanted).plan();
    if (files.gguf())
        copy_keys(*files.gguf(), wanted, writer);
    else
        write_keys(files, config, wanted, writer);
    for (const Output& output : outputs) writer.tensor(output.name, output.dtype, output.shape);
    Exporter exporter(files.checkpoint, writer, progress);
    for (const Output& output : outputs) exporter.write(output);
    writer.commit();
}

} // namespace fathom
