// Whole steps of small models on the device against the CPU executor, tensor by tensor: the first tap that
// differs is named, since what follows it differs because of it.
#include "model/step.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

using namespace fathom;
using namespace fathom::test;

namespace {

// Rounding grows from layer to layer: three layers in f32 stay this close; an error in any op is far beyond
// it.
constexpr double LIMIT = 1e-10;

std::vector<float> floats_of(Executor& on, const TapBuffer& tap, uint32_t n_rows) {
    std::vector<float> values(size_t{n_rows} * tap.repeat * tap.cols);
    on.download(tap.view, std::as_writable_bytes(std::span(values)));
    return values;
}

double distance(const std::vector<float>& got, const std::vector<float>& expected) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(double{got[i]} - expected[i], 2);
        norm += std::pow(double{expected[i]}, 2);
    }
    const double nmse = difference == 0 ? 0 : difference / norm;
    return std::isfinite(nmse) ? nmse : std::numeric_limits<double>::infinity();
}

// Runs one step on both executors and compares all taps in order; returns the largest distance.
double compare_step(Model& on_gpu, Executor& gpu, Model& on_cpu, Executor& cpu, const Situation& situation) {
    prepare(on_gpu, gpu, situation);
    prepare(on_cpu, cpu, situation);
    const Plan &a = on_gpu.plan(situation.kind), &b = on_cpu.plan(situation.kind);
    gpu.run(a);
    cpu.run(b);
    const auto &taps = on_gpu.taps(a), &expected = on_cpu.taps(b);
    REQUIRE(taps.size() == expected.size());
    REQUIRE(taps.size() > 3 * 8); // a model of three layers, each with its tensors
    double worst = 0;
    for (size_t i = 0; i < taps.size(); ++i) {
        REQUIRE(taps[i].name == expected[i].name);
        const auto n = static_cast<uint32_t>(situation.rows.size());
        const double nmse = distance(floats_of(gpu, taps[i], n), floats_of(cpu, expected[i], n));
        worst = std::max(worst, nmse);
        if (nmse <= LIMIT) continue;
        FAIL_CHECK(fmt::format("{}: the first tap that differs is {} (tap {} of {}), NMSE {:.2e}",
                               situation.name, taps[i].name, i, taps.size(), nmse));
        break;
    }
    return worst;
}

} // namespace

TEST_CASE("reference: every tensor of every kind of step is the CPU executor's") {
    ModelOptions options = small_options();
    options.taps = {"*"};
    for (const char* name : {"v3_base", "v3_odd", "v3_bf16", "v3_half_split", "v2_odd", "v2_groups", "v2_f16",
                             "mixed v3_base", "mixed v2_odd", "v1_plain", "mixed v1_plain"}) {
        INFO(std::string(name));
        // A device of its own: GPU-assisted validation looks every access up among all buffers, one after the
        // other, and lavapipe gives up on a shader after 65535 iterations of all its loops; the layer calls
        // what it did not get to out of bounds. Its steps are shorter too: three times the buffers would do.
        const auto gpu = gpu_executor(), cpu = make_reference_executor();
        const auto on_gpu = model_of(name, *gpu, options), on_cpu = model_of(name, *cpu, options);
        double worst = 0;
        for (const Situation& situation : situations(gpu->caps().iterations == 0 ? 8 : 16)) {
            worst = std::max(worst, compare_step(*on_gpu, *gpu, *on_cpu, *cpu, situation));
            if (situation.kind.mode != StepKind::Mode::decode) continue;
            const auto got = read(*gpu, on_gpu->state), expected = read(*cpu, on_cpu->state);
            CHECK(got == expected); // the tokens that were sampled
        }
        MESSAGE(fmt::format("{} on {}: NMSE at most {:.1e}", name, gpu->device_name(), worst));
    }
}
