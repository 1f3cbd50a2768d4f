// Bandwidth, arithmetic and launches; see roofs.h.
#include "bench/roofs.h"

#include "params.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom::bench {

namespace {

using gpu::Dispatch;
using gpu::View;

constexpr uint32_t GROUP_BYTES = 64 * ROOF_STEPS * 16; // that a workgroup of a memory kernel moves

class Prober {
  public:
    Prober(const Timer& timer, uint32_t samples, const std::function<void(const Roof&)>& on_roof)
        : timer_(timer), device_(timer.device()), info_(device_.info()), samples_(samples),
          on_roof_(on_roof) {}

    void bandwidth() {
        const uint64_t bytes = roof_bytes(info_);
        const std::vector<uint64_t> sizes(3, bytes);
        const std::vector<View> b = device_.allocate("benchmark", gpu::Placement::device, sizes);
        const auto groups = static_cast<uint32_t>(bytes / GROUP_BYTES);
        const auto run = [&](const char* name, const char* module, double moved) {
            const std::vector<Dispatch> one{roof_dispatch(module, groups, b[0], b[1], b[2], 0)};
            timer_.warm_up([&] { return timer_.samples(name, one, 1).front(); });
            tell(name, "GB/s", timer_.samples(name, one, samples_), moved * double(bytes) * 1e-9);
        };
        run("read", "roof_read", 1);
        run("copy", "roof_copy", 2);
        run("triad", "roof_triad", 3);
        transfers(b[0], std::min<uint64_t>(bytes, 64u << 20));
    }

    void arithmetic() {
        const double lane = 64.0 * ROOF_STEPS; // operations of one workgroup in one round, for each chain
        compute("fma_f32", "roof_fma", {}, 2 * 16 * lane);
        if (info_.caps.float16) compute("fma_f16", "roof_fma_f16", {}, 2 * 32 * lane);
        if (info_.caps.int8_dot) compute("dot_i8", "roof_dot", {}, 8 * 16 * lane);
        if (!info_.caps.pinned_subgroups) return; // how many subgroups share a matrix is not known
        for (const gpu::MatrixShape& shape : info_.caps.matrices) {
            const double subgroups = 64.0 / info_.caps.subgroup_size;
            compute(fmt::format("matrix_{}_{}x{}x{}", shape.types, shape.m, shape.n, shape.k),
                    matrix_module(shape.types), {shape.m, shape.n, shape.k},
                    8 * subgroups * 2 * shape.m * shape.n * shape.k);
        }
    }

  private:
    // Modules are named by views: theirs must last.
    static std::string_view matrix_module(const std::string& types) {
        return types == "f16_f32"   ? "roof_matrix_f16_f32"
               : types == "f16_f16" ? "roof_matrix_f16_f16"
                                    : "roof_matrix_s8_s32";
    }

    void tell(std::string name, const char* unit, const std::vector<double>& seconds, double work) const {
        on_roof_({std::move(name), unit, inverse(spread_of(seconds), work), 0});
    }

    void transfers(View on_device, uint64_t bytes) {
        const View host = device_.allocate("benchmark", gpu::Placement::readback, std::array{bytes}).front();
        const View part{on_device.address, bytes};
        const auto run = [&](const char* name, View from, View to) {
            std::vector<double> seconds;
            for (uint32_t i = 0; i <= samples_; ++i) {
                timer_.stop().check();
                const auto start = Clock::now();
                device_.copy(from, to);
                if (i != 0) seconds.push_back(since(start));
            }
            tell(name, "GB/s", seconds, double(bytes) * 1e-9);
        };
        run("host_to_device", host, part);
        run("device_to_host", part, host);
    }

