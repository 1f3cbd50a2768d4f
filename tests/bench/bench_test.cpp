// Benchmark runs of the smallest preset: what is measured, what is caught, and what goes on after something
// went wrong.
#include "base/error.h"
#include "bench/models.h"
#include "bench/run.h"
#include "bench/subject.h"
#include "bench/text.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>

using namespace fathom;
using namespace fathom::bench;

namespace {

RunOptions quick(std::set<Section> sections) {
    RunOptions options;
    if (const char* device = std::getenv("FATHOM_TEST_DEVICE")) options.load.device = device;
    options.preset = "tiny";
    options.sections = std::move(sections);
    options.samples = 2;
    options.seconds = 0; // of the model only what is decided before anything is known
    return options;
}
Report run_quick(RunOptions options) {
    Stop stop;
    return run(options, stop);
}

// The same as far as the kernels of the first step.
Report run_decode(RunOptions options) {
    Stop stop;
    options.on_change = [&](const Report& report) {
        if (!report.kernels.empty() && report.kernels.back().step == "prefill") stop.request();
    };
    return run(options, stop);
}

const KernelRow* find(const Report& report, std::string_view step, std::string_view op) {
    for (const KernelRow& row : report.kernels)
        if (row.step == step && row.op == op) return &row;
    return nullptr;
}

} // namespace

TEST_CASE("bench: every kernel of both steps is right, and has a speed") {
    const Report report = run_quick(quick({Section::overheads, Section::kernels}));
    CHECK(report.errors.empty());
    for (const char* op :
         {"embed", "q_kv_a", "latent_write", "absorb", "latent_attention", "latent_attention.combine", "o",
          "router", "moe_up", "moe_down", "logits", "sample"})
        CHECK_MESSAGE(find(report, "decode", op), op);
    for (const char* op :
         {"embed", "attn_norm", "kv_b", "expanded_attention", "expert_sort", "moe_up", "moe_down.reduce"})
        CHECK_MESSAGE(find(report, "prefill", op), op);
    for (const KernelRow& row : report.kernels) {
        CAPTURE(row.step + " " + row.op + " " + row.shape);
        CHECK(row.failure == "");
        CHECK(row.error < ERROR_LIMIT);
        CHECK(row.cold.n == 2);
        CHECK(row.hot.n == 2);
        CHECK(row.cold.median > 0);
        CHECK(row.bytes > 0);
        CHECK(row.gbs == doctest::Approx(double(row.bytes) / row.cold.median / 1000));
    }
    CHECK(report.overheads.launches.size() == 3);
    CHECK(report.dispatches_per_token > 0);
    CHECK(report.peak_bytes > report.subject.weight_bytes);
    const KernelRow* up = find(report, "decode", "moe_up");
    CHECK(up->format == "q4_k");
    CHECK(up->kernel == "moe_up");
    CHECK(report_from_json(to_json(report).dump(), "here").kernels.size() == report.kernels.size());
}

TEST_CASE("bench: a kernel that is wrong shows no speed, and the others stay right") {
    for (const char* kernel : {"latent_write", "moe_down", "router"}) {
        RunOptions options = quick({Section::kernels});
        options.wrong_kernel = kernel;
        const Report report = run_decode(options);
        size_t wrong = 0;
        for (const KernelRow& row : report.kernels) {
            CAPTURE(row.step + " " + row.op);
            const bool spoiled = row.kernel == kernel;
            wrong += spoiled;
            CHECK(row.failure.empty() == !spoiled);
            CHECK((row.cold.n == 0) == spoiled);
            CHECK((row.hot.n == 0) == spoiled);
            if (spoiled) CHECK(row.gops + row.gbs + row.percent == 0);
        }
        CHECK(wrong >= 1);
        Printer printer(plain_look());
        CHECK(printer.news(report).find("FAILED: ") != std::string::npos);
    }
}

TEST_CASE("bench: a lost device marks its kernel, and the rest goes on") {
    const Report whole = run_decode(quick({Section::kernels}));
    using Names = std::pair<const char*, const char*>;
    for (const auto& [kernel, op] : {Names("cached_attention", "latent_attention"),
                                     Names("moe_up", "moe_up")}) { // the latter twice in a step
        RunOptions options = quick({Section::kernels});
        options.lost_kernel = kernel;
        const Report report = run_decode(options);
        REQUIRE(report.kernels.size() == whole.kernels.size());
        bool met = false;
        for (size_t i = 0; i < report.kernels.size(); ++i) {
            CAPTURE(report.kernels[i].op);
            CHECK(report.kernels[i].op == whole.kernels[i].op);
            const bool lost = !met && whole.kernels[i].kernel == kernel;
            CHECK(report.kernels[i].failure == (lost ? "the device was lost" : ""));
            met |= lost;
        }
        CHECK(met);
        REQUIRE(report.errors.size() == 1);
        CHECK(report.errors.front().starts_with(fmt::format("decode {}: the GPU was lost", op)));
    }
}

TEST_CASE("bench: stopping keeps what was measured") {
    RunOptions options = quick({Section::kernels});
    Stop stop;
    options.on_change = [&](const Report& report) {
        if (report.kernels.size() == 4) stop.request();
    };
    const Report report = run(options, stop);
    CHECK(report.kernels.size() == 4);
    CHECK(report.flagged("interrupted"));
}

TEST_CASE("bench: skewed routing is skewed") {
    double share[2];
    for (const bool skewed : {false, true}) {
        LoadOptions load = quick({}).load;
        load.context = 128;
        Engine engine(SyntheticModel{"tiny", preset_named("tiny").config, {}}, load);
        if (skewed) favour_a_tenth(engine);
        Stop stop;
        ModelBench bench(engine, stop);
        CHECK(bench.prompt(100, 0) > 0);
        CHECK(bench.decode(2, 20, 3).size() == 2);
        share[skewed] = bench.busiest_tenth();
    }
    CHECK(share[0] > 0);
    CHECK(share[1] > 1.3 * share[0]); // one of 16 experts
    MESSAGE("the busiest expert took " << share[0] << ", favoured " << share[1]);
}

TEST_CASE("bench: what cannot be measured is said") {
    RunOptions options = quick({Section::kernels});
    options.preset = "no-such";
    Stop stop;
    CHECK_THROWS_WITH_AS(run(options, stop), doctest::Contains("v3-slice"), Error);
}
