// Plans against what there is; see fit.h. Alternatives are found by planning them, too.
#include "session/fit.h"

#include "base/error.h"
#include "base/numbers.h"
#include "base/units.h"
#include "checkpoint/blocks.h"
#include "session/engine_impl.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom {

namespace {

// Candidates for a smaller format, the best first.
constexpr Format SMALLER[] = {Format::q8_0, Format::q6_k, Format::q5_k,
                              Format::q4_k, Format::q3_k, Format::q2_k};

std::vector<MemoryPool> pools_of(const MemoryPlan& plan, const gpu::DeviceInfo& device) {
    std::vector<MemoryPool> pools;
    for (const gpu::Heap& heap : device.heaps) {
        const auto same = [&](const MemoryPool& pool) { return pool.name.starts_with("device memory"); };
        const bool more = heap.device_local && std::any_of(pools.begin(), pools.end(), same);
        const char* name = device.caps.cpu && !device.pretended ? "this machine's memory"
                           : more                               ? "device memory that the host sees"
                           : heap.device_local                  ? "device memory"
                                                                : "host memory";
        pools.push_back({name, 0, heap.available, heap.bytes});
    }
    for (const auto& item : plan.items)
        pools[device.heap_of[static_cast<size_t>(item.placement)]].needed += item.reserved;
    std::erase_if(pools, [](const MemoryPool& pool) { return pool.needed == 0; });
    return pools;
}

std::string obstacle_of(const MemoryPlan& plan, const std::vector<MemoryPool>& pools,
                        const gpu::DeviceInfo& device) {
    for (const MemoryPool& pool : pools)
        if (pool.needed > pool.available)
            return fmt::format("{} more of {} than there is", bytes_text(pool.needed - pool.available),
                               pool.name);
    if (plan.largest > device.largest_allocation)
        return fmt::format("one range of {}, and this driver allocates at most {} at once",
                           bytes_text(plan.largest), bytes_text(device.largest_allocation));
    return "";
}

uint64_t total(const MemoryPlan& plan) {
    uint64_t bytes = 0;
    for (const auto& item : plan.items) bytes += item.reserved;
    return bytes;
}

// One question asked of one device, with any changes.
class Planner {
  public:
    Planner(const FitQuestion& question, Executor& executor)
        : question_(question), executor_(executor), device_(executor.gpu()->info()) {}

    struct Answer {
        MemoryPlan plan;
        std::vector<MemoryPool> pools;
        std::string obstacle;
    };
    Answer ask(const LoadOptions& options, std::optional<Format> format = std::nullopt) const {
        Answer answer;
        answer.plan = plan_memory(question_.config, question_.source(format),
                                  model_options(question_.config, options), executor_.caps());
        answer.pools = pools_of(answer.plan, device_);
        answer.obstacle = obstacle_of(answer.plan, answer.pools, device_);
        return answer;
    }

    double rate(const MemoryPlan& plan) const {
        double seconds = 0;
        for (size_t i = 0; i < gpu::N_PLACEMENTS; ++i) {
            if (plan.read[i] == 0) continue;
            const double rate = rate_of(static_cast<gpu::Placement>(i));
            if (rate == 0) return 0;
            seconds += static_cast<double>(plan.read[i]) / rate;
        }
        return seconds > 0 ? 1 / seconds : 0;
    }
    double rate_of(gpu::Placement placement) const { // measured once
        auto& rate = rates_[static_cast<size_t>(placement)];
        if (!rate) rate = executor_.gpu()->read_rate(placement);
        return *rate;
    }

    std::vector<Fit::Alternative> alternatives() const {
        std::vector<Fit::Alternative> found;
        const auto add = [&](std::string change, const Answer& answer) {
            if (answer.obstacle.empty())
                found.push_back({std::move(change), answer.pools, rate(answer.plan)});
            return answer.obstacle.empty();
        };
        const LoadOptions& asked = question_.options;
        const bool can_move = !asked.experts_on_host && question_.config.n_routed_experts != 0;
        LoadOptions moved = asked;
        moved.experts_on_host = true;
        add_context(asked, "", add);
        add_format(asked, "", add);
        if (can_move) add("--experts host", ask(moved));
        if (!found.empty()) return found;
        if (can_move) {
            add_context(moved, "--experts host ", add);
            add_format(moved, "--experts host ", add);
        }
        if (!found.empty()) return found;
        LoadOptions least = can_move ? moved : asked; // the least there is
        least.context = least.cache_tokens = std::min<uint32_t>(PAGE_TOKENS, question_.config.max_position);
        add_format(least, fmt::format("{}--context {} ", can_move ? "--experts host " : "", least.context),
                   add);
        return found;
    }

  private:
    using Add = std::function<bool(std::string, const Answer&)>;

    // The largest context that fits, in whole pages (or the model's limit).
    void add_context(const LoadOptions& options, const std::string& also, const Add& add) const {
        const ModelOptions asked = model_options(question_.config, options);
        const auto shorter = [&](uint32_t pages) {
            LoadOptions out = options;
            out.context = pages * PAGE_TOKENS;
            if (out.cache_tokens != 0) out.cache_tokens = std::max(out.cache_tokens, out.context);
            return out;
        };
        uint32_t fits = 0, too_long = div_up(asked.context, PAGE_TOKENS); // `asked` did not fit
        while (fits + 1 < too_long) {
            const uint32_t middle = fits + (too_long - fits) / 2;
            (ask(shorter(middle)).obstacle.empty() ? fits : too_long) = middle;
        }
        if (fits != 0) add(fmt::format("{}--context {}", also, fits * PAGE_TOKENS), ask(shorter(fits)));
    }

