// What a driver's compiler makes of the kernels, on a device that need not run anything.
#pragma once

#include "bench/run.h"

namespace fathom::bench {

// The kernels of a decode step and of a prefill chunk of the preset (v2-lite where none is named), with what
// the driver says of each. Throws Error where the driver says nothing.
Report offline(const RunOptions& options);

} // namespace fathom::bench
