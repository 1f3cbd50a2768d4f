// The order of things; see run.h.
#include "bench/run.h"

#include "base/error.h"
#include "bench/facts.h"
#include "bench/kernels.h"
#include "bench/models.h"
#include "bench/roofs.h"
#include "bench/subject.h"
#include "bench/timer.h"
#include "model/forward.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fmt/format.h>

namespace fathom::bench {

namespace {

// Roofs that are held against themselves at the end of a run.
constexpr std::string_view REFERENCE_ROOFS[] = {"read", "copy", "fma_f32"};

class Run {
  public:
    Run(const RunOptions& options, Stop& stop) : options_(options), stop_(stop) {
        report_.tool = options.tool;
        report_.time_utc = utc_now();
        report_.run_id = random_id();
        report_.host = host_facts();
    }

    Report go() {
        const bool with_model = wants(Section::kernels) || wants(Section::model);
        // What was named is refused before anything is measured; else the roofs help to choose.
        if (with_model && (options_.files || !options_.preset.empty())) subject_.emplace(options_, INFINITY);
        try {
            first_roofs();
            if (with_model) try {
                    subject();
                } catch (const Error& error) { // what was measured before counts
                    report_.errors.push_back(error.what());
                }
            if (wants(Section::roofs)) last_roofs();
        } catch (const Stopped&) {
        } catch (const Cancelled&) {
        }
        if (stop_.requested()) report_.flags.push_back("interrupted");
        judge();
        changed();
        return std::move(report_);
    }

  private:
    bool wants(Section section) const { return options_.sections.contains(section); }
    void changed() const {
        if (options_.on_change) options_.on_change(report_);
    }
    void progress(const std::string& what) const {
        if (options_.on_progress) options_.on_progress(what);
    }
    gpu::DeviceOptions device_options() const {
        gpu::DeviceOptions device;
        device.select = options_.load.device;
        return device;
    }

    void first_roofs() {
        gpu::Device device(device_options());
        report_.device = device_facts(device.info());
        if (device.info().caps.cpu) report_.flags.push_back("software device");
        const Timer timer(device, stop_);
        report_.method.clock = timer.by_gpu() ? "gpu" : "wall";
        report_.method.samples = options_.samples;
        report_.method.flush_bytes = flush_bytes(device.info());
        changed();
        try {
            progress("overheads");
            if (wants(Section::overheads)) report_.overheads = measure_overheads(timer, options_.samples);
            changed();
            if (!wants(Section::roofs)) return;
            progress("roofs");
            measure_roofs(timer, options_.samples, [&](const Roof& roof) {
                report_.roofs.push_back(roof);
                changed();
            });
        } catch (const gpu::DeviceLost& error) {
            report_.errors.push_back(std::string("roofs: ") + error.what());
        }
    }

    void last_roofs() {
        progress("roofs again");
        try {
            gpu::Device device(device_options());
            const Timer timer(device, stop_);
            measure_roofs(timer, options_.samples, [&](const Roof& roof) {
                for (Roof& first : report_.roofs)
                    if (first.name == roof.name) first.last = roof.rate.median;
            });
        } catch (const Error& error) {
            report_.errors.push_back(std::string("roofs at the end: ") + error.what());
        }
    }

    void subject() {
        if (!subject_) {
            progress("choosing what to measure");
            const Roof* read = report_.roof("read");
            subject_.emplace(options_, read ? read->rate.median * 1e9 : INFINITY);
        }
        const SubjectUnderTest& subject = *subject_;
        report_.subject = subject.facts();
        changed();
        progress("making the weights");
        std::unique_ptr<Engine> engine = subject.load();
        report_.dispatches_per_token = engine->dispatches_per_token();
        report_.peak_bytes = engine->memory().total;
        if (wants(Section::kernels)) kernels(subject, engine);
        if (wants(Section::model)) model(subject, *engine);
    }

