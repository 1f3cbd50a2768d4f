// Whether a model fits into a device's memory, and what would fit instead. Sizes come from the code that
// allocates (model/memory_plan.h); what there is comes from the driver, or on software devices from the host.
#pragma once

#include "model/memory_plan.h"
#include "session/engine.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace fathom {

// A model that could be loaded, from files or from a preset.
struct FitQuestion {
    ModelConfig config;
    LoadOptions options;
    // Its weights, in their own formats or with matrices in another one.
    std::function<WeightSource(std::optional<Format>)> source;
    std::string other_format; // how a person gets another: "--quantize", "--format", "a file in"
};
FitQuestion fit_question(const ModelFiles& files, const LoadOptions& options); // `files` must stay
FitQuestion fit_question(const SyntheticModel& model, const LoadOptions& options);

// What a plan asks of one of the device's memories.
struct MemoryPool {
    std::string name; // "device memory", "host memory"
    uint64_t needed = 0, available = 0, bytes = 0;
};

struct Fit {
    std::string device;
    uint32_t context = 0, cache_tokens = 0;
    MemoryPlan plan;
    std::vector<MemoryPool> pools; // those that the plan takes of
    std::string obstacle;          // why it does not fit; empty: it does
    // Bytes a second, measured by copies, 0: not measured; and the most tokens a second they allow one
    // session to decode, since every token reads plan.read.
    double device_rate = 0, host_rate = 0, tokens_per_second = 0;

    struct Alternative {
        std::string change; // "--context 1024"
        std::vector<MemoryPool> pools;
        double tokens_per_second = 0;
    };
    std::vector<Alternative> alternatives; // of a plan that does not fit: what would
};
Fit fit(const FitQuestion& question, Executor& executor);
Fit fit(const FitQuestion& question); // on the device that the options name

std::string pools_text(const std::vector<MemoryPool>& pools); // "5.99 MB of device memory, ..."
std::string bound_text(double tokens_per_second);             // "at most 12.3 tokens/s"

// Throws Error with plan and alternatives where the model does not fit. Nothing is allocated.
void check_fit(const FitQuestion& question, Executor& executor);

} // namespace fathom
