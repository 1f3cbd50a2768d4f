// The layout of weights, layer by layer; see layout.h.
#include "model/layout.h"

#include "base/error.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom {

namespace {

constexpr std::string_view EXPERTS = "experts";

class Builder {
  public:
    Builder(const ModelConfig& config, const WeightSource& source, bool experts_on_host)
        : c(config), naming_(source.naming), source_(source), experts_on_host_(experts_on_host) {}
    Layout layout;

    void model(Weights& w) {
        matrix("embedding", w.embedding, c.vocab_size, {whole(add(Role::embedding, {c.vocab_size, c.dim}))});
        if (!naming_.tied_head)
            matrix("head", w.head, c.vocab_size, {whole(add(Role::head, {c.vocab_size, c.dim}))});
        vector(w.norm, add(Role::norm, {c.dim}));
        w.layers.resize(c.n_layers);
        for (uint32_t i = 0; i < c.n_layers; ++i) layer(w.layers[i], i, c.is_moe(i));
    }

    // The MTP layers' tensors are listed in any case, and have a place on request.
    void mtp(Weights& w, bool keep) {
        w.mtp.resize(keep ? c.n_mtp_layers : 0);
        const size_t first_tensor = layout.tensors.size(), first_target = layout.targets.size();
        for (uint32_t i = 0; i < c.n_mtp_layers; ++i) {
            MtpWeights unwanted, &m = keep ? w.mtp[i] : unwanted;
            layer_ = c.n_layers + i;
            vector(m.embed_norm, add(Role::mtp_embed_norm, {c.dim}));
            vector(m.hidden_norm, add(Role::mtp_hidden_norm, {c.dim}));
            vector(m.head_norm, add(Role::mtp_head_norm, {c.dim}));
            matrix("MTP", m.eh_proj, c.dim, {whole(add(Role::mtp_eh_proj, {c.dim, 2 * c.dim}))});
            for (const Role copy :
                 {Role::mtp_embedding, Role::mtp_head}) // of the model's own, which are used
                layout.tensors[add(copy, {c.vocab_size, c.dim})].optional = naming_.gguf;
            layer(m.layer, c.n_layers + i, c.n_routed_experts != 0);
        }
        for (size_t i = first_tensor; i < layout.tensors.size(); ++i) layout.tensors[i].mtp = true;
        if (!keep) layout.targets.resize(first_target);
    }

  private:
    // Lists a tensor of the present layer and returns its index.
    size_t add(Role role, std::vector<uint64_t> shape, uint32_t expert = 0) {
        const bool quantisable = shape.size() > 1 && role != Role::router;
        layout.tensors.push_back({.name = naming_.name(role, layer_, expert),
                                  .shape = std::move(shape),
                                  .quantisable = quantisable});
        return layout.tensors.size() - 1;
    }
    Piece whole(size_t tensor, uint32_t to_row = 0, uint32_t to_matrix = 0) const {
        const TensorSpec& spec = layout.tensors[tensor];
        uint64_t rows = 1;
        for (size_t i = 0; i + 1 < spec.shape.size(); ++i) rows *= spec.shape[i];
        return {tensor, 0, static_cast<uint32_t>(rows), 0, spec.cols(), to_matrix, to_row};
    }
    Format format_of(size_t tensor) const { return source_.format_of(layout.tensors[tensor]); }

    // The one format of all pieces; f32 where plain numbers of several kinds meet in a bank.
    Format common_format(const std::vector<Piece>& pieces) const {
        const Format first = format_of(pieces.front().tensor);
        bool same = true, plain = true;
        for (const Piece& piece : pieces) {
            const Format format = format_of(piece.tensor);
            same = same && format == first;
            plain = plain && format <= Format::bf16;
            if (!same && !plain)
                throw Error({.what = "the experts of a layer differ in format",
                             .where = layout.tensors[piece.tensor].name,
                             .expected = fmt::format("{}, as {}", name_of(first),
                                                     layout.tensors[pieces.front().tensor].name),
                             .got = std::string(name_of(format)),
                             .fix = "use a checkpoint with one format for the experts of a layer"});
        }
        return same ? first : Format::f32;
    }

    void matrix(std::string_view owner, Matrix& m, uint32_t rows, std::vector<Piece> pieces,
                uint32_t count = 1) {
        const Format format = common_format(pieces);
        const uint32_t cols = pieces.front().cols, bytes = row_bytes(format, cols);
        const bool on_host = experts_on_host_ && owner == EXPERTS;
        layout.targets.push_back({.owner = owner,
                                  .placement = on_host ? gpu::Placement::host : gpu::Placement::device,
                                  .shape = {{}, format, rows, cols, bytes, count, uint64_t{rows} * bytes},
                                  .matrix = &m,
                                  .pieces = std::move(pieces)});
    }
    void vector(View& v, size_t tensor) {
        const uint32_t n = layout.tensors[tensor].cols(), bytes = row_bytes(Format::f32, n);
        layout.targets.push_back({.owner = "norms",
                                  .shape = {{}, Format::f32, 1, n, bytes, 1, bytes},
                                  .vector = &v,
                                  .pieces = {whole(tensor)}});
    }

