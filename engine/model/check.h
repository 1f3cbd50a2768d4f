// Whether a kernel is right: its result against the CPU reference in double precision, on its own inputs as
// they lie on the device, for as many of the step's first rows as the reference can do in reasonable time.
#pragma once

#include "model/executor.h"
#include "model/traffic.h"

namespace fathom {

struct Verdict {
    double error = 0;    // largest difference over largest value expected; of integers 0
    std::string failure; // "": right within the limit
    uint32_t rows = 0;   // that were compared
};
struct CheckLimits {
    double error = 1e-4; // as in Verdict
    double flops = 4e8;  // of the reference, unless one row takes more
};
// The op as a launch of its own, behind a barrier; `wrong`, a test hook, leaves out half of its workgroups,
// or all.
gpu::Dispatch launch_alone(const Op& op, bool wrong);
// Runs `launch`, which is `op` unless a test has spoiled it, once on the device. What `op` writes is filled
// with NaN before, unless it reads that, too.
Verdict check_kernel(const Op& op, const gpu::Dispatch& launch, const StepFacts& facts, Executor& executor,
                     const CheckLimits& limits = {});

} // namespace fathom
