// Which tiers a model's products run in, and what the ways of its attention take: as the load options say, as
// an earlier run on this device and driver found, or as is found now; and the file that remembers it, beside
// the pipeline cache.
#pragma once

#include "model/attention_costs.h"
#include "model/tuner.h"

#include <map>
#include <string>
#include <vector>

namespace fathom {

// "auto" (what was found fastest; on a software device the base tier), "tune" (as auto, found anew, on any
// device), or the name of a tier, for all products that can be made in it. Throws Error for another word.
void check_tier_option(const std::string& option);

// What is remembered of this device, driver and build of this program; empty when nothing is, or when the
// file is damaged.
struct Tuning {
    std::vector<Trial> trials;
    std::map<std::string, AttentionCosts> attention; // by what they depend on
};
Tuning remembered_tuning(const gpu::DeviceInfo& device);
void remember_tuning(const gpu::DeviceInfo& device, const Tuning& tuning);

// Sets the model's tiers; returns what its attention costs, counted where it is not measured. `rows` as of
// tune().
AttentionCosts choose_kernels_for(Model& model, Executor& executor, const std::string& option,
                                  const std::vector<StepRow>& rows,
                                  const std::function<void(size_t done, size_t total)>& progress);

} // namespace fathom
