// Every kernel of the model's own plans, one launch at a time: right or wrong, cold and hot, against the
// roofs.
#pragma once

#include "bench/report.h"
#include "bench/stop.h"
#include "model/plan.h"

#include <functional>
#include <set>

namespace fathom::bench {

// A launch of a step: its place in the plan, and the op it is.
struct KernelId {
    std::string step; // "decode" or "prefill"
    size_t index = 0;
    std::string op;
    auto operator<=>(const KernelId&) const = default;
};

struct KernelOptions {
    uint32_t samples = 10;
    uint32_t depth = 512, rows = 256; // positions in the cache; tokens of the prefill chunk
    std::string wrong;                // test hook: launches of this kernel leave half of their workgroups out
    std::string lost;                 // test hook: the device is lost in the first launch of this kernel
    std::set<KernelId> skip;          // what is done already, or was running when the device was lost
    std::function<void(const KernelId&)> starts;
    std::function<void(const KernelRow&)> on_row;
};
// One decode step of one token and one prefill chunk. Launches that are alike in kernel and shape are
// measured once. `roofs` has the roofs and overheads of this device.
void measure_kernels(Engine& engine, const KernelOptions& options, const Report& roofs, Stop& stop);

// A step's launches that differ in kernel or shape, in order: indices into the plan's ops.
std::vector<size_t> distinct_ops(const Plan& plan);
std::string op_name(const Op& op);   // its label without the layer
std::string op_format(const Op& op); // of its weights; empty where it has none

} // namespace fathom::bench