    // A lost device takes the engine with it: a new one goes on after the kernel that it was lost in.
    void kernels(const SubjectUnderTest& subject, std::unique_ptr<Engine>& engine) {
        std::optional<KernelId> current;
        const bool software = report_.flagged("software device");
        KernelOptions options{.samples = options_.samples,
                              .depth = std::min(subject.context() - 2, software ? 256u : 4096u),
                              .rows = software ? 64u : 256u,
                              .wrong = options_.wrong_kernel,
                              .lost = options_.lost_kernel,
                              .starts =
                                  [&](const KernelId& id) {
                                      current = id;
                                      progress(id.step + " " + id.op);
                                  },
                              .on_row =
                                  [&](const KernelRow& row) {
                                      options.skip.insert(*current);
                                      report_.kernels.push_back(row);
                                      changed();
                                  }};
        for (bool lost = true; lost;) try {
                current.reset();
                lost = false;
                measure_kernels(*engine, options, report_, stop_);
            } catch (const gpu::DeviceLost& error) {
                engine.reset();
                if (!current) throw; // with no kernel to leave out
                lost = true;
                options.skip.insert(*current);
                options.lost.clear();
                report_.errors.push_back(fmt::format("{} {}: {}", current->step, current->op, error.what()));
                report_.kernels.push_back(
                    {.step = current->step, .op = current->op, .failure = "the device was lost"});
                changed();
                engine = subject.load();
            }
    }

    void model(const SubjectUnderTest& subject, Engine& engine) {
        progress("model");
        ModelBench bench(engine, stop_);
        ModelBenchOptions options{.samples = options_.samples,
                                  .tokens = report_.flagged("software device") ? 32u : 128u,
                                  .seconds = 0.6 * options_.seconds,
                                  .on_row =
                                      [&](const ModelRow& row) {
                                          report_.model.push_back(row);
                                          report_.subject.busiest_tenth = bench.busiest_tenth();
                                          changed();
                                      },
                                  .on_skip =
                                      [&](const std::string& why) {
                                          report_.skipped.push_back(why);
                                          changed();
                                      }};
        try {
            measure_model(bench, subject.context(), options, subject.token_bytes(), report_);
            if (report_.subject.layers != report_.subject.of_layers) scale(subject, engine);
            report_.peak_bytes = std::max(report_.peak_bytes, engine.memory().total);
        } catch (const gpu::DeviceLost& error) {
            report_.errors.push_back(std::string("model: ") + error.what());
        }
    }

    // Of a slice: what the whole model would do; see Subject::scaling.
    void scale(const SubjectUnderTest& subject, Engine& engine) {
        Session session = engine.open();
        session.sampling().temperature = 0;
        session.feed(std::vector<Token>{0});
        session.next();
        engine.examine(session, [&](Model& model, Executor& executor, uint32_t) {
            const Plan& plan = model.plan({StepKind::Mode::decode, 1});
            const Timer timer(*executor.gpu(), stop_);
            if (!timer.by_gpu()) {
                report_.skipped.push_back("the whole model's speed: this device has no timestamps");
                return;
            }
            gpu::Recording recording = executor.gpu()->record("layers", plan.dispatches(), true);
            SliceTimes times{.n_moe = model.config.n_layers - 1};
            for (uint32_t i = 0; i < options_.samples; ++i) {
                timer.wall(recording);
                const std::vector<double> seconds = recording.seconds();
                for (size_t k = 0; k < seconds.size(); ++k) {
                    const std::string& label = plan.ops()[k].label;
                    (!label.starts_with("layers.")    ? times.rest
                     : label.starts_with("layers.0.") ? times.dense
                                                      : times.moe) += seconds[k];
                }
            }
            const ModelConfig& whole = subject.whole();
            const double factor =
                slice_factor(times, whole.first_moe_layer, whole.n_layers - whole.first_moe_layer);
            for (ModelRow& row : report_.model)
                if (row.prompt == 0) row.whole = row.tokens_per_second.median / factor;
        });
    }

    void judge() {
        for (const std::string_view name : REFERENCE_ROOFS) {
            const Roof* roof = report_.roof(name);
            if (!roof) continue;
            if (roof->last != 0 && std::abs(roof->last / roof->rate.median - 1) > NOISY)
                report_.flags.push_back(fmt::format("throttled: {} {:.4g} {} at first, {:.4g} at the end",
                                                    name, roof->rate.median, roof->unit, roof->last));
            if (roof->rate.width() > 2 * NOISY)
                report_.flags.push_back(
                    fmt::format("noisy: {} spreads by {:.0f} %", name, 100 * roof->rate.width()));
        }
        for (const ModelRow& row : report_.model)
            if (row.tokens_per_second.width() > 4 * NOISY)
                report_.flags.push_back(fmt::format("noisy: {} spreads by {:.0f} %", row.name,
                                                    100 * row.tokens_per_second.width()));
    }

    const RunOptions& options_;
    Stop& stop_;
    Report report_;
    std::optional<SubjectUnderTest> subject_;
};

} // namespace

Report run(const RunOptions& options, Stop& stop) { return Run(options, stop).go(); }

} // namespace fathom::bench
