// The tensor table, and loading by it; see weights.h. Names and shapes: the published checkpoints of the V2
// and V3 classes (Hugging Face layout).
#include "model/weights.h"

#include "base/error.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unordered_set>

namespace fathom {

namespace {

// Rows [first_row, first_row + rows) and columns [first_col, first_col + cols) of a tensor, put at `to_row`
// of matrix `to_matrix` of a bank.
struct Piece {
    std::string tensor;
    uint32_t first_row, rows, first_col, cols;
    uint32_t to_matrix, to_row;
};

// A matrix (or bank, or vector: one row of f32) in device memory and the pieces of tensors that fill it.
struct Target {
    std::string_view owner;
    Matrix* matrix;
    View* vector; // set instead of matrix for norms and biases
    uint32_t rows, cols, count;
    std::vector<Piece> pieces;
};

std::string layer_prefix(uint32_t layer) { return fmt::format("model.layers.{}.", layer); }

void list_layer(const ModelConfig& c, uint32_t layer, bool moe, std::vector<TensorSpec>& table) {
    const std::string p = layer_prefix(layer), attn = p + "self_attn.", mlp = p + "mlp.";
    const bool is_mtp = layer >= c.n_layers;
    const auto add = [&](std::string name, std::vector<uint64_t> shape, std::string_view kind) {
        table.push_back({std::move(name), std::move(shape), is_mtp ? "MTP" : kind});
    };
    add(p + "input_layernorm.weight", {c.dim}, "norms");
    add(p + "post_attention_layernorm.weight", {c.dim}, "norms");
    const uint64_t q_rows = uint64_t{c.n_heads} * c.qk_head_dim();
    if (c.q_lora_rank) {
        add(attn + "q_a_proj.weight", {c.q_lora_rank, c.dim}, "attention");
        add(attn + "q_a_layernorm.weight", {c.q_lora_rank}, "norms");
        add(attn + "q_b_proj.weight", {q_rows, c.q_lora_rank}, "attention");
    } else {
        add(attn + "q_proj.weight", {q_rows, c.dim}, "attention");
    }
    add(attn + "kv_a_proj_with_mqa.weight", {c.latent_dim(), c.dim}, "attention");
    add(attn + "kv_a_layernorm.weight", {c.kv_lora_rank}, "norms");
    add(attn + "kv_b_proj.weight",
        {uint64_t{c.n_heads} * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank}, "attention");
    add(attn + "o_proj.weight", {c.dim, uint64_t{c.n_heads} * c.v_head_dim}, "attention");
    const auto add_mlp = [&](const std::string& prefix, uint64_t width, std::string_view kind) {
        add(prefix + "gate_proj.weight", {width, c.dim}, kind);
        add(prefix + "up_proj.weight", {width, c.dim}, kind);
        add(prefix + "down_proj.weight", {c.dim, width}, kind);
    };
    if (!moe) return add_mlp(mlp, c.dense_dim, "dense MLP");
    add(mlp + "gate.weight", {c.n_routed_experts, c.dim}, "router");
    if (c.topk_method == TopkMethod::noaux_tc)
        add(mlp + "gate.e_score_correction_bias", {c.n_routed_experts}, "router");
    for (uint32_t e = 0; e < c.n_routed_experts; ++e)
        add_mlp(fmt::format("{}experts.{}.", mlp, e), c.expert_dim, "routed experts");
    if (c.n_shared_experts)
        add_mlp(mlp + "shared_experts.", uint64_t{c.n_shared_experts} * c.expert_dim, "shared experts");
}

// Pieces of the device matrices. Kept apart from the table above: that one says what a checkpoint holds, this
// one where it goes.
class Layout {
  public:
    explicit Layout(const ModelConfig& config) : c(config) {}
    std::vector<Target> targets;

    void model(Weights& w) {
        matrix("embedding", w.embedding, c.vocab_size, c.dim,
               {whole("model.embed_tokens.weight", c.vocab_size, c.dim)});
        matrix("head", w.head, c.vocab_size, c.dim, {whole("lm_head.weight", c.vocab_size, c.dim)});
        vector(w.norm, "model.norm.weight", c.dim);
        w.layers.resize(c.n_layers);
        for (uint32_t i = 0; i < c.n_layers; ++i) layer(w.layers[i], i, c.is_moe(i));
    }
    void mtp(Weights& w) {
        w.mtp.resize(c.n_mtp_layers);
        for (uint32_t i = 0; i < c.n_mtp_layers; ++i) {
            const std::string p = layer_prefix(c.n_layers + i);
            vector(w.mtp[i].embed_norm, p + "enorm.weight", c.dim);
            vector(w.mtp[i].hidden_norm, p + "hnorm.weight", c.dim);
            vector(w.mtp[i].head_norm, p + "shared_head.norm.weight", c.dim);
            matrix("MTP", w.mtp[i].eh_proj, c.dim, 2 * c.dim,
                   {whole(p + "eh_proj.weight", c.dim, 2 * c.dim)});
            layer(w.mtp[i].layer, c.n_layers + i, c.n_routed_experts != 0);
        }
    }

