// What `run --stats FILE.json` writes.
#pragma once

#include "cli/generate.h"

#include <string>

namespace fathom::cli {

struct RunStats {
    std::string model, device;
    uint64_t seed = 0;
    double load_seconds = 0;
    Generated generated;
    uint32_t dispatches_per_token = 0;
    MemoryReport memory;
};

// JSON, one object; a rate that cannot be known (nothing generated, no time passed) is null.
std::string stats_json(const RunStats& stats);

} // namespace fathom::cli
