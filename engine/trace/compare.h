// Two recordings of one prompt, on two devices or of two builds: where they part, and whether it matters.
#pragma once

#include "trace/file.h"

#include <optional>
#include <span>

namespace fathom::trace {

// A choice of experts that differs, and how close it was: a small margin says that rounding decided.
struct Flip {
    uint32_t position = 0, layer = 0;     // layer: number in the model
    std::vector<uint16_t> only_a, only_b; // experts that one chose and the other did not
    float margin_a = 0, margin_b = 0;
};

struct Difference {
    uint32_t compared = 0;         // positions that both have, up to the first token that differs
    std::optional<uint32_t> token; // position of that token
    std::vector<Flip> flips;       // in the order of positions and layers
    uint64_t choices = 0;          // sets of experts compared
    double weights = 0; // largest distance of the weights of an expert both chose, up to the first flip
    double norms = 0;   // largest relative distance of norms, up to the first flip
};

// Compares two timelines by position; null: a record that was lost.
Difference compare(const Shape& shape, std::span<const TokenRecord* const> a,
                   std::span<const TokenRecord* const> b);
// Compares the first session of each. Throws Error for recordings of models of different shape.
Difference compare(const Recording& a, const Recording& b);

} // namespace fathom::trace
