// What a model takes of memory, before anything is taken: ModelMemory made over a Memory that only counts.
#pragma once

#include "model/model_memory.h"

#include <array>

namespace fathom {

struct MemoryPlan {
    struct Item {
        std::string owner;
        gpu::Placement placement{};
        uint64_t bytes = 0, reserved = 0; // as in gpu::OwnerBytes
    };
    std::vector<Item> items; // an owner has one for each of its placements
    uint64_t largest = 0;    // bytes of the longest range
    // Bytes of weights that one token reads while it is decoded, by where they lie: the embedding's row, the
    // chosen experts, and all else whole (MTP layers too, if they are kept).
    std::array<uint64_t, gpu::N_PLACEMENTS> read{};
};

// Throws Error for what is wrong with configuration or tensors. Taps are not planned for.
MemoryPlan plan_memory(const ModelConfig& config, const WeightSource& source, const ModelOptions& options,
                       const gpu::Caps& caps);

} // namespace fathom
