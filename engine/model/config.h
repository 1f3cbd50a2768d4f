// What a checkpoint says about its model: dimensions, routing, RoPE, in the one vocabulary this project uses.
// Read from Hugging Face config.json in both dialects (the published one, and transformers 5's
// `rope_parameters`/`dtype`), or from the keys of a GGUF file. Semantics have no defaults: what is missing,
// unknown or unsupported is an Error that names key and value. The few keys that one dialect leaves out, and
// what their absence means, are listed where they are read, in config.cpp and config_gguf.cpp. Facts: the
// checkpoints' own config.json files and the modelling code published beside them.
#pragma once

#include "checkpoint/checkpoint.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// Bounds on what a file may ask for.
constexpr uint32_t largest_dim = 1u << 20, largest_layers = 1024, largest_experts = 4096;
constexpr uint32_t largest_rows = 1u << 24;     // of the projection of all heads
constexpr uint32_t largest_position = 1u << 24; // float32 counts positions exactly up to here
constexpr double largest_theta = 1e12;

// The classes that checkpoints name. Kimi-K2 and Moonlight are of DeepseekV3ForCausalLM.
enum class Architecture : uint8_t { deepseek, deepseek_v2, deepseek_v3, glm4_moe_lite };
enum class Scoring : uint8_t { softmax, sigmoid };
// How experts are chosen: the K best of all; groups ranked by their best expert; or noaux_tc: score + bias as
// the key, groups ranked by the sum of their two best keys.
enum class TopkMethod : uint8_t { greedy, group_limited_greedy, noaux_tc };

// YaRN as in the checkpoints' own modelling code (and https://arxiv.org/abs/2309.00071); absent when factor
// is 0.
struct Yarn {
    double factor = 0; // at least 1
    uint32_t original_max_position = 0;
    double beta_fast = 32, beta_slow = 1;
    double mscale = 1, mscale_all_dim = 0; // an mscale_all_dim of 0: no factor on the softmax scale
    bool operator==(const Yarn&) const = default;
};

struct ModelConfig {
    Architecture architecture{};
    uint32_t vocab_size = 0;
    uint32_t dim = 0;          // hidden_size
    uint32_t n_layers = 0;     // without MTP layers
    uint32_t n_mtp_layers = 0; // num_nextn_predict_layers
    uint32_t n_heads = 0;
    uint32_t q_lora_rank = 0;      // 0: none
    uint32_t kv_lora_rank = 0;     // 0: plain multi-head attention, with keys and values of every head
    uint32_t qk_nope_head_dim = 0; // 0 in plain attention, where whole heads rotate
    uint32_t qk_rope_head_dim = 0;
    uint32_t v_head_dim = 0;
    uint32_t dense_dim = 0;                     // intermediate_size: width of the dense layers' MLP
    uint32_t expert_dim = 0;                    // moe_intermediate_size: width of one expert
    uint32_t n_routed_experts = 0;              // 0: every layer is dense
    uint32_t n_shared_experts = 0;              // one MLP of n_shared_experts * expert_dim; 0: none
    uint32_t n_active_experts = 0;              // num_experts_per_tok
    uint32_t n_groups = 1, n_active_groups = 1; // n_group, topk_group; 1 and 1 for TopkMethod::greedy
    uint32_t first_moe_layer = 0;               // first_k_dense_replace
    uint32_t moe_layer_freq = 1;
    Scoring scoring{};
    TopkMethod topk_method{};
    bool norm_topk_prob = false; // never with one active expert: the authors leave its weight alone
    double routed_scaling_factor = 1;
    double rms_norm_eps = 0;
    double latent_norm_eps = 1e-6; // of q_a_layernorm and kv_a_layernorm: every class leaves theirs at 1e-6,
                                   // also where rms_norm_eps is another number (Moonlight, GLM)
    double rope_theta = 0;
    Yarn yarn;
    bool rope_interleaved = true;   // pairs (2i, 2i+1); false: half-split pairs (i, i + d/2)
    uint32_t max_position = 0;      // max_position_embeddings
    uint32_t fp8_block = 0;         // FP8 weights have a scale for so many rows and columns; 0: none
    std::vector<uint32_t> bos, eos; // token ids; eos may be a list

    bool is_moe(uint32_t layer) const {
        return n_routed_experts != 0 && layer >= first_moe_layer && layer % moe_layer_freq == 0;
    }
    uint32_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
    bool is_mla() const { return kv_lora_rank != 0; }
    uint32_t latent_dim() const { return kv_lora_rank + qk_rope_head_dim; } // MLA: one cache row
    // Numbers of cache for one token and layer.
    uint32_t cache_dim() const { return is_mla() ? latent_dim() : n_heads * (qk_head_dim() + v_head_dim); }
    // (qk_head_dim)^-0.5, times mscale_all_dim's factor squared under YaRN.
    double softmax_scale() const;
    bool operator==(const ModelConfig&) const = default;
};

// Parses the text of a config.json; `where` is its path, for messages. Checks ranges (every dimension
// positive and at most 2^20, layers at most 1024, experts at most 4096, groups divide experts, ...). Keys
// that do not change what the model computes are not looked at; those that would (other quantisations than
// FP8 in blocks, biases, tied embeddings) are errors.
ModelConfig parse_config(std::string_view json, std::string_view where);

// The same of a GGUF file's keys, for the architectures deepseek and deepseek2, which is V2 where experts are
// scored by softmax, else V3. Keys of the architecture that are not known are errors, as they may change what
// the model computes.
ModelConfig parse_config(const Gguf& keys);

ModelConfig model_config(const ModelFiles& files); // whichever of the two the model brings

// Rotation frequencies, radians per position, qk_rope_head_dim / 2 of them, and the factor on cos and sin
// (mscale / mscale_all_dim; 1 for every published model). Rounded to float32 at every step where transformers
// does.
struct RopeFrequencies {
    std::vector<float> inv_freq;
    float factor = 1;
};
RopeFrequencies rope_frequencies(const ModelConfig& config);

} // namespace fathom
