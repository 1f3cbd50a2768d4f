// The names of a checkpoint's tensors, by what they are for: one table for the two families of files. Names
// and shapes: the published checkpoints of the V2 and V3 classes (Hugging Face layout), and GGUF as
// llama.cpp's converter writes it.
#pragma once

#include "checkpoint/checkpoint.h"

#include <string>

namespace fathom {

enum class Role : uint8_t {
    embedding,
    head,
    norm,
    attn_norm, // from here on, of a layer
    ffn_norm,
    q,
    q_a,
    q_a_norm,
    q_b,
    kv_a,
    kv_a_norm,
    kv_b,
    k_b,
    v_b,
    k, // of plain attention
    v,
    o,
    router,
    router_bias,
    gate,
    up,
    down,
    expert_gate, // of one expert; in GGUF of all, one behind the other
    expert_up,
    expert_down,
    expert_gate_up,
    shared_gate,
    shared_up,
    shared_down,
    mtp_embed_norm,
    mtp_hidden_norm,
    mtp_eh_proj,
    mtp_head_norm,
    mtp_embedding,
    mtp_head,
};

// How the tensors of one checkpoint are named and arranged.
struct Naming {
    bool gguf = false;           // GGUF's names; experts in banks
    bool split_kv_b = false;     // GGUF: attn_k_b and attn_v_b instead of attn_kv_b
    bool merged_gate_up = false; // GGUF: an expert's gate rows and its up rows in one tensor
    bool tied_head = false;      // GGUF: the embedding is the head, too

    static Naming of(const Checkpoint& checkpoint);
    // `layer` and `expert` where the role has them.
    std::string name(Role role, uint32_t layer = 0, uint32_t expert = 0) const;
};

} // namespace fathom
