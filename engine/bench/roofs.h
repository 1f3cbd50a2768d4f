// What the device can do at most, measured with kernels that do nothing else: the roofs that every other
// kernel is held against, and what launches cost by themselves.
#pragma once

#include "bench/report.h"
#include "bench/timer.h"

namespace fathom::bench {

// copy, read and triad bandwidth; fma in f32 and f16, products of packed bytes, cooperative matrices of every
// shape (those that the device has); host to device and back. `on_roof` hears of each.
void measure_roofs(const Timer& timer, uint32_t samples, const std::function<void(const Roof&)>& on_roof);
Overheads measure_overheads(const Timer& timer, uint32_t samples);

// 256 MiB, or less on a CPU and where there is little memory: the size of the buffers that bandwidth is
// measured on.
uint64_t roof_bytes(const gpu::DeviceInfo& info);
// Bytes read between two cold launches: more than any cache holds.
uint64_t flush_bytes(const gpu::DeviceInfo& info);
gpu::Dispatch flush_dispatch(gpu::View scratch); // reads all of it

} // namespace fathom::bench
