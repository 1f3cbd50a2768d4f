// Kernels one by one; see kernels.h.
#include "bench/kernels.h"

#include "base/error.h"
#include "base/numbers.h"
#include "bench/roofs.h"
#include "bench/timer.h"
#include "model/check.h"
#include "model/forward.h"
#include "model/ops/product.h"

#include <algorithm>
#include <map>
#include <random>
#include <tuple>

namespace fathom::bench {

namespace {

constexpr double HOT_SECONDS = 0.004; // of launches in one list
constexpr uint32_t HOT_LAUNCHES = 64;

// What is read between cold launches; less where the model has left little.
View scratch_of(Executor& executor) {
    for (uint64_t bytes = flush_bytes(executor.gpu()->info());; bytes /= 2) try {
            return executor.allocate("benchmark", gpu::Placement::device, bytes);
        } catch (const Error&) {
            if (bytes <= (1u << 20)) throw;
        }
}

class Bench {
  public:
    Bench(Model& model, Executor& executor, uint32_t sequence, const KernelOptions& options,
          const Report& report, const Stop& stop)
        : model_(model), executor_(executor), sequence_(sequence), options_(options), report_(report),
          timer_(*executor.gpu(), stop), scratch_(scratch_of(executor)) {}

    void step(const std::string& name, StepKind kind, const std::vector<StepRow>& rows) {
        rows_ = rows;
        const Plan& plan = model_.plan(kind);
        model_.write_step(kind, rows_);
        executor_.run(plan);
        for (const size_t i : distinct_ops(plan)) {
            timer_.stop().check();
            const Op& op = plan.ops()[i];
            const KernelId id{name, i, op_name(op)};
            if (options_.skip.contains(id)) continue;
            if (options_.starts) options_.starts(id);
            if (kernel_of(op.module) == options_.lost)
                throw gpu::DeviceLost({.what = "the GPU was lost", .where = "test hook"});
            model_.write_step(kind, rows_);
            KernelRow row = measure(op, kind);
            row.step = name;
            options_.on_row(row);
        }
    }

  private:
    StepFacts facts() const {
        return {rows_, [this](View view, std::span<uint32_t> words) {
                    executor_.download(view, std::as_writable_bytes(words));
                }};
    }

    KernelRow measure(const Op& op, StepKind kind) {
        const Traffic traffic = traffic_of(op, facts());
        const gpu::Dispatch launch = launch_alone(op, kernel_of(op.module) == options_.wrong);
        KernelRow row{.op = op_name(op),
                      .kernel = std::string(kernel_of(op.module)),
                      .format = op_format(op),
                      .shape = traffic.shape,
                      .rows = static_cast<uint32_t>(rows_.size()),
                      .depth = rows_.back().position + 1,
                      .bytes = traffic.bytes(),
                      .flops = traffic.flops};
        const Verdict verdict =
            check_kernel(op, launch, facts(), executor_, {error_limit(tier_of(op.module))});
        row.error = verdict.error;
        row.failure = verdict.failure;
        if (!row.failure.empty()) return row;
        model_.write_step(kind, rows_);
        const std::vector<double> cold =
            timer_.samples(op.label, {flush_dispatch(scratch_), launch}, options_.samples, 1);
        row.cold = scaled(spread_of(cold), 1e6);
        const double once = std::max(spread_of(cold).median, 1e-7);
        const auto n = static_cast<uint32_t>(std::clamp(HOT_SECONDS / once, 1.0, double(HOT_LAUNCHES)));
        const std::vector<gpu::Dispatch> list(n, launch);
        row.hot = scaled(spread_of(timer_.samples(op.label, list, options_.samples)), 1e6 / n);
        row.gbs = double(row.bytes) / row.cold.median * 1e-3;
        row.gops = row.flops / row.cold.median * 1e-3;
        const Share share = share_of_roof(report_, double(row.bytes), row.flops, row.cold.median);
        row.percent = share.percent;
        row.bound = share.bound;
        return row;
    }

    Model& model_;
    Executor& executor_;
    const uint32_t sequence_;
    const KernelOptions& options_;
    const Report& report_;
    const Timer timer_;
    const View scratch_;
    std::vector<StepRow> rows_;
};

} // namespace

std::string op_name(const Op& op) {
    if (!op.label.starts_with("layers.")) return op.label;
    return op.label.substr(op.label.find('.', 7) + 1);
}

std::string op_format(const Op& op) { return std::string(format_of(op.module)); }

std::vector<size_t> distinct_ops(const Plan& plan) {
    std::vector<size_t> found;
    std::set<std::tuple<std::string, std::string_view, std::vector<uint32_t>, std::array<uint32_t, 3>>> seen;
    for (size_t i = 0; i < plan.ops().size(); ++i) {
        const Op& op = plan.ops()[i];
        if (seen.emplace(op_name(op), op.module, op.constants, std::to_array(op.grid)).second)
            found.push_back(i);
    }
    return found;
}

void measure_kernels(Engine& engine, const KernelOptions& options, const Report& report, Stop& stop) {
    std::mt19937 random(1);
    std::uniform_int_distribution<Token> any(0, engine.config().vocab_size - 1);
    std::vector<Token> tokens(options.depth);
    for (Token& token : tokens) token = any(random);
    Session session = engine.open();
    session.sampling().temperature = 0;
    {
        const Stop::Working working(stop, session);
        session.feed(tokens);
        session.next();
    }
    engine.examine(session, [&](Model& model, Executor& executor, uint32_t sequence) {
        Bench bench(model, executor, sequence, options, report, stop);
        const uint32_t last = options.depth - 1, n = std::min(options.depth, options.rows),
                       first = options.depth - n;
        bench.step("decode", {StepKind::Mode::decode, 1}, {{tokens[last], last, sequence}});
        std::vector<StepRow> rows;
        for (uint32_t i = first; i < options.depth; ++i) rows.push_back({tokens[i], i, sequence});
        bench.step("prefill",
                   {StepKind::Mode::prefill, bucket_for(n), true, history_blocks(bucket_for(n), first)},
                   rows);
    });
}

} // namespace fathom::bench
