// What a run measures: which preset suits a device, what of it fits, and the engine that runs it.
#pragma once

#include "bench/run.h"
#include "session/fit.h"

#include <memory>

namespace fathom::bench {

class SubjectUnderTest {
  public:
    // Decides; `read_rate` in bytes a second. Throws Error for an unknown preset and for what does not fit,
    // and says what would.
    SubjectUnderTest(const RunOptions& options, double read_rate);

    std::unique_ptr<Engine> load() const;
    const Subject& facts() const { return facts_; }
    uint32_t context() const { return load_.context; }
    const ModelConfig& whole() const { return whole_; }   // of which the subject is all, or a slice
    uint64_t token_bytes() const { return token_bytes_; } // of weights that one token reads in decoding

  private:
    void choose_preset(Executor& executor, double read_rate);
    void choose_slice(Executor& executor);
    void choose_context(Executor& executor);
    void count_parameters();
    [[noreturn]] void refuse(const Fit& fit, Executor& executor) const;
    FitQuestion question(const SyntheticModel& model, uint32_t context) const;
    bool fits(const SyntheticModel& model, uint32_t context, Executor& executor) const;
    SyntheticModel synthetic(const Preset& preset) const;

    const RunOptions& options_;
    LoadOptions load_;
    SyntheticModel model_;
    ModelConfig whole_;
    Subject facts_;
    uint64_t token_bytes_ = 0;
};

// How much longer the whole model takes than a slice of it; see Subject::scaling. Seconds of the slice's
// parts.
struct SliceTimes {
    double rest = 0, dense = 0, moe = 0;
    uint32_t n_dense = 1, n_moe = 1; // layers in it
};
double slice_factor(const SliceTimes& slice, uint32_t all_dense, uint32_t all_moe);

// Adds to the selection keys of each layer's first tenth of experts, so that these take most of the tokens.
void favour_a_tenth(Engine& engine);

} // namespace fathom::bench
