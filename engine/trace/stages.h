// Where the time of a timed token went, over all its layers.
#pragma once

#include "trace/record.h"

#include <span>

namespace fathom::trace {

// Seconds of each of STAGES, then of ENDS; `times` as in TokenRecord.
using StageSums = std::array<double, STAGES.size() + ENDS.size()>;
inline StageSums stage_sums(const Shape& shape, std::span<const float> times) {
    const size_t n = STAGES.size(), layers = shape.n_layers * n;
    StageSums sums{};
    for (size_t i = 0; i < times.size(); ++i) sums[i < layers ? i % n : n + i - layers] += times[i];
    return sums;
}

} // namespace fathom::trace
