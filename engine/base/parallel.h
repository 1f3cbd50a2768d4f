// Work on several threads.
#pragma once

#include <cstdint>
#include <functional>

namespace fathom {

// Calls work(first, last) for parts of [0, count), each a multiple of `grain` but the last one, on up to
// eight threads of which this is one, and returns when all are done. Parts are handed out as threads become
// free, so work must not care which thread does what. An exception of `work` ends it and is thrown here.
void parallel_ranges(uint64_t count, uint64_t grain, const std::function<void(uint64_t, uint64_t)>& work);

} // namespace fathom
