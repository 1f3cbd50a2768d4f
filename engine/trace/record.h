// What the engine tells about its work: plain structs, versioned, shared by the engine, tools and the viewer.
// A leaf: it includes nothing of ours but tokens. Now: the routing of each token, written by the router
// kernel itself.
#pragma once

#include "base/token.h"

#include <cstdint>
#include <vector>

namespace fathom::trace {

constexpr uint32_t VERSION = 1;

// The experts one token chose in every MoE layer. Row l of both tables belongs to the l-th MoE layer.
struct Routing {
    Token token = 0;
    uint32_t position = 0;
    std::vector<uint16_t> experts; // (MoE layers, n_active_experts), in order of selection
    std::vector<float> weights;    // the same shape: the factors on the experts' outputs
};

} // namespace fathom::trace