    void layer(LayerWeights& w, uint32_t index, bool moe) {
        layer_ = index;
        w.moe = moe;
        vector(w.attn_norm, add(Role::attn_norm, {c.dim}));
        vector(w.ffn_norm, add(Role::ffn_norm, {c.dim}));
        attention(w);
        if (moe)
            experts(w);
        else
            mlp("dense MLP", w.mlp, Role::gate, Role::up, Role::down, c.dense_dim);
    }

    void attention(LayerWeights& w) {
        if (c.is_mla())
            latent_attention(w);
        else
            plain_attention(w);
        matrix("attention", w.o, c.dim, {whole(add(Role::o, {c.dim, c.n_heads * c.v_head_dim}))});
    }

    void plain_attention(LayerWeights& w) {
        const uint32_t keys = c.n_heads * c.qk_head_dim(), values = c.n_heads * c.v_head_dim;
        const size_t q = add(Role::q, {keys, c.dim}), k = add(Role::k, {keys, c.dim}),
                     v = add(Role::v, {values, c.dim});
        std::vector<Piece> stacked{whole(q)}; // k behind q, v behind both, as far as the formats allow it
        if (format_of(k) == format_of(q)) {
            stacked.push_back(whole(k, keys));
            if (format_of(v) == format_of(q)) stacked.push_back(whole(v, 2 * keys));
        }
        const size_t n = stacked.size();
        matrix("attention", w.q_kv_a, keys * std::min<size_t>(n, 2) + (n == 3 ? values : 0),
               std::move(stacked));
        if (n < 2) matrix("attention", w.k, keys, {whole(k)});
        if (n < 3) matrix("attention", w.v, values, {whole(v)});
    }

    void latent_attention(LayerWeights& w) {
        const uint32_t q_rows = c.n_heads * c.qk_head_dim(), first = c.q_lora_rank ? c.q_lora_rank : q_rows;
        const size_t q = add(c.q_lora_rank ? Role::q_a : Role::q, {first, c.dim});
        const size_t kv_a = add(Role::kv_a, {c.latent_dim(), c.dim});
        if (format_of(q) == format_of(kv_a)) {
            matrix("attention", w.q_kv_a, first + c.latent_dim(), {whole(q), whole(kv_a, first)});
        } else {
            matrix("attention", w.q_kv_a, first, {whole(q)});
            matrix("attention", w.kv_a, c.latent_dim(), {whole(kv_a)});
        }
        if (c.q_lora_rank) {
            vector(w.q_a_norm, add(Role::q_a_norm, {c.q_lora_rank}));
            matrix("attention", w.q_b, q_rows, {whole(add(Role::q_b, {q_rows, c.q_lora_rank}))});
        }
        vector(w.kv_a_norm, add(Role::kv_a_norm, {c.kv_lora_rank}));
        if (naming_.split_kv_b) {
            matrix("attention", w.kv_b.k, c.n_heads * c.kv_lora_rank,
                   {whole(add(Role::k_b, {c.n_heads, c.kv_lora_rank, c.qk_nope_head_dim}))});
            matrix("attention", w.kv_b.v, c.n_heads * c.v_head_dim,
                   {whole(add(Role::v_b, {c.n_heads, c.v_head_dim, c.kv_lora_rank}))});
        } else {
            const uint32_t kv_rows = c.n_heads * (c.qk_nope_head_dim + c.v_head_dim);
            matrix("attention", w.kv_b.whole, kv_rows, {whole(add(Role::kv_b, {kv_rows, c.kv_lora_rank}))});
        }
    }

    void mlp(std::string_view owner, Mlp& m, Role gate, Role up, Role down, uint32_t width) {
        matrix(owner, m.gate, width, {whole(add(gate, {width, c.dim}))});
        matrix(owner, m.up, width, {whole(add(up, {width, c.dim}))});
        matrix(owner, m.down, c.dim, {whole(add(down, {c.dim, width}))});
    }

