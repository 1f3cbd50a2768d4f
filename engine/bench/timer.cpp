// Clocks; see timer.h.
#include "bench/timer.h"

#include "base/error.h"
#include "base/log.h"
#include "params.h"

#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <numeric>

namespace fathom::bench {

gpu::Dispatch roof_dispatch(std::string_view module, uint32_t groups, gpu::View x, gpu::View y, gpu::View z,
                            uint32_t n) {
    gpu::Dispatch dispatch;
    dispatch.module = module;
    dispatch.label = module;
    dispatch.grid[0] = groups;
    const RoofProbe p{x.address, y.address, z.address, n, 12345};
    dispatch.params_bytes = sizeof(p);
    std::memcpy(dispatch.params, &p, sizeof(p));
    dispatch.barrier = true;
    return dispatch;
}

Timer::Timer(gpu::Device& device, const Stop& stop)
    : device_(device), stop_(stop), by_gpu_(device.info().caps.timestamps) {
    if (!by_gpu_) return;
    const gpu::View sink =
        device.allocate("benchmark", gpu::Placement::device, std::array{uint64_t{256}}).front();
    const uint32_t groups = device.info().caps.cpu ? 64 : 4096;
    uint32_t rounds = 16;
    for (;;) { // until a launch takes long enough for both clocks
        gpu::Recording recording = device.record(
            "clocks", std::array{roof_dispatch("roof_fma", groups, sink, sink, sink, rounds)}, true);
        const double all = wall(recording), own = recording.seconds().front();
        if (all < 0.05 && rounds < 16384) {
            rounds *= 2;
            continue;
        }
        by_gpu_ = std::isfinite(own) && std::abs(own - all) <= 0.2 * all;
        if (!by_gpu_)
            log::detail("timestamps say {} s where the clock says {} s: the clock is used", own, all);
        return;
    }
}

double Timer::wall(gpu::Recording& recording) const {
    const auto start = Clock::now();
    device_.wait(device_.submit(recording));
    return since(start);
}

std::vector<double> Timer::samples(const std::string& name, const std::vector<gpu::Dispatch>& dispatches,
                                   uint32_t samples, uint32_t skip) const {
    gpu::Recording recording = device_.record(name, dispatches, by_gpu_);
    std::vector<double> out;
    if (by_gpu_) {
        for (uint32_t i = 0; i <= samples; ++i) {
            stop_.check();
            wall(recording);
            const std::vector<double> each = recording.seconds();
            if (i != 0) out.push_back(std::accumulate(each.begin() + skip, each.end(), 0.0));
        }
        return out;
    }
    double skipped = 0;
    if (skip != 0) {
        const std::vector<gpu::Dispatch> first(dispatches.begin(), dispatches.begin() + skip);
        skipped = spread_of(this->samples(name, first, samples)).median;
    }
    for (uint32_t i = 0; i <= samples; ++i) {
        stop_.check();
        const double seconds = wall(recording) - skipped;
        if (i != 0) out.push_back(std::max(seconds, 1e-9));
    }
    return out;
}

void Timer::warm_up(const std::function<double()>& work) const {
    const auto start = Clock::now();
    double a = work(), b = work();
    while (since(start) < 1) {
        stop_.check();
        const double c = work(), least = std::min({a, b, c}), most = std::max({a, b, c});
        if (most <= 1.02 * least) return;
        a = b, b = c;
    }
}

} // namespace fathom::bench
