// The self-test and the autotuner: every kernel that could make one of a model's matrix products is checked
// on this device against the reference, and timed at the model's own shapes on its own weights. What is wrong
// or slower is not used.
#pragma once

#include "model/check.h"
#include "model/forward.h"

#include <functional>
#include <map>
#include <vector>

namespace fathom {

// One kernel for one product.
struct Trial {
    Product product;
    Variant variant;
    double seconds = 0;  // of one launch; 0 where it failed
    double error = 0;    // as in Verdict
    std::string failure; // "": right
    bool chosen = false;
};

struct TunerOptions {
    std::function<void(size_t done, size_t total)> progress; // products
    // Told of all trials so far before each one starts, which then is marked as failed: should the device be
    // lost over it, or a compiler crash, the next start knows.
    std::function<void(const std::vector<Trial>&)> save;
    std::string wrong; // test hook: launches of this tier are spoiled, as launch_alone() says
};

// Every trial of the products for which `known` has chosen none yet, but for those that it knows to fail
// there. `rows`: those of a prompt's step, whose pages are there; the last one also stands for a token that
// is generated. Leaves the model's workspace as it comes; its cache rows of `rows` are written anew. Takes
// seconds on a GPU.
std::vector<Trial> tune(Model& model, Executor& executor, const std::vector<StepRow>& rows,
                        const std::vector<Trial>& known, const TunerOptions& options);

// What the trials chose.
Tiers tiers_of(const std::vector<Trial>& trials);

} // namespace fathom
