// Counting; see figures.h.
#include "cli/figures.h"

#include "base/error.h"
#include "base/numbers.h"
#include "model/synthetic.h"

#include <charconv>

namespace fathom::cli {

std::string_view name_of(Kind kind) {
    static constexpr std::array<std::string_view, N_KINDS> names = {
        "embedding", "attention", "dense MLP", "routed experts", "shared experts", "router",
        "norms",     "head",      "MTP",       "other"};
    return names[static_cast<size_t>(kind)];
}

namespace {

struct Shape { // of one layer, in 64 bits
    uint64_t dim, heads, q_rank, kv_rank, nope, rope, value;
    explicit Shape(const ModelConfig& c)
        : dim(c.dim), heads(c.n_heads), q_rank(c.q_lora_rank), kv_rank(c.kv_lora_rank),
          nope(c.qk_nope_head_dim), rope(c.qk_rope_head_dim), value(c.v_head_dim) {}
    uint64_t attention() const {
        if (kv_rank == 0) return heads * dim * (2 * (nope + rope) + 2 * value); // q, k, v and o
        const uint64_t query = heads * (nope + rope) * (q_rank ? q_rank : dim) + (q_rank ? dim * q_rank : 0);
        return query + dim * (kv_rank + rope) + kv_rank * heads * (nope + value) + heads * value * dim;
    }
    uint64_t norms() const {
        return 2 * dim + q_rank + kv_rank;
    } // before attention and MLP; of the two ranks
    uint64_t mlp(uint64_t width) const { return 3 * dim * width; }
};

struct MoeLayer {
    uint64_t routed, routed_active, shared, router;
    MoeLayer(const ModelConfig& c, const Shape& shape)
        : routed(c.n_routed_experts * shape.mlp(c.expert_dim)),
          routed_active(c.n_active_experts * shape.mlp(c.expert_dim)),
          shared(shape.mlp(uint64_t{c.n_shared_experts} * c.expert_dim)),
          router(uint64_t{c.n_routed_experts} * (c.dim + (c.topk_method == TopkMethod::noaux_tc ? 1 : 0))) {}
    uint64_t total() const { return routed + shared + router; }
};

} // namespace

ParameterFigures parameter_figures(const ModelConfig& config) {
    ParameterFigures out;
    const auto add = [&out](Kind kind, uint64_t parameters, uint64_t active) {
        out.kinds[static_cast<size_t>(kind)].parameters += parameters;
        out.kinds[static_cast<size_t>(kind)].active += active;
    };
    const Shape shape(config);
    const MoeLayer moe(config, shape);
    const uint64_t table = uint64_t{config.vocab_size} * config.dim;
    add(Kind::embedding, table, table);
    add(Kind::head, table, table);
    add(Kind::norms, config.dim, config.dim); // before the head
    for (uint32_t layer = 0; layer < config.n_layers; ++layer) {
        add(Kind::attention, shape.attention(), shape.attention());
        add(Kind::norms, shape.norms(), shape.norms());
        if (config.is_moe(layer)) {
            add(Kind::routed_experts, moe.routed, moe.routed_active);
            add(Kind::shared_experts, moe.shared, moe.shared);
            add(Kind::router, moe.router, moe.router);
        } else {
            add(Kind::dense_mlp, shape.mlp(config.dense_dim), shape.mlp(config.dense_dim));
        }
    }
    for (const KindFigures& kind : out.kinds) {
        out.total += kind.parameters;
        out.active += kind.active;
    }
    // An MTP layer is a MoE layer, a projection of two vectors to one, three norms and copies of embedding
    // and head.
    const uint64_t mtp =
        shape.attention() + shape.norms() + moe.total() + 2 * shape.dim * shape.dim + 3 * shape.dim;
    add(Kind::mtp, config.n_mtp_layers * (mtp + 2 * table), 0);
    return out;
}

namespace {

// "blk.3.attn_q.weight" and the like, as GGUF has them.
Kind kind_of_block(std::string_view name, uint32_t layer, const ModelConfig& config) {
    const std::string_view part = name.substr(name.find('.', 4) + 1);
    const auto has = [part](std::string_view text) { return part.find(text) != part.npos; };
    if (layer >= config.n_layers) return Kind::mtp;
    if (has("_norm.")) return Kind::norms;
    if (part.starts_with("attn_")) return Kind::attention;
    if (part.starts_with("ffn_gate_inp.") || part.starts_with("exp_probs_b.")) return Kind::router;
    if (has("_shexp.")) return Kind::shared_experts;
    if (has("_exps.")) return Kind::routed_experts;
    return part.starts_with("ffn_") ? Kind::dense_mlp : Kind::other;
}

} // namespace

Kind kind_of(std::string_view name, const ModelConfig& config) {
    const auto has = [name](std::string_view part) { return name.find(part) != std::string_view::npos; };
    for (const std::string_view prefix : {"model.layers.", "blk."}) {
        if (!name.starts_with(prefix)) continue;
        uint32_t layer = 0;
        const auto parsed = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
        if (parsed.ec != std::errc{}) return Kind::other;
        if (prefix == "blk.") return kind_of_block(name, layer, config);
        if (layer >= config.n_layers) return Kind::mtp;
    }
    if (name.starts_with("model.embed_tokens.") || name.starts_with("token_embd.")) return Kind::embedding;
    if (name.starts_with("lm_head.") || name.starts_with("output.")) return Kind::head;
    if (has("norm.")) return Kind::norms; // before .self_attn.: q_a_layernorm and kv_a_layernorm are norms
    if (has(".self_attn.")) return Kind::attention;
    if (has(".mlp.shared_experts.")) return Kind::shared_experts;
    if (has(".mlp.experts.")) return Kind::routed_experts;
    if (has(".mlp.gate.")) return Kind::router;
    if (has(".mlp.")) return Kind::dense_mlp;
    return Kind::other;
}

ByteFigures byte_figures(std::span<const TensorView> tensors, const ModelConfig& config) {
    ByteFigures out;
    for (const TensorView& tensor : tensors) {
        const auto kind = static_cast<size_t>(kind_of(tensor.name, config));
        out.bytes[kind] += tensor.data.size();
        ++out.tensors[kind];
        out.total += tensor.data.size();
    }
    return out;
}

CacheFigures cache_figures(const ModelConfig& config) {
    const uint64_t layers = config.n_layers;
    return {.own = layers * config.cache_dim(),
            .plain = layers * config.n_heads * (config.qk_head_dim() + uint64_t{config.v_head_dim})};
}

uint64_t checkpoint_bytes(const ModelConfig& config, DType dtype) {
    Weights unused;
    const Layout layout = layout_of(config, source_of({.dtype = dtype}), {}, unused);
    uint64_t total = 0;
    for (const TensorSpec& spec : layout.tensors) {
        if (spec.mtp) continue;
        const uint64_t cols = spec.cols(), rows = spec.shape.size() == 1 ? 1 : spec.shape.front();
        const DType own = dtype_in(spec, dtype);
        total += rows * (cols / block_of(own)) * bytes_of(own);
        if (own == DType::f8_e4m3) total += 4 * div_up(rows, 128ull) * div_up(cols, 128ull);
    }
    return total;
}

} // namespace fathom::cli
