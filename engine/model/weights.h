// The weights of a model in device memory, and the one table of their names and shapes in a checkpoint.
// Matrices that read the same activations are stacked (q or q_a with kv_a; gate with up), experts lie in one
// bank for each layer with the shared experts behind the routed ones, and everything keeps the checkpoint's
// dtype; norms and biases become f32.
#pragma once

#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "model/executor.h"
#include "model/ops/ops.h"

#include <functional>

namespace fathom {

struct LayerWeights {
    View attn_norm, ffn_norm; // (dim)
    Matrix q_kv_a;  // q or q_a (n_heads * qk_head_dim or q_lora_rank), then kv_a (kv_lora_rank + rope)
    View q_a_norm;  // (q_lora_rank), with q-LoRA
    Matrix q_b;     // (n_heads * qk_head_dim, q_lora_rank), with q-LoRA
    View kv_a_norm; // (kv_lora_rank)
    Matrix kv_b;    // (n_heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank)
    Matrix o;       // (dim, n_heads * v_head_dim)
    bool moe = false;
    Matrix router;    // (n_routed_experts, dim), MoE layers
    View router_bias; // (n_routed_experts), noaux_tc
    Matrix gate_up;   // bank of (2 * width, dim): gate rows, then up rows
    Matrix down;      // bank of (dim, width)
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

// A tensor that a checkpoint of this configuration holds. `kind` groups tensors for reports.
struct TensorSpec {
    std::string name;
    std::vector<uint64_t> shape;
    std::string_view kind; // "embedding", "attention", "dense MLP", "routed experts", "shared experts",
                           // "router", "norms", "head", "MTP"
};
std::vector<TensorSpec> tensor_table(const ModelConfig& config);

// Checks the checkpoint against the table (a missing, extra or misshapen tensor is an Error that names it),
// allocates and uploads. Mapped pages are dropped as they are uploaded. `progress` hears bytes of checkpoint
// done and in all.
Weights load_weights(const ModelConfig& config, const Checkpoint& checkpoint, bool keep_mtp,
                     Executor& executor, const std::function<void(uint64_t, uint64_t)>& progress);

} // namespace fathom