    void compute(std::string name, std::string_view module, std::vector<uint32_t> constants,
                 double operations) {
        if (sink_.bytes == 0)
            sink_ = device_.allocate("benchmark", gpu::Placement::device, std::array{uint64_t{256}}).front();
        const uint32_t groups = info_.caps.cpu ? 256 : 8192;
        std::vector<Dispatch> one;
        const auto with = [&](uint32_t rounds) {
            one = {roof_dispatch(module, groups, sink_, sink_, sink_, rounds)};
            one.front().constants = constants;
        };
        uint32_t rounds = 4;
        for (;; rounds *= 2) { // a launch of some milliseconds, whatever the device
            with(rounds);
            if (timer_.samples(name, one, 1).front() > 0.005 || rounds >= 16384) break;
        }
        timer_.warm_up([&] { return timer_.samples(name, one, 1).front(); });
        tell(std::move(name), "Gop/s", timer_.samples(name, one, samples_),
             operations * groups * rounds * 1e-9);
    }

    const Timer& timer_;
    gpu::Device& device_;
    const gpu::DeviceInfo& info_;
    const uint32_t samples_;
    const std::function<void(const Roof&)>& on_roof_;
    View sink_;
};

// Microseconds of `n` empty launches from submitting to the end, by the host's clock.
double empty_launches(const Timer& timer, const Dispatch& launch, uint32_t n, uint32_t samples,
                      double* record = nullptr) {
    const std::vector<Dispatch> list(n, launch);
    const auto start = Clock::now();
    gpu::Recording recording = timer.device().record("empty launches", list);
    if (record) *record = since(start) * 1e6 / n;
    std::vector<double> seconds;
    for (uint32_t i = 0; i <= samples; ++i) {
        timer.stop().check();
        const double wall = timer.wall(recording);
        if (i != 0) seconds.push_back(wall * 1e6);
    }
    return spread_of(seconds).median;
}

} // namespace

uint64_t roof_bytes(const gpu::DeviceInfo& info) {
    const uint64_t available = info.heaps[info.heap_of[0]].available;
    uint64_t bytes = info.caps.cpu ? 64u << 20 : 256u << 20; // a CPU takes too long
    while (bytes > (1u << 20) && 6 * bytes > available) bytes /= 2;
    return bytes;
}

uint64_t flush_bytes(const gpu::DeviceInfo& info) {
    return info.caps.cpu ? roof_bytes(info) / 2 : roof_bytes(info);
}

Dispatch flush_dispatch(View scratch) {
    return roof_dispatch("roof_read", static_cast<uint32_t>(scratch.bytes / GROUP_BYTES), scratch, scratch,
                         scratch, 0);
}

void measure_roofs(const Timer& timer, uint32_t samples, const std::function<void(const Roof&)>& on_roof) {
    Prober prober(timer, samples, on_roof);
    prober.arithmetic();
    prober.bandwidth();
}

Overheads measure_overheads(const Timer& timer, uint32_t samples) {
    gpu::Device& device = timer.device();
    const View words =
        device.allocate("benchmark", gpu::Placement::device, std::array{uint64_t{256}}).front();
    const uint32_t one[3] = {1, 1, 1};
    device.upload(words, 0, std::as_bytes(std::span(one)));
    device.flush();
    Overheads out;
    Dispatch launch = roof_dispatch("roof_empty", 1, words, words, words, 0);
    out.round_trip = empty_launches(timer, launch, 1, 2 * samples);
    gpu::Recording single = device.record("an empty launch", std::array{launch});
    std::vector<double> submits;
    for (uint32_t i = 0; i < 2 * samples; ++i) {
        const auto start = Clock::now();
        const uint64_t ticket = device.submit(single);
        submits.push_back(since(start) * 1e6);
        device.wait(ticket);
    }
    out.submit = spread_of(submits).median;
    for (const char* name : {"plain", "barrier", "indirect"}) {
        launch.barrier = std::string_view(name) == "barrier";
        launch.indirect = std::string_view(name) == "indirect" ? View{words.address, 12} : View{};
        std::vector<double> counts, times;
        for (uint32_t n = 1; n <= 4096; n *= 4) {
            counts.push_back(n);
            times.push_back(empty_launches(timer, launch, n, n < 1024 ? samples : std::max(3u, samples / 3),
                                           n == 1024 ? &out.record : nullptr));
        }
        const Line line = line_through(counts, times);
        out.launches.push_back({name, line.intercept, line.slope});
    }
    return out;
}

} // namespace fathom::bench
