// llama-bench's measurements, on this engine.
#pragma once

#include "cli/options.h"

namespace fathom::cli {

struct LlamaBench {
    ModelOptions model;
    std::vector<uint32_t> prompts = {512}, generated = {128}, depths = {0}, parallel = {1};
    uint32_t repetitions = 5;
    std::optional<std::string> json; // "-": standard output
};
int like_llama_bench(LlamaBench options); // the exit code

} // namespace fathom::cli
