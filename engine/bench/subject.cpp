// Choices; see subject.h.
#include "bench/subject.h"

#include "base/error.h"
#include "base/units.h"
#include "checkpoint/weight_format.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace fathom::bench {

namespace {

// Tried in this order where no preset is named: the largest that fits and is quick enough.
constexpr const char* CANDIDATES[] = {"glm-4.7-flash", "moonlight-16b-a3b", "v2-lite", "tiny"};
constexpr uint32_t CONTEXTS[] = {16384 + 128, 4096 + 128, 2048 + 128, 1024, 512}; // the longest that fits
constexpr double LEAST_RATE = 10; // tokens a second that a preset should decode with, by its bytes
constexpr const char* FORMULA =
    "t(whole) = t(slice) x (rest + D dense + M moe) / (rest + d dense + m moe), with the times of one dense "
    "layer, one MoE layer and the rest of a decode step from timestamps, d and m layers in the slice, D and "
    "M in "
    "all";

ModelConfig sliced(ModelConfig config, uint32_t layers) { // one dense layer, then MoE layers
    config.first_moe_layer = 1;
    config.n_layers = layers;
    config.n_mtp_layers = 0;
    return config;
}

} // namespace

std::vector<std::string> preset_names() {
    std::vector<std::string> names{SLICE};
    for (const Preset& preset : presets()) names.push_back(preset.name);
    return names;
}

const Preset& preset_named(const std::string& name) {
    if (const Preset* preset = find_preset(name)) return *preset;
    throw Error({.what = "no such preset",
                 .where = "--preset",
                 .expected = fmt::format("{}", fmt::join(preset_names(), ", ")),
                 .got = printable(name)});
}

SubjectUnderTest::SubjectUnderTest(const RunOptions& options, double read_rate) : options_(options) {
    load_ = options.load;
    gpu::DeviceOptions device;
    device.select = load_.device;
    const auto executor = make_gpu_executor(device);
    if (options.files) {
        whole_ = model_config(*options.files);
        facts_ = {
            .name = options.files->name, .source = "checkpoint", .format = "as stored", .routing = "its own"};
    } else {
        choose_preset(*executor, read_rate);
        facts_ = {.name = model_.name,
                  .source = "preset",
                  .format = std::string(name_of(options.format)),
                  .routing = options.skewed ? "skewed" : "uniform",
                  .seed = options.seed};
    }
    choose_context(*executor);
    const ModelConfig& config = options.files ? whole_ : model_.config;
    facts_.layers = config.n_layers;
    facts_.of_layers = whole_.n_layers;
    if (facts_.layers != facts_.of_layers) facts_.scaling = FORMULA;
}

SyntheticModel SubjectUnderTest::synthetic(const Preset& preset) const {
    return {preset.name, preset.config, {.dtype = dtype_of(options_.format), .seed = options_.seed}};
}

FitQuestion SubjectUnderTest::question(const SyntheticModel& model, uint32_t context) const {
    LoadOptions load = load_;
    load.context = std::min(context, model.config.max_position);
    return fit_question(model, load);
}

bool SubjectUnderTest::fits(const SyntheticModel& model, uint32_t context, Executor& executor) const {
    return fit(question(model, context), executor).obstacle.empty();
}

void SubjectUnderTest::choose_preset(Executor& executor, double read_rate) {
    const bool automatic = options_.preset.empty();
    const std::string name = !automatic ? options_.preset : executor.caps().cpu ? "tiny" : "";
    if (name == SLICE) return choose_slice(executor);
    if (name.empty()) {
        for (const char* candidate : CANDIDATES) {
            model_ = synthetic(*find_preset(candidate));
            whole_ = model_.config;
            const Fit plan = fit(question(model_, CONTEXTS[2]), executor);
            uint64_t read = 0;
            for (const uint64_t bytes : plan.plan.read) read += bytes;
            if (plan.obstacle.empty() && read_rate > LEAST_RATE * double(read)) return;
        }
        return; // tiny
    }
    model_ = synthetic(preset_named(name));
    whole_ = model_.config;
}