    // The first smaller format that fits.
    void add_format(const LoadOptions& options, const std::string& also, const Add& add) const {
        const uint64_t before = total(ask(options).plan);
        for (const Format format : SMALLER) {
            const Answer answer = ask(options, format);
            if (total(answer.plan) < before &&
                add(fmt::format("{}{} {}", also, question_.other_format, name_of(format)), answer))
                return;
        }
    }

    const FitQuestion& question_;
    Executor& executor_;
    const gpu::DeviceInfo& device_;
    mutable std::array<std::optional<double>, gpu::N_PLACEMENTS> rates_;
};

} // namespace

FitQuestion fit_question(const ModelFiles& files, const LoadOptions& options) {
    uint64_t plain = 0, blocks = 0;
    for (const TensorView& tensor : files.checkpoint.tensors())
        (block_of(tensor.dtype) == 1 ? plain : blocks) += tensor.data.size();
    const auto source = [&checkpoint = files.checkpoint, options,
                         stored = blocks > plain](std::optional<Format> format) -> WeightSource {
        WeightOptions weights{.keep_mtp = options.keep_mtp, .progress = options.progress};
        if (!options.quantize.empty()) weights.quantize = format_named(options.quantize);
        if (format && !stored) weights.quantize = format;
        WeightSource own = source_of(checkpoint, weights);
        if (!format || !stored) return own;
        return {own.naming, // as `fathom quantize` would write it
                [own, format](const TensorSpec& spec) {
                    return spec.quantisable ? format_of(block_fallback(dtype_of(*format), spec.cols()))
                                            : own.format_of(spec);
                },
                own.check, own.fill};
    };
    return {model_config(files), options, source, blocks > plain ? "a file in" : "--quantize"};
}

FitQuestion fit_question(const SyntheticModel& model, const LoadOptions& options) {
    const auto source = [weights = model.weights](std::optional<Format> format) {
        SyntheticWeights other = weights;
        if (format) other.dtype = dtype_of(*format);
        return source_of(other);
    };
    return {model.config, options, source, "--format"};
}

Fit fit(const FitQuestion& question, Executor& executor) {
    check(executor.gpu(), "plans are made for devices");
    const Planner planner(question, executor);
    Planner::Answer answer = planner.ask(question.options);
    const ModelOptions options = model_options(question.config, question.options);
    Fit out{.device = executor.device_name(),
            .context = options.context,
            .cache_tokens = options.pages * PAGE_TOKENS,
            .plan = std::move(answer.plan),
            .pools = std::move(answer.pools),
            .obstacle = std::move(answer.obstacle)};
    out.tokens_per_second = planner.rate(out.plan);
    out.device_rate = planner.rate_of(gpu::Placement::device);
    if (out.plan.read[static_cast<size_t>(gpu::Placement::host)] != 0)
        out.host_rate = planner.rate_of(gpu::Placement::host);
    if (!out.obstacle.empty()) out.alternatives = planner.alternatives();
    return out;
}

Fit fit(const FitQuestion& question) {
    const auto executor = make_executor(question.options);
    return fit(question, *executor);
}

std::string pools_text(const std::vector<MemoryPool>& pools) {
    std::string text;
    for (const MemoryPool& pool : pools)
        text += fmt::format("{}{} of {}", text.empty() ? "" : ", ", bytes_text(pool.needed), pool.name);
    return text;
}

std::string bound_text(double tokens_per_second) {
    return tokens_per_second < 100 ? fmt::format("at most {:.3g} tokens/s", tokens_per_second)
                                   : fmt::format("at most {:.0f} tokens/s", tokens_per_second);
}

void check_fit(const FitQuestion& question, Executor& executor) {
    if (!executor.gpu()) return;
    if (Planner(question, executor).ask(question.options).obstacle.empty()) return;
    const Fit what = fit(question, executor);
    std::string plan, fix;
    for (const auto& item : what.plan.items)
        plan += fmt::format("{}{} {}", plan.empty() ? "" : ", ", item.owner, bytes_text(item.reserved));
    for (const auto& other : what.alternatives)
        fix += fmt::format("{} ({}{}), ", other.change, pools_text(other.pools),
                           other.tokens_per_second == 0 ? "" : "; " + bound_text(other.tokens_per_second));
    if (what.alternatives.empty()) fix = "nothing smaller fits here: choose another --device or model, ";
    std::string expected;
    for (const MemoryPool& pool : what.pools)
        expected += fmt::format("{}at most {} of {}", expected.empty() ? "" : ", ",
                                bytes_text(pool.available), pool.name);
    throw Error({.what = "the model does not fit into memory",
                 .where = what.device,
                 .expected = expected,
                 .got = fmt::format("{} ({}): {}", pools_text(what.pools), what.obstacle, plan),
                 .fix = fix + "or see `fathom inspect MODEL --device DEVICE --context N`"});
}

} // namespace fathom
