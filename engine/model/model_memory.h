// All memory of a model: its weights, and what steps work on. Activations live in one workspace that all
// layers share, so their lifetimes need no planning.
//
// It is taken from a Memory, in the constructor and nowhere else (but for taps): from an Executor, or for a
// plan from a counter (memory_plan.h), so that no size is worked out twice.
#pragma once

#include "model/cache_format.h"
#include "model/layout.h"

namespace fathom {

constexpr uint32_t MAX_SEQUENCES = 64;   // that can be open at once
constexpr uint32_t MAX_DECODE_ROWS = 32; // of a decode or logits step

struct ModelOptions {
    uint32_t context = 0, pages = 0; // longest sequence in tokens; pages of the cache
    uint32_t chunk = MAX_ROWS;       // most rows of a prefill step
    bool trace = true;
    Tiers tiers; // of the matrix products
    CacheFormat cache_format = CacheFormat::f32;
    std::vector<std::string> taps; // names to keep, * matching any run of characters
    WeightOptions weights;
    LayoutOptions layout() const { return {weights.keep_mtp, weights.experts_on_host}; }
};

uint32_t bucket_for(uint32_t rows);  // the smallest bucket that holds `rows`: 1, 2, 4, ... MAX_ROWS
constexpr uint32_t LEAST_BLOCK = 16; // rows of a block of history; there is room for the headers of these

class ModelMemory {
  public:
    ModelMemory(const ModelConfig& config, const WeightSource& source, const ModelOptions& options,
                const gpu::Caps& caps, Memory& memory);
    ModelMemory(const ModelMemory&) = delete;

    const ModelConfig config;
    const CacheFormat cache_format;
    // Memory that the host reads and writes; see shaders/params.h for what lies in it.
    View state, page_tables, samplers, sampled, bias, mask, trace; // mapped
    View counts, control, logits;                                  // on the device
    std::vector<View> cache; // one for each layer: pages of PAGE_TOKENS rows
    uint32_t max_pages = 0, page_bytes = 0, row_floats = 0, row_bytes = 0, mask_words = 0, logits_stride = 0;
    uint32_t n_moe_layers = 0, trace_stride = 0; // 32-bit words of one token in the ring; 0: no trace
    // Where a row of the ring has the choices of a MoE layer, and a norm: words.
    uint32_t trace_of_choice(uint32_t moe_layer) const {
        return moe_layer * TRACE_LAYER_WORDS(config.n_active_experts);
    }
    uint32_t trace_of_norm(uint32_t layer) const { return trace_of_choice(n_moe_layers) + layer; }
    uint32_t trace_of_scores(uint32_t nth) const { // of the nth layer that is watched and routes
        return trace_of_norm(config.n_layers) + 1 + nth * 2 * config.n_routed_experts;
    }

  protected:
    struct Workspace {
        Rows x, normed, q_kv_a, kv_a, q_a, q, k, v, kv, attended, act, shared_act, pairs_out, shared_out;
        View cached, q_cached, partial, running, experts, expert_weights, arrivals;
        View pairs, items, shared_pairs, shared_items, adjusted;
    };
    Trace trace_from(uint32_t word) const; // that part of every row of the ring
    uint64_t steered_experts() const; // rows of `control`: (MoE layers * routed experts) of (key, factor)

    Weights weights_;
    Layout layout_;
    AttentionShape shape_;
    RoutingShape routing_;
    Workspace work_;
    View rope_; // (context, qk_rope_head_dim / 2) pairs of cos and sin

  private:
    void allocate_state(Memory& memory);
    void allocate_workspace(Memory& memory, const gpu::Caps& caps, uint32_t rows);
    void allocate_attention_workspace(Memory& memory, const gpu::Caps& caps, uint32_t rows);
    void allocate_latent_workspace(Memory& memory, uint32_t rows);
    void allocate_unstacked_workspace(Memory& memory, uint32_t rows);
};

} // namespace fathom
