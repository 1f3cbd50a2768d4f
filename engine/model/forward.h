// The model in memory and its forward pass: the one function that turns a configuration into a Plan.
//
// Three kinds of step. decode: every row is the last token of its sequence; the rows' logits are computed and
// sampled. prefill: rows are a run of one sequence's tokens; only the cache is filled (the last token of a
// prompt always goes through decode, so that there is one path to logits). logits: as prefill, and the logits
// of every row are kept.
#pragma once

#include "model/weights.h"

#include <map>

namespace fathom {

constexpr uint32_t MAX_SEQUENCES =
    32; // sequences that can be open at once; also the most rows of a decode or logits step
constexpr uint32_t TRACE_ROWS = 1024; // rows of the routing ring

struct StepKind {
    enum class Mode : uint8_t { decode, prefill, logits } mode = Mode::decode;
    uint32_t rows = 1;     // bucket: the plan serves steps of at most this many rows
    bool expanded = false; // prefill: the chunk attends to itself with expanded keys and values...
    bool history = false;  // ... and to what came before it through the cache
    auto operator<=>(const StepKind&) const = default;
};
uint32_t bucket_for(uint32_t rows); // the smallest bucket that holds `rows`: 1, 2, 4, ... MAX_ROWS

// What a tap keeps: filled by the plan's copying op, read by the host after the step.
struct TapBuffer {
    std::string name;
    View view; // (rows * repeat, cols) floats
    uint32_t cols = 0, repeat = 1;
};

struct ModelOptions {
    uint32_t context = 0, pages = 0; // longest sequence in tokens; pages of the cache
    uint32_t chunk = MAX_ROWS;       // most rows of a prefill step
    bool trace = true;
    std::vector<std::string> taps; // names to keep, * matching any run of characters
    WeightOptions weights;
};

class Model {
  public:
    Model(const ModelConfig& config, const Checkpoint& checkpoint, const ModelOptions& options,
          Executor& executor);

    const Plan& plan(StepKind kind);                       // built when first asked for
    const std::vector<TapBuffer>& taps(const Plan&) const; // what that plan keeps

    // Memory that the host reads and writes; see shaders/params.h for what lies in it.
    View state, page_tables, samplers, sampled, bias, mask, trace; // mapped
    View counts, control, logits;                                  // on the device
    std::vector<View> cache; // one for each layer: pages of PAGE_TOKENS rows
    uint32_t max_pages = 0, page_bytes = 0, row_floats = 0, mask_words = 0, logits_stride = 0;
    uint32_t n_moe_layers = 0, trace_stride = 0; // 32-bit words of one token in the ring; 0: no trace
    const ModelConfig config;

  private:
    struct Workspace {
        Rows x, normed, q_kv_a, kv_a, q_a, q, k, v, kv, attended, act, shared_act, pairs_out, shared_out;
        View latent, q_latent, partial, chunk, experts, expert_weights;
        View pairs, items, shared_pairs, shared_items;
    };
    void allocate_state();
    void allocate_cache(uint32_t pages);
    void allocate_workspace(uint32_t rows);
    void allocate_attention_workspace(uint32_t rows);
    void allocate_unstacked_workspace(uint32_t rows);
    void build_rope(uint32_t context);
    void build(Plan& plan, StepKind kind);
    void attention(Plan& plan, StepKind kind, const LayerWeights& w, uint32_t layer);
    void attend_plainly(Plan& plan, const LayerWeights& w, uint32_t layer);
    void attend_to_latent(Plan& plan, StepKind kind, const LayerWeights& w, uint32_t layer);
    void feed_forward(Plan& plan, const LayerWeights& w, uint32_t layer, uint32_t moe_layer);
    void shared_experts(Plan& plan, const Mlp& shared, uint32_t layer);
    RoutingShape routing_for(const LayerWeights& w) const;
    void keep_tap(Plan& plan, const TapPoint& point);
    Rows rows(uint64_t count, uint32_t cols);

    Executor& executor_;
    ModelOptions options_;
    Weights weights_;
    StepMemory step_;
    AttentionShape shape_;
    RoutingShape routing_;
    Workspace work_;
    View adjusted_;
    std::map<StepKind, std::unique_ptr<Plan>> plans_;
    std::map<const Plan*, std::vector<TapBuffer>> taps_;
};

} // namespace fathom
