// The weights of a model in device memory. They keep the formats of their checkpoint; norms and biases become
// f32. What lies where is decided in layout.h.
#pragma once

#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "model/ops/ops.h"

#include <functional>
#include <optional>

namespace fathom {

struct LayerWeights {
    View attn_norm, ffn_norm; // (dim)
    Matrix q_kv_a; // q or q_a (n_heads * qk_head_dim or q_lora_rank), then kv_a (kv_lora_rank + rope); plain:
                   // q, then k and v
    Matrix kv_a;   // kv_a alone, where it could not be stacked; else without rows
    View q_a_norm; // (q_lora_rank), with q-LoRA
    Matrix q_b;    // (n_heads * qk_head_dim, q_lora_rank), with q-LoRA
    View kv_a_norm; // (kv_lora_rank)
    KvB kv_b;
    Matrix k, v; // (n_heads * head, dim) in plain attention, where they are not behind q in q_kv_a
    Matrix o;    // (dim, n_heads * v_head_dim)
    bool moe = false;
    Matrix router;    // (n_routed_experts, dim), MoE layers
    View router_bias; // (n_routed_experts), noaux_tc
    Mlp mlp;          // the dense MLP, or the bank of experts: routed, then shared unless these are apart
    Mlp shared;       // the shared experts as one MLP, where they could not join the bank; else without rows
};

struct MtpWeights { // multi-token prediction layer: kept on request, nothing runs it yet
    View embed_norm, hidden_norm, head_norm; // (dim)
    Matrix eh_proj;                          // (dim, 2 * dim)
    LayerWeights layer;
};

struct Weights {
    Matrix embedding, head; // (vocab_size, dim)
    View norm;              // (dim)
    std::vector<LayerWeights> layers;
    std::vector<MtpWeights> mtp;
};

struct WeightOptions {
    bool keep_mtp = false;
    bool experts_on_host = false; // see LayoutOptions
    // Quantise the matrices that are stored as plain numbers or FP8, but not the router: to this format, or
    // where its blocks do not fill their rows to block_fallback() of it (checkpoint/blocks.h).
    std::optional<Format> quantize;
    std::function<void(uint64_t, uint64_t)> progress; // hears bytes of checkpoint done and in all
};

struct WeightSource; // layout.h
// The checkpoint as a source, which must stay where it is. Its check names a missing, extra or misshapen
// tensor. It fills by a few MiB at a time, converted on several threads; mapped pages are dropped as they are
// uploaded.
WeightSource source_of(const Checkpoint& checkpoint, const WeightOptions& options);

} // namespace fathom
