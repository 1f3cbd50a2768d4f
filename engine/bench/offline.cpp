// Plans without memory, compiled; see offline.h.
#include "bench/offline.h"

#include "base/error.h"
#include "bench/facts.h"
#include "bench/kernels.h"
#include "model/forward.h"
#include "model/ops/product.h"
#include "model/traffic.h"

#include <fmt/format.h>
#include <set>

namespace fathom::bench {

namespace {

// The words of RADV, ANV and NVK. Spills are those of vector registers; ANV counts its fills apart.
const std::map<std::string_view, const char*> WORDS = {{"Subgroup size", "subgroup"},
                                                       {"VGPRs", "registers"},
                                                       {"Spilled VGPRs", "spills"},
                                                       {"Subgroups per SIMD", "occupancy"},
                                                       {"LDS size", "shared"},
                                                       {"Workgroup Memory Size", "shared"},
                                                       {"SLM size", "shared"},
                                                       {"Latency", "cycles"},
                                                       {"Instructions", "instructions"},
                                                       {"Max live registers", "registers"},
                                                       {"Spills", "spills"},
                                                       {"Cycles", "cycles"},
                                                       {"Number of GPRs", "registers"},
                                                       {"Spills to memory", "spills"},
                                                       {"Max warps/SM", "occupancy"},
                                                       {"Static cycle count", "cycles"},
                                                       {"Instruction count", "instructions"}};

// `lanes` as of Variant.
PipelineRow compile(gpu::Device& device, const char* step, const Op& op, uint32_t lanes) {
    const Variant variant(tier_of(op.module), lanes);
    PipelineRow row{.step = step,
                    .op = variant == Variant() ? op_name(op)
                                               : fmt::format("{} [{}]", op_name(op), variant.text()),
                    .kernel = std::string(kernel_of(op.module)),
                    .format = op_format(op),
                    .constants = op.constants};
    try {
        for (const gpu::Statistic& s : device.statistics(op)) {
            if (s.name.find("ash") != std::string::npos) continue; // hashes are no numbers
            row.statistics[s.name] = s.value;
            if (const auto word = WORDS.find(s.name); word != WORDS.end())
                row.summary[word->second] = s.value;
        }
    } catch (const std::exception& error) {
        row.failure = error.what();
    }
    return row;
}

} // namespace

Report offline(const RunOptions& options) {
    Report report{.kind = "offline", .tool = options.tool};
    report.time_utc = utc_now();
    report.run_id = random_id();
    report.host = host_facts();
    gpu::DeviceOptions wish;
    wish.select = options.load.device;
    gpu::Device device(wish);
    report.device = device_facts(device.info());
    if (!device.info().caps.statistics)
        throw Error({.what = "this driver tells nothing about compiled pipelines",
                     .where = device.info().name,
                     .expected = "VK_KHR_pipeline_executable_properties",
                     .got = device.info().driver,
                     .fix = "choose another --device"});
    const std::string name = options.preset.empty()    ? "v2-lite"
                             : options.preset == SLICE ? "v3"
                                                       : options.preset;
    const Preset& preset = preset_named(name);
    const ModelConfig& config = preset.config;
    report.subject = {.name = preset.name,
                      .source = "preset",
                      .format = std::string(name_of(options.format)),
                      .layers = config.n_layers,
                      .of_layers = config.n_layers};
    WeightSource source = source_of({.dtype = dtype_of(options.format)});
    source.fill = [](const Layout&, Executor&) {};
    const gpu::Caps& caps = device.info().caps;
    const auto executor = make_planning_executor(caps);
    fathom::ModelOptions model_options;
    model_options.context = std::min(config.max_position, 4096u);
    model_options.pages = model_options.context / PAGE_TOKENS;
    Model model(config, source, model_options, *executor);
    model.watch({.layers = {config.n_layers - 1}, .n_heads = 1}); // the kernels of those who watch, too
    const auto steps = {std::pair{"decode", StepKind{StepKind::Mode::decode, 1}},
                        std::pair{"prefill", StepKind{StepKind::Mode::prefill, MAX_ROWS, true, 1}}};
    std::set<std::pair<std::string_view, std::vector<uint32_t>>> seen;
    for (const auto& [step, kind] : steps)
        for (const Tier tier : TIERS)
            for (const uint32_t lanes : lanes_to_try(tier, kind.mode == StepKind::Mode::prefill, caps)) {
                const std::unique_ptr<Plan> plan = model.make_plan(kind, Tiers(Variant(tier, lanes)));
                for (const size_t i : distinct_ops(*plan))
                    if (seen.emplace(plan->ops()[i].module, plan->ops()[i].constants).second) {
                        report.pipelines.push_back(compile(device, step, plan->ops()[i], lanes));
                        if (options.on_change) options.on_change(report);
                    }
            }
    return report;
}

} // namespace fathom::bench