    void experts(LayerWeights& w) {
        matrix("router", w.router, c.n_routed_experts,
               {whole(add(Role::router, {c.n_routed_experts, c.dim}))});
        if (c.topk_method == TopkMethod::noaux_tc)
            vector(w.router_bias, add(Role::router_bias, {c.n_routed_experts}));
        std::vector<Piece> gate, up, down;
        routed_experts(gate, up, down);
        uint32_t count = c.n_routed_experts;
        const uint32_t width = c.n_shared_experts * c.expert_dim;
        if (c.n_shared_experts != 0) {
            const size_t shared_gate = add(Role::shared_gate, {width, c.dim}),
                         shared_up = add(Role::shared_up, {width, c.dim}),
                         shared_down = add(Role::shared_down, {c.dim, width});
            const bool join =
                !experts_on_host_ && format_of(gate.front().tensor) == format_of(shared_gate) &&
                format_of(up.front().tensor) == format_of(shared_up) &&
                format_of(down.front().tensor) == format_of(shared_down) &&
                (c.n_shared_experts == 1 || c.expert_dim % block_of(format_of(shared_down)) == 0);
            if (join) { // one wide MLP in the file: cut into experts of the common width
                for (uint32_t s = 0; s < c.n_shared_experts; ++s, ++count) {
                    const uint32_t from = s * c.expert_dim;
                    gate.push_back({shared_gate, from, c.expert_dim, 0, c.dim, count, 0});
                    up.push_back({shared_up, from, c.expert_dim, 0, c.dim, count, 0});
                    down.push_back({shared_down, 0, c.dim, from, c.expert_dim, count, 0});
                }
            } else {
                matrix("shared experts", w.shared.gate, width, {whole(shared_gate)});
                matrix("shared experts", w.shared.up, width, {whole(shared_up)});
                matrix("shared experts", w.shared.down, c.dim, {whole(shared_down)});
            }
        }
        matrix(EXPERTS, w.mlp.gate, c.expert_dim, std::move(gate), count);
        matrix(EXPERTS, w.mlp.up, c.expert_dim, std::move(up), count);
        matrix(EXPERTS, w.mlp.down, c.dim, std::move(down), count);
    }

    void routed_experts(std::vector<Piece>& gate, std::vector<Piece>& up, std::vector<Piece>& down) {
        const uint32_t n = c.n_routed_experts, width = c.expert_dim;
        if (!naming_.gguf) {
            for (uint32_t e = 0; e < n; ++e) {
                gate.push_back(whole(add(Role::expert_gate, {width, c.dim}, e), 0, e));
                up.push_back(whole(add(Role::expert_up, {width, c.dim}, e), 0, e));
                down.push_back(whole(add(Role::expert_down, {c.dim, width}, e), 0, e));
            }
            return;
        }
        if (naming_.merged_gate_up) {
            const size_t both = add(Role::expert_gate_up, {n, 2 * width, c.dim});
            for (uint32_t e = 0; e < n; ++e) {
                gate.push_back({both, 2 * e * width, width, 0, c.dim, e, 0});
                up.push_back({both, (2 * e + 1) * width, width, 0, c.dim, e, 0});
            }
        } else {
            gate.push_back(whole(add(Role::expert_gate, {n, width, c.dim})));
            up.push_back(whole(add(Role::expert_up, {n, width, c.dim})));
        }
        down.push_back(whole(add(Role::expert_down, {n, c.dim, width})));
    }

    const ModelConfig& c;
    const Naming& naming_;
    const WeightSource& source_;
    const bool experts_on_host_;
    uint32_t layer_ = 0;
};

} // namespace

Layout layout_of(const ModelConfig& config, const WeightSource& source, const LayoutOptions& options,
                 Weights& weights) {
    Builder builder(config, source, options.experts_on_host);
    builder.model(weights);
    builder.mtp(weights, options.keep_mtp);
    builder.layout.tied_head = source.naming.tied_head;
    return std::move(builder.layout);
}

void allocate_weights(Layout& layout, Weights& weights, Memory& memory) {
    std::vector<std::string_view> owners;
    for (const Target& t : layout.targets)
        if (std::find(owners.begin(), owners.end(), t.owner) == owners.end()) owners.push_back(t.owner);
    for (const std::string_view owner : owners) {
        std::vector<Target*> targets;
        std::vector<uint64_t> sizes;
        for (Target& t : layout.targets)
            if (t.owner == owner) {
                targets.push_back(&t);
                sizes.push_back(t.bytes());
            }
        const auto views =
            memory.allocate(fmt::format("weights: {}", owner), targets.front()->placement, sizes, false);
        for (size_t i = 0; i < targets.size(); ++i) {
            Target& t = *targets[i];
            t.shape.view = views[i];
            if (t.matrix)
                *t.matrix = t.shape;
            else
                *t.vector = {t.shape.view.address, uint64_t{t.shape.cols} * 4};
        }
    }
    if (layout.tied_head) weights.head = weights.embedding;
}

} // namespace fathom