  private:
    const ModelConfig& c;

    static Piece whole(std::string tensor, uint32_t rows, uint32_t cols, uint32_t to_row = 0,
                       uint32_t to_matrix = 0) {
        return {std::move(tensor), 0, rows, 0, cols, to_matrix, to_row};
    }
    void matrix(std::string_view owner, Matrix& m, uint32_t rows, uint32_t cols, std::vector<Piece> pieces,
                uint32_t count = 1) {
        targets.push_back({owner, &m, nullptr, rows, cols, count, std::move(pieces)});
    }
    void vector(View& v, const std::string& tensor, uint32_t n) {
        targets.push_back({"norms", nullptr, &v, 1, n, 1, {whole(tensor, 1, n)}});
    }

    void layer(LayerWeights& w, uint32_t index, bool moe) {
        const std::string p = layer_prefix(index), attn = p + "self_attn.";
        w.moe = moe;
        vector(w.attn_norm, p + "input_layernorm.weight", c.dim);
        vector(w.ffn_norm, p + "post_attention_layernorm.weight", c.dim);
        vector(w.kv_a_norm, attn + "kv_a_layernorm.weight", c.kv_lora_rank);
        const uint32_t q_rows = c.n_heads * c.qk_head_dim(), first = c.q_lora_rank ? c.q_lora_rank : q_rows;
        matrix("attention", w.q_kv_a, first + c.latent_dim(), c.dim,
               {whole(attn + (c.q_lora_rank ? "q_a_proj.weight" : "q_proj.weight"), first, c.dim),
                whole(attn + "kv_a_proj_with_mqa.weight", c.latent_dim(), c.dim, first)});
        if (c.q_lora_rank) {
            vector(w.q_a_norm, attn + "q_a_layernorm.weight", c.q_lora_rank);
            matrix("attention", w.q_b, q_rows, c.q_lora_rank,
                   {whole(attn + "q_b_proj.weight", q_rows, c.q_lora_rank)});
        }
        const uint32_t kv_rows = c.n_heads * (c.qk_nope_head_dim + c.v_head_dim),
                       value_cols = c.n_heads * c.v_head_dim;
        matrix("attention", w.kv_b, kv_rows, c.kv_lora_rank,
               {whole(attn + "kv_b_proj.weight", kv_rows, c.kv_lora_rank)});
        matrix("attention", w.o, c.dim, value_cols, {whole(attn + "o_proj.weight", c.dim, value_cols)});
        if (moe)
            experts(w, p + "mlp.");
        else
            mlp(w, p + "mlp.", c.dense_dim);
    }

    void mlp(LayerWeights& w, const std::string& p, uint32_t width) {
        matrix(
            "dense MLP", w.gate_up, 2 * width, c.dim,
            {whole(p + "gate_proj.weight", width, c.dim), whole(p + "up_proj.weight", width, c.dim, width)});
        matrix("dense MLP", w.down, c.dim, width, {whole(p + "down_proj.weight", c.dim, width)});
    }

