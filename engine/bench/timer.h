// Timing of recorded launches: by the device's timestamps, or by the host's clock where there are none or
// where the two were found to disagree.
#pragma once

#include "bench/spread.h"
#include "bench/stop.h"
#include "gpu/device.h"

#include <chrono>
#include <functional>
#include <string>

namespace fathom::bench {

using Clock = std::chrono::steady_clock;
inline double since(Clock::time_point start) { // seconds
    return std::chrono::duration<double>(Clock::now() - start).count();
}

class Timer {
  public:
    // `stop` is asked between samples. Compares the clocks over some tenths of a second of work.
    Timer(gpu::Device& device, const Stop& stop);

    bool by_gpu() const { return by_gpu_; }
    gpu::Device& device() const { return device_; }
    const Stop& stop() const { return stop_; }

    // Seconds of one run of `dispatches`, each waiting for the one before, `samples` times after one that is
    // thrown away; `skip`: how many of the first do not count.
    std::vector<double> samples(const std::string& name, const std::vector<gpu::Dispatch>& dispatches,
                                uint32_t samples, uint32_t skip = 0) const;
    // Seconds from submitting until it is finished, by the host's clock.
    double wall(gpu::Recording& recording) const;
    // Runs `work` until three in a row agree within 2 %, or for a second: clocks go up.
    void warm_up(const std::function<double()>& work) const;

  private:
    gpu::Device& device_;
    const Stop& stop_;
    bool by_gpu_;
};

gpu::Dispatch roof_dispatch(std::string_view module, uint32_t groups, gpu::View x, gpu::View y, gpu::View z,
                            uint32_t n);

} // namespace fathom::bench
