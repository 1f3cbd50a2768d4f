// The model and its forward pass: the one function that turns a configuration into a Plan.
//
// Three kinds of step. decode: every row is the last token of its sequence; the rows' logits are computed and
// sampled. prefill: rows are a run of one sequence's tokens; only the cache is filled (the last token of a
// prompt always goes through decode, so that there is one path to logits). logits: as prefill, and the logits
// of every row are kept.
#pragma once

#include "model/model_memory.h"
#include "trace/record.h"

#include <map>

namespace fathom {

struct StepKind {
    enum class Mode : uint8_t { decode, prefill, logits } mode = Mode::decode;
    uint32_t rows = 1;     // bucket: the plan serves steps of at most this many rows
    bool expanded = false; // prefill: the chunk attends to keys and values that are expanded from the cache
    uint32_t history = 0;  // blocks of positions before it, see history_blocks(); they are expanded anew
    auto operator<=>(const StepKind&) const = default;
};

// What a tap keeps: filled by the plan's copying op, read by the host after the step.
struct TapBuffer {
    std::string name;
    View view; // (rows * repeat, cols) floats
    uint32_t cols = 0, repeat = 1;
};

// Where the attention maps of the layers that are watched lie: for each row of the ring, layer by layer and
// head by head, `width` logarithms (see AttentionMap in shaders/params.h).
struct WatchedLayers {
    trace::LayerWatch watch; // its heads and width as they are, not 0
    View ring;
    uint32_t stride = 0, rows = 0;
};

class Model : public ModelMemory {
  public:
    Model(const ModelConfig& config, const WeightSource& source, const ModelOptions& options,
          Executor& executor);
    ~Model() { forget_plans(); }
    Model(const Model&) = delete;

    // The executor has forgotten them then, too, which may end; no step may be under way, as with ~Model().
    void forget_plans();

    // Where a step finds its rows, and a prefill the blocks of what came before them.
    void write_step(StepKind kind, std::span<const StepRow> rows, uint32_t trace_slot = 0) const;
    const Plan& plan(StepKind kind);                                    // built when first asked for
    std::unique_ptr<Plan> make_plan(StepKind kind, const Tiers& tiers); // for measurements
    void set_tiers(const Tiers& tiers); // of plans from now on; no step may be under way
    // Which attention maps steps keep; no step may be under way. The ring's memory is taken when the first is
    // asked for. Throws Error for layers or heads that are not there, and for more than the ring holds.
    void watch(const trace::LayerWatch& watch);
    const WatchedLayers& watched() const { return watched_; }
    std::vector<uint32_t> scored() const; // layers whose routers tell all scores, at most TRACE_SCORES
    const std::vector<TapBuffer>& taps(const Plan&) const; // what that plan keeps

  private:
    void upload_rope(uint32_t context);
    void build(Plan& plan, StepKind kind);
    void attention(Plan& plan, StepKind kind, const LayerWeights& w, uint32_t layer);
    void attend_plainly(Plan& plan, StepKind kind, const LayerWeights& w, const Input& x, uint32_t layer);
    Rows cached_queries() const;
    void attend_to_latent(Plan& plan, StepKind kind, const LayerWeights& w, const Input& x, uint32_t layer);
    void attend_expanded(Plan& plan, StepKind kind, const LayerWeights& w, uint32_t layer);
    void feed_forward(Plan& plan, const LayerWeights& w, uint32_t layer, uint32_t moe_layer);
    RoutingShape routing_for(const LayerWeights& w) const;
    // What an op reads that follows a norm: x with the norm to apply as it reads, or `out` with the norm
    // applied.
    Input normed(Plan& plan, const std::string& label, Rows x, View weight, double eps, Rows out,
                 Trace told = {});
    void keep_map(Plan& plan, uint32_t layer, Rows q); // of a layer that is watched
    bool is_watched(uint32_t layer) const;
    bool is_wanted(const std::string& tap) const;
    void keep_tap(Plan& plan, const TapPoint& point);

    Executor& executor_;
    ModelOptions options_;
    StepMemory step_;
    WatchedLayers watched_;
    View tap_room_; // what is left of the last range for taps
    std::map<StepKind, std::unique_ptr<Plan>> plans_;
    std::map<const Plan*, std::vector<TapBuffer>> taps_;
};

} // namespace fathom