    void experts(LayerWeights& w, const std::string& p) {
        const uint32_t n = c.n_routed_experts, width = c.expert_dim;
        matrix("router", w.router, n, c.dim, {whole(p + "gate.weight", n, c.dim)});
        if (c.topk_method == TopkMethod::noaux_tc)
            vector(w.router_bias, p + "gate.e_score_correction_bias", n);
        std::vector<Piece> up, down;
        for (uint32_t e = 0; e < n; ++e) {
            const std::string expert = fmt::format("{}experts.{}.", p, e);
            up.push_back(whole(expert + "gate_proj.weight", width, c.dim, 0, e));
            up.push_back(whole(expert + "up_proj.weight", width, c.dim, width, e));
            down.push_back(whole(expert + "down_proj.weight", c.dim, width, 0, e));
        }
        for (uint32_t s = 0; s < c.n_shared_experts;
             ++s) { // one wide MLP in the file: cut into experts of the common width
            const std::string shared = p + "shared_experts.";
            up.push_back({shared + "gate_proj.weight", s * width, width, 0, c.dim, n + s, 0});
            up.push_back({shared + "up_proj.weight", s * width, width, 0, c.dim, n + s, width});
            down.push_back({shared + "down_proj.weight", 0, c.dim, s * width, width, n + s, 0});
        }
        matrix("experts", w.gate_up, 2 * width, c.dim, std::move(up), n + c.n_shared_experts);
        matrix("experts", w.down, c.dim, width, std::move(down), n + c.n_shared_experts);
    }
};

// Old checkpoints of the family carry this buffer, which the config determines; it is the one extra that is
// accepted.
bool ignorable(std::string_view name) { return name.ends_with("rotary_emb.inv_freq"); }

void check_tensors(const ModelConfig& config, const Checkpoint& checkpoint, bool keep_mtp) {
    std::unordered_set<std::string_view> known;
    const std::vector<TensorSpec> table = tensor_table(config);
    const bool has_mtp = std::any_of(table.begin(), table.end(), [&](const TensorSpec& spec) {
        return spec.kind == "MTP" &&
               checkpoint.find(spec.name); // exporters drop the MTP layers all or not at all
    });
    const std::string fix =
        "the checkpoint does not belong to this config.json, or its download is incomplete";
    for (const TensorSpec& spec : table) {
        known.insert(spec.name);
        if (spec.kind == "MTP" && !has_mtp && !keep_mtp) continue;
        const TensorView* tensor = checkpoint.find(spec.name);
        if (!tensor)
            throw Error({.what = "the checkpoint lacks a tensor",
                         .where = spec.name,
                         .expected = shape_text(spec.shape),
                         .got = "no such tensor",
                         .fix = fix});
        if (tensor->shape != spec.shape)
            throw Error({.what = "a tensor has another shape than the config says",
                         .where = tensor->file + ": " + spec.name,
                         .expected = shape_text(spec.shape),
                         .got = shape_text(tensor->shape),
                         .fix = fix});
        format_of(*tensor);
    }
    for (const TensorView& tensor : checkpoint.tensors())
        if (!known.contains(tensor.name) && !ignorable(tensor.name))
            throw Error({.what = "the checkpoint has a tensor that this model has no place for",
                         .where = tensor.file + ": " + printable(tensor.name),
                         .expected = "only tensors of the config",
                         .got = shape_text(tensor.shape),
                         .fix = fix});
}

// The format of a target: its tensors' common one, f32 where they differ or for vectors.
Format choose_format(const Target& target, const Checkpoint& checkpoint) {
    if (target.vector) return Format::f32;
    const Format first = format_of(*checkpoint.find(target.pieces.front().tensor));
    for (const Piece& piece : target.pieces)
        if (format_of(*checkpoint.find(piece.tensor)) != first) return Format::f32;
    return first;
}

class Uploader {
  public:
    Uploader(const Checkpoint& checkpoint, Executor& executor,
             const std::function<void(uint64_t, uint64_t)>& progress, uint64_t total)
        : checkpoint_(checkpoint), executor_(executor), progress_(progress), total_(total) {}

    void upload(const Matrix& m, const Piece& piece) {
        const TensorView& tensor = *checkpoint_.find(piece.tensor);
        const Format from = format_of(tensor);
        const uint64_t tensor_cols = tensor.shape.back(), from_row = tensor_cols * bytes_of(from);
        const std::byte* source =
            tensor.data.data() + piece.first_row * from_row + piece.first_col * bytes_of(from);
        const uint64_t offset = piece.to_matrix * m.matrix_bytes + uint64_t{piece.to_row} * m.row_bytes;
        const uint64_t rows_at_once = std::max<uint64_t>(1, (4u << 20) / m.row_bytes);
        const bool as_it_is = from == m.format && piece.cols == tensor_cols && from_row == m.row_bytes;
        for (uint64_t row = 0; row < piece.rows; row += rows_at_once) {
            const uint64_t rows = std::min<uint64_t>(rows_at_once, piece.rows - row);
            const std::span<const std::byte> bytes =
                as_it_is ? std::span(source + row * from_row, rows * from_row)
                         : repack(source + row * from_row, from, from_row, rows, piece.cols, m);
            executor_.upload(m.view, offset + row * m.row_bytes, bytes);
            checkpoint_.drop(
                std::span(source + row * from_row, (rows - 1) * from_row + piece.cols * bytes_of(from)));
            done_ += rows * piece.cols * bytes_of(from);
            if (progress_) progress_(done_, total_);
        }
    }