void SubjectUnderTest::choose_slice(Executor& executor) {
    const Preset& v3 = *find_preset("v3");
    model_ = synthetic(v3);
    model_.name = SLICE;
    whole_ = v3.config;
    whole_.n_mtp_layers = 0;
    uint32_t fitting = 1, too_many = whole_.n_layers + 1; // layers
    while (fitting + 1 < too_many) {
        const uint32_t middle = fitting + (too_many - fitting) / 2;
        model_.config = sliced(whole_, middle);
        (fits(model_, CONTEXTS[2], executor) ? fitting : too_many) = middle;
    }
    model_.config = sliced(whole_, std::max(2u, fitting)); // the least has a layer of each kind
}

void SubjectUnderTest::choose_context(Executor& executor) {
    Fit plan;
    std::vector<uint32_t> contexts(std::begin(CONTEXTS), std::end(CONTEXTS));
    if (load_.context != 0) contexts = {load_.context};
    for (const uint32_t context : contexts) {
        if (options_.files) {
            load_.context = std::min(context, whole_.max_position);
            plan = fit(fit_question(*options_.files, load_), executor);
        } else {
            load_.context = std::min(context, model_.config.max_position);
            plan = fit(question(model_, context), executor);
        }
        if (!plan.obstacle.empty()) continue;
        for (const uint64_t bytes : plan.plan.read) token_bytes_ += bytes;
        for (const auto& item : plan.plan.items)
            if (item.owner.starts_with("weights")) facts_.weight_bytes += item.bytes;
        count_parameters();
        return;
    }
    refuse(plan, executor);
}

void SubjectUnderTest::count_parameters() {
    const FitQuestion asked = options_.files ? fit_question(*options_.files, load_) : question(model_, 1);
    Weights unused;
    for (const TensorSpec& spec : layout_of(asked.config, asked.source(std::nullopt), {}, unused).tensors) {
        uint64_t count = spec.mtp ? 0 : 1;
        for (const uint64_t extent : spec.shape) count *= extent;
        facts_.parameters += count;
    }
}

void SubjectUnderTest::refuse(const Fit& plan, Executor& executor) const {
    std::string fix;
    for (const auto& other : plan.alternatives) fix += (fix.empty() ? "" : ", ") + other.change;
    std::vector<std::string> others;
    for (const char* candidate : CANDIDATES)
        if (candidate != model_.name && fits(synthetic(*find_preset(candidate)), CONTEXTS[2], executor))
            others.push_back(candidate);
    if (!others.empty())
        fix += fmt::format("{}--preset {}", fix.empty() ? "" : ", ", fmt::join(others, ", "));
    std::string expected;
    for (const MemoryPool& pool : plan.pools)
        expected += fmt::format("{}at most {} of {}", expected.empty() ? "" : ", ",
                                bytes_text(pool.available), pool.name);
    throw Error(
        {.what = fmt::format("{} in {} does not fit into memory", facts_.name, facts_.format),
         .where = plan.device,
         .expected = expected,
         .got = fmt::format("{} ({})", pools_text(plan.pools), plan.obstacle),
         .fix = fix.empty() ? "nothing fits here: choose another --device" : "what would fit: " + fix});
}

std::unique_ptr<Engine> SubjectUnderTest::load() const {
    if (options_.files) return std::make_unique<Engine>(*options_.files, load_);
    auto engine = std::make_unique<Engine>(model_, load_);
    if (options_.skewed) favour_a_tenth(*engine);
    return engine;
}

double slice_factor(const SliceTimes& t, uint32_t all_dense, uint32_t all_moe) {
    return (t.rest + t.dense * all_dense / t.n_dense + t.moe * all_moe / t.n_moe) /
           (t.rest + t.dense + t.moe);
}

// About what lies between the least score that is chosen and the middle one.
void favour_a_tenth(Engine& engine) {
    const ModelConfig& c = engine.config();
    if (c.n_routed_experts == 0) return;
    const float key = c.scoring == Scoring::sigmoid ? 0.3f : 2.0f / static_cast<float>(c.n_routed_experts);
    Steering steering;
    for (uint32_t layer = 0; layer < c.n_layers; ++layer)
        for (uint32_t e = 0; c.is_moe(layer) && e < c.n_routed_experts; ++e)
            steering.key.push_back(e < std::max(1u, c.n_routed_experts / 10) ? key : 0);
    engine.set_steering(steering);
}

} // namespace fathom::bench
