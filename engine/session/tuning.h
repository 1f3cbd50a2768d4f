// Which tiers a model's products run in: as the load options say, as an earlier run on this device and driver
// found, or as the tuner finds now; and the file that remembers it, beside the pipeline cache.
#pragma once

#include "model/tuner.h"

#include <string>
#include <vector>

namespace fathom {

// "auto" (what was found fastest; on a software device the base tier), "tune" (as auto, found anew, on any
// device), or the name of a tier, for all products that can be made in it. Throws Error for another word.
void check_tier_option(const std::string& option);

// What is remembered of this device, driver and build of this program; empty when nothing is, or when the
// file is damaged.
std::vector<Trial> remembered_trials(const gpu::DeviceInfo& device);
void remember_trials(const gpu::DeviceInfo& device, const std::vector<Trial>& trials);

// Sets the model's tiers. `rows` as of tune().
void choose_tiers(Model& model, Executor& executor, const std::string& option,
                  const std::vector<StepRow>& rows,
                  const std::function<void(size_t done, size_t total)>& progress);

} // namespace fathom
