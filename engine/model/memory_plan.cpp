// Counting; see memory_plan.h.
#include "model/memory_plan.h"

#include <algorithm>

namespace fathom {

namespace {

class Counter final : public Memory {
  public:
    std::vector<View> allocate(std::string_view owner, gpu::Placement placement,
                               std::span<const uint64_t> sizes, bool) override {
        auto item = std::find_if(plan.items.begin(), plan.items.end(),
                                 [&](const auto& i) { return i.owner == owner && i.placement == placement; });
        if (item == plan.items.end())
            item = plan.items.insert(plan.items.end(), {std::string(owner), placement});
        std::vector<View> views;
        for (const uint64_t bytes : sizes) {
            views.push_back({0, bytes});
            item->bytes += bytes;
            item->reserved += gpu::reserved_bytes(bytes);
            plan.largest = std::max(plan.largest, gpu::reserved_bytes(bytes));
        }
        return views;
    }
    MemoryPlan plan;
};

class Planned : public ModelMemory {
  public:
    using ModelMemory::ModelMemory;

    void count_reads(MemoryPlan& plan) const {
        for (const Target& target : layout_.targets) {
            uint64_t bytes = target.bytes();
            if (target.owner == "embedding") bytes = target.shape.row_bytes;
            if (target.shape.count > 1) // a bank: the active ones, and the shared ones behind them
                bytes = target.shape.matrix_bytes *
                        (config.n_active_experts + target.shape.count - config.n_routed_experts);
            plan.read[static_cast<size_t>(target.placement)] += bytes;
        }
    }
};

} // namespace

MemoryPlan plan_memory(const ModelConfig& config, const WeightSource& source, const ModelOptions& options,
                       const gpu::Caps& caps) {
    Counter counter;
    const Planned planned(config, source, options, caps, counter);
    planned.count_reads(counter.plan);
    return std::move(counter.plan);
}

} // namespace fathom
