// The table of names; see tensors.h.
#include "model/tensors.h"

#include "base/error.h"

#include <fmt/format.h>

namespace fathom {

namespace {

struct Row {
    Role role;
    const char *huggingface, *gguf; // behind the layer's prefix from attn_norm on; null: the files have none
};
constexpr Row table[] = {
    // in the order of Role
    {Role::embedding, "model.embed_tokens.weight", "token_embd.weight"},
    {Role::head, "lm_head.weight", "output.weight"},
    {Role::norm, "model.norm.weight", "output_norm.weight"},
    {Role::attn_norm, "input_layernorm.weight", "attn_norm.weight"},
    {Role::ffn_norm, "post_attention_layernorm.weight", "ffn_norm.weight"},
    {Role::q, "self_attn.q_proj.weight", "attn_q.weight"},
    {Role::q_a, "self_attn.q_a_proj.weight", "attn_q_a.weight"},
    {Role::q_a_norm, "self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight"},
    {Role::q_b, "self_attn.q_b_proj.weight", "attn_q_b.weight"},
    {Role::kv_a, "self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight"},
    {Role::kv_a_norm, "self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight"},
    {Role::kv_b, "self_attn.kv_b_proj.weight", "attn_kv_b.weight"},
    {Role::k_b, nullptr, "attn_k_b.weight"},
    {Role::v_b, nullptr, "attn_v_b.weight"},
    {Role::k, "self_attn.k_proj.weight", "attn_k.weight"},
    {Role::v, "self_attn.v_proj.weight", "attn_v.weight"},
    {Role::o, "self_attn.o_proj.weight", "attn_output.weight"},
    {Role::router, "mlp.gate.weight", "ffn_gate_inp.weight"},
    {Role::router_bias, "mlp.gate.e_score_correction_bias", "exp_probs_b.bias"},
    {Role::gate, "mlp.gate_proj.weight", "ffn_gate.weight"},
    {Role::up, "mlp.up_proj.weight", "ffn_up.weight"},
    {Role::down, "mlp.down_proj.weight", "ffn_down.weight"},
    {Role::expert_gate, "mlp.experts.{}.gate_proj.weight", "ffn_gate_exps.weight"},
    {Role::expert_up, "mlp.experts.{}.up_proj.weight", "ffn_up_exps.weight"},
    {Role::expert_down, "mlp.experts.{}.down_proj.weight", "ffn_down_exps.weight"},
    {Role::expert_gate_up, nullptr, "ffn_gate_up_exps.weight"},
    {Role::shared_gate, "mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight"},
    {Role::shared_up, "mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight"},
    {Role::shared_down, "mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight"},
    {Role::mtp_embed_norm, "enorm.weight", "nextn.enorm.weight"},
    {Role::mtp_hidden_norm, "hnorm.weight", "nextn.hnorm.weight"},
    {Role::mtp_eh_proj, "eh_proj.weight", "nextn.eh_proj.weight"},
    {Role::mtp_head_norm, "shared_head.norm.weight", "nextn.shared_head_norm.weight"},
    {Role::mtp_embedding, "embed_tokens.weight", "nextn.embed_tokens.weight"},
    {Role::mtp_head, "shared_head.head.weight", "nextn.shared_head_head.weight"},
};

constexpr bool in_order() {
    for (size_t i = 0; i < std::size(table); ++i)
        if (table[i].role != static_cast<Role>(i)) return false;
    return std::size(table) == static_cast<size_t>(Role::mtp_head) + 1;
}
static_assert(in_order());

} // namespace

Naming Naming::of(const Checkpoint& checkpoint) {
    Naming naming;
    naming.gguf = checkpoint.find(table[0].gguf) != nullptr;
    if (!naming.gguf) return naming;
    naming.tied_head = !checkpoint.find(naming.name(Role::head));
    for (const TensorView& tensor : checkpoint.tensors()) {
        naming.split_kv_b = naming.split_kv_b || tensor.name.ends_with(".attn_k_b.weight");
        naming.merged_gate_up = naming.merged_gate_up || tensor.name.ends_with(".ffn_gate_up_exps.weight");
    }
    return naming;
}

std::string Naming::name(Role role, uint32_t layer, uint32_t expert) const {
    const Row& row = table[static_cast<size_t>(role)];
    const char* name = gguf ? row.gguf : row.huggingface;
    check(name != nullptr, "this family of files has a tensor for the role");
    if (role < Role::attn_norm) return name;
    return fmt::format(fmt::runtime(gguf ? "blk.{}." : "model.layers.{}."), layer) +
           fmt::format(fmt::runtime(name), expert);
}

} // namespace fathom
