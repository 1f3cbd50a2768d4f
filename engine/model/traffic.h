// What one launch of an op moves and computes at the least: the parts of memory that its result depends on,
// each once, what it writes, and its floating-point operations. Dispatches declare whole ranges (plan.h);
// here are the experts that were chosen, the rows of tokens that were looked up, the pages that were filled.
// Rooflines divide by these numbers, and checks against the reference copy these parts.
#pragma once

#include "model/plan.h"

#include <span>

namespace fathom {

// What a step's launches depend on besides their parameters.
struct StepFacts {
    std::span<const StepRow> rows;                       // the step's
    std::function<void(View, std::span<uint32_t>)> read; // words of device memory, as they are now
    uint32_t most = UINT32_MAX;                          // of the rows of a launch, the first so many alone
};

struct Traffic {
    struct Write {
        View view;
        bool exact = false;  // integers; else floats
        bool packed = false; // rounded numbers, which are not compared
    };
    std::vector<View> reads;
    std::vector<Write> writes;
    double flops = 0;       // a multiplication or an addition is one
    std::string shape;      // for people: "1 x 2048, 3648 rows"
    uint64_t bytes() const; // of reads and writes; what is read and written counts twice
};

// Throws std::logic_error for an op that it does not know.
Traffic traffic_of(const Op& op, const StepFacts& facts);
// The parts of a module's name, "matmul_int8_q4_k": kernel, tier (base where none is named), format or "".
std::string_view kernel_of(std::string_view module);
std::string_view format_of(std::string_view module);
Tier tier_of(std::string_view module);

} // namespace fathom
