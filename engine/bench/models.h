// The model end to end, as a session runs it: prompts, decoding behind what is in the cache, several sessions
// at once. What llama.cpp's llama-bench measures is measured by the same class.
#pragma once

#include "bench/report.h"
#include "bench/stop.h"

#include <functional>
#include <optional>
#include <random>

namespace fathom::bench {

class ModelBench {
  public:
    ModelBench(Engine& engine, Stop& stop) : engine_(engine), stop_(stop) {}

    // Seconds from handing in `tokens` random tokens behind `depth` others to the token that follows them.
    double prompt(uint32_t tokens, uint32_t depth);
    // Seconds of each of `tokens` steps that generate one token for each of `batch` sessions, behind `depth`
    // random tokens each. What is there before is not timed.
    std::vector<double> decode(uint32_t tokens, uint32_t depth, uint32_t batch = 1);
    // The share of all choices that the busiest tenth of a layer's experts took so far, mean of the layers; 0
    // without experts.
    double busiest_tenth() const;

  private:
    Session behind(uint32_t depth);
    std::vector<Token> random_tokens(size_t n);
    void count_routing(Session& session);

    Engine& engine_;
    Stop& stop_;
    std::optional<Session> base_; // holds the last depth, and one token more that waits to be processed
    std::mt19937 random_{1};
    std::vector<std::vector<uint64_t>> chosen_; // by layer and expert
};

struct ModelBenchOptions {
    std::vector<uint32_t> prompts = {128, 512, 2048}, depths = {0, 4096, 16384}, batches = {2, 4, 8};
    uint32_t samples = 10, tokens = 64; // of a prompt; generated at each depth
    double seconds = 60;                // for all of it: what would take longer is left out and said
    std::function<void(const ModelRow&)> on_row;
    std::function<void(const std::string&)> on_skip;
};
// `weight_bytes_per_token`: that one token reads while it is decoded.
void measure_model(ModelBench& bench, uint32_t context, const ModelBenchOptions& options,
                   uint64_t weight_bytes_per_token, const Report& roofs);

} // namespace fathom::bench