  private:
    std::span<const std::byte> repack(const std::byte* source, Format from, uint64_t from_row, uint64_t rows,
                                      uint32_t cols, const Matrix& m) {
        buffer_.assign(rows * m.row_bytes, std::byte{0});
        for (uint64_t r = 0; r < rows; ++r) {
            std::byte* to = buffer_.data() + r * m.row_bytes;
            if (from == m.format)
                std::memcpy(to, source + r * from_row, uint64_t{cols} * bytes_of(from));
            else
                for (uint32_t k = 0; k < cols; ++k)
                    store_weight(m.format, to, k, weight_at(from, source + r * from_row, k));
        }
        return buffer_;
    }

    const Checkpoint& checkpoint_;
    Executor& executor_;
    const std::function<void(uint64_t, uint64_t)>& progress_;
    uint64_t done_ = 0, total_;
    std::vector<std::byte> buffer_;
};

// Memory for all targets, owner by owner.
std::vector<Matrix> allocate(const std::vector<Target>& targets, const Checkpoint& checkpoint,
                             Executor& executor) {
    std::vector<Matrix> matrices;
    for (const Target& t : targets) {
        const Format format = choose_format(t, checkpoint);
        const uint32_t bytes = row_bytes(format, t.cols);
        matrices.push_back({{}, format, t.rows, t.cols, bytes, t.count, uint64_t{t.rows} * bytes});
    }
    std::vector<std::string_view> owners;
    for (const Target& t : targets)
        if (std::find(owners.begin(), owners.end(), t.owner) == owners.end()) owners.push_back(t.owner);
    for (const std::string_view owner : owners) {
        std::vector<uint64_t> sizes;
        for (size_t i = 0; i < targets.size(); ++i)
            if (targets[i].owner == owner) sizes.push_back(matrices[i].matrix_bytes * matrices[i].count);
        const auto views =
            executor.allocate(fmt::format("weights: {}", owner), gpu::Placement::device, sizes, false);
        size_t next = 0;
        for (size_t i = 0; i < targets.size(); ++i)
            if (targets[i].owner == owner) matrices[i].view = views[next++];
    }
    return matrices;
}

} // namespace

std::vector<TensorSpec> tensor_table(const ModelConfig& c) {
    std::vector<TensorSpec> table;
    table.push_back({"model.embed_tokens.weight", {c.vocab_size, c.dim}, "embedding"});
    table.push_back({"lm_head.weight", {c.vocab_size, c.dim}, "head"});
    table.push_back({"model.norm.weight", {c.dim}, "norms"});
    for (uint32_t i = 0; i < c.n_layers; ++i) list_layer(c, i, c.is_moe(i), table);
    for (uint32_t i = c.n_layers; i < c.n_layers + c.n_mtp_layers; ++i) {
        const std::string p = layer_prefix(i);
        list_layer(c, i, c.n_routed_experts != 0, table);
        table.push_back({p + "enorm.weight", {c.dim}, "MTP"});
        table.push_back({p + "hnorm.weight", {c.dim}, "MTP"});
        table.push_back({p + "eh_proj.weight", {c.dim, 2ull * c.dim}, "MTP"});
        table.push_back({p + "shared_head.norm.weight", {c.dim}, "MTP"});
        table.push_back(
            {p + "embed_tokens.weight", {c.vocab_size, c.dim}, "MTP"}); // copies of the model's own,
        table.push_back(
            {p + "shared_head.head.weight", {c.vocab_size, c.dim}, "MTP"}); // which are used instead
    }
    return table;
}

Weights load_weights(const ModelConfig& config, const Checkpoint& checkpoint, bool keep_mtp,
                     Executor& executor, const std::function<void(uint64_t, uint64_t)>& progress) {
    check_tensors(config, checkpoint, keep_mtp);
    Weights weights;
    Layout layout(config);
    layout.model(weights);
    if (keep_mtp) layout.mtp(weights);
    const std::vector<Matrix> matrices = allocate(layout.targets, checkpoint, executor);
    uint64_t total = 0;
    for (const Target& target : layout.targets)
        for (const Piece& piece : target.pieces)
            total += uint64_t{piece.rows} * piece.cols * bytes_of(format_of(*checkpoint.find(piece.tensor)));
    Uploader uploader(checkpoint, executor, progress, total);
    for (size_t i = 0; i < layout.targets.size(); ++i) {
        const Target& target = layout.targets[i];
        for (size_t k = 0; k < target.pieces.size(); ++k) {
            uploader.upload(matrices[i], target.pieces[k]);
            if (k % 256 == 255) checkpoint.drop_all(); // small tensors leave neighbours of theirs mapped
        }
        checkpoint.drop_all();
        if (target.matrix)
            *target.matrix = matrices[i];
        else
            *target.vector = {matrices[i].view.address, uint64_t{target.cols} * 4};
    }
    executor.flush();
    return weights;
}

} // namespace fathom
