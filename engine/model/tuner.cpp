#include "model/tuner.h"

#include "base/error.h"
#include "model/ops/product.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <set>

namespace fathom {

namespace {

constexpr double LIST_SECONDS = 0.03; // of the launches that are timed together
constexpr size_t LIST_LAUNCHES = 64;  // of them, at most: each of another layer, as far as there are
constexpr int ROUNDS = 3;             // the best counts: other work only ever adds
constexpr double WORTH = 0.97;        // a kernel replaces the base one when it takes so much of its time
constexpr double CHECK_FLOPS = 2e7;   // of the reference, for each kernel
constexpr double DRIFT_LIMIT = 3e-2;  // rms of a tier's result from the base tier's, relative

using Clock = std::chrono::steady_clock;

class Tuner {
  public:
    Tuner(Model& model, Executor& executor, const std::vector<StepRow>& rows, const TunerOptions& options)
        : model_(model), executor_(executor), rows_(rows), options_(options) {}

    // All that `known` lacks of the products of a step of this kind.
    void run(StepKind kind, const std::vector<Trial>& known, std::vector<Trial>& trials) {
        std::set<Product> done_before;
        for (const Trial& trial : known)
            if (trial.chosen) done_before.insert(trial.product);
        const std::unique_ptr<Plan> base = model_.make_plan(kind, Tiers());
        std::map<Product, std::vector<size_t>> products;
        for (const auto& [product, op] : base->products())
            if (!done_before.contains(product)) products[product].push_back(op);
        if (products.empty()) return;
        begin(kind);
        executor_.run(*base); // so that every op has inputs
        executor_.forget(*base);
        size_t done = 0;
        for (const auto& [product, ops] : products) {
            if (options_.progress) options_.progress(done++, products.size());
            try_product(kind, product, ops, known, trials);
        }
        if (options_.progress) options_.progress(done, products.size());
    }

  private:
    void try_product(StepKind kind, const Product& product, const std::vector<size_t>& ops,
                     const std::vector<Trial>& known, std::vector<Trial>& all) {
        std::vector<Trial> trials;
        std::vector<std::unique_ptr<Plan>> plans;
        for (const Variant& variant : variants_of(product, executor_.caps())) {
            Tiers only;
            only.set(product, variant);
            plans.push_back(model_.make_plan(kind, only));
            trials.push_back({product, variant, 0, 0, "", false});
            for (const Trial& old : known)
                if (old.product == product && old.variant == variant) trials.back().failure = old.failure;
        }
        const View out = plans.front()->ops()[ops.front()].writes.front();
        std::vector<std::byte> before(out.bytes), expected;
        executor_.download(out, before);
        for (size_t i = 0; i < trials.size(); ++i) {
            if (!trials[i].failure.empty()) continue;
            trials[i].failure = "it did not come back from its trial";
            std::vector<Trial> so_far = all;
            so_far.insert(so_far.end(), trials.begin(), trials.begin() + static_cast<ptrdiff_t>(i) + 1);
            if (options_.save) options_.save(so_far);
            check_one(*plans[i], kind, ops.front(), trials[i], before, expected);
        }
        time_all(plans, ops, trials);
        choose(trials);
        all.insert(all.end(), trials.begin(), trials.end());
    }

    void begin(StepKind kind) { // before each launch, as bench/kernels.cpp has it: a step moves its state on
        const bool decode = kind.mode == StepKind::Mode::decode;
        const std::span<const StepRow> rows = decode ? std::span(rows_).last(1) : std::span(rows_);
        model_.write_step(kind, rows);
        facts_.rows = rows;
    }

    gpu::Dispatch launch_of(const Op& op, Tier tier) const {
        return launch_alone(op, name_of(tier) == options_.wrong);
    }

    // The op that an op of a plan needs run before it, with the plan's own tiles; null: none.
    const Op* sort_before(const Plan& plan, size_t op) const {
        const auto reads = [&](View list) {
            return std::any_of(plan.ops()[op].reads.begin(), plan.ops()[op].reads.end(),
                               [&](View read) { return read.address == list.address; });
        };
        for (size_t i = op; i-- > 0;)
            if (plan.ops()[i].module == "expert_sort" && reads(plan.ops()[i].writes.back()))
                return &plan.ops()[i];
        return nullptr;
    }

    void submit(const std::string& name, std::span<const gpu::Dispatch> launches) {
        gpu::Recording recording = executor_.gpu()->record(name, launches);
        executor_.gpu()->wait(executor_.gpu()->submit(recording));
    }

    // Against the reference on the first rows, and against the first variant's result, `expected`, on all.
    // What the op writes is `before` when it starts, and when this returns.
    void check_one(const Plan& plan, StepKind kind, size_t index, Trial& trial,
                   std::span<const std::byte> before, std::vector<std::byte>& expected) {
        begin(kind);
        const Op& op = plan.ops()[index];
        if (const Op* sort = sort_before(plan, index))
            submit("tuning", std::array{launch_of(*sort, Tier::base)});
        const gpu::Dispatch launch = launch_of(op, trial.variant.tier);
        Verdict verdict;
        try {
            verdict =
                check_kernel(op, launch, facts_, executor_, {error_limit(trial.variant.tier), CHECK_FLOPS});
        } catch (const gpu::DeviceLost&) {
            throw;
        } catch (const std::exception& error) { // a driver that cannot compile it
            verdict.failure = error.what();
        }
        trial.error = verdict.error;
        trial.failure = verdict.failure;
        write(op.writes.front(), before);
        if (!trial.failure.empty()) return;
        submit("tuning", std::array{launch});
        std::vector<std::byte> got(before.size());
        executor_.download(op.writes.front(), got);
        write(op.writes.front(), before);
        if (trial.variant == Variant())
            expected = got;
        else if (const double far = distance(got, expected); !(far < DRIFT_LIMIT))
            trial.failure = fmt::format("its rows are {:.1e} from the base kernel's", far);
    }

    void write(View view, std::span<const std::byte> bytes) {
        executor_.upload(view, 0, bytes);
        executor_.flush();
    }

    // Root of the mean square difference, over the expected values' own. Numbers that neither wrote are
    // equal.
    static double distance(std::span<const std::byte> got, std::span<const std::byte> expected) {
        double difference = 0, size = 0; // an empty `expected`: the base kernel failed itself, and says so
        for (size_t i = 0; i + 4 <= expected.size(); i += 4) {
            float a, b;
            std::memcpy(&a, &got[i], 4);
            std::memcpy(&b, &expected[i], 4);
            if (std::isfinite(b)) size += std::pow(double(b), 2);
            if (std::memcmp(&a, &b, 4) != 0) difference += std::pow(double(a) - b, 2);
        }
        return difference == 0 ? 0 : std::sqrt(difference / size);
    }

    void time_all(const std::vector<std::unique_ptr<Plan>>& plans, const std::vector<size_t>& ops,
                  std::vector<Trial>& trials) {
        for (int round = 0; round <= ROUNDS; ++round) // in turn; the first does not count
            for (size_t i = 0; i < trials.size(); ++i) {
                if (!trials[i].failure.empty()) continue;
                if (const Op* sort = sort_before(*plans[i], ops.front()))
                    submit("tuning", std::array{launch_of(*sort, Tier::base)});
                size_t n = std::min(ops.size(), LIST_LAUNCHES);
                if (trials[i].seconds > 0)
                    n = std::clamp<size_t>(static_cast<size_t>(LIST_SECONDS / trials[i].seconds), 1, n);
                std::vector<gpu::Dispatch> launches;
                for (size_t k = 0; k < n; ++k)
                    launches.push_back(launch_of(plans[i]->ops()[ops[k]], trials[i].variant.tier));
                gpu::Recording recording = executor_.gpu()->record("tuning", launches);
                const auto start = Clock::now();
                executor_.gpu()->wait(executor_.gpu()->submit(recording));
                const double seconds =
                    std::chrono::duration<double>(Clock::now() - start).count() / double(n);
                trials[i].seconds = round <= 1 ? seconds : std::min(trials[i].seconds, seconds);
            }
    }

    static void choose(std::vector<Trial>& trials) {
        Trial* best = &trials.front(); // the base tier, as it comes
        for (Trial& trial : trials)
            if (trial.failure.empty() &&
                (!best->failure.empty() ||
                 trial.seconds < (best == &trials.front() ? WORTH : 1) * best->seconds))
                best = &trial;
        best->chosen = true;
    }

    Model& model_;
    Executor& executor_;
    const std::vector<StepRow>& rows_;
    const TunerOptions& options_;
    StepFacts facts_{{}, [this](View view, std::span<uint32_t> words) {
                         executor_.download(view, std::as_writable_bytes(words));
                     }};
};

} // namespace

std::vector<Trial> tune(Model& model, Executor& executor, const std::vector<StepRow>& rows,
                        const std::vector<Trial>& known, const TunerOptions& options) {
    check(executor.gpu() != nullptr, "a device is tuned, not the reference");
    Tuner tuner(model, executor, rows, options);
    const StepKind kinds[] = {
        {StepKind::Mode::decode, 1},
        {StepKind::Mode::prefill, bucket_for(static_cast<uint32_t>(rows.size())), true}};
    std::vector<Trial> trials;
    for (const StepKind& kind : kinds) tuner.run(kind, known, trials);
    return trials;
}

Tiers tiers_of(const std::vector<Trial>& trials) {
    Tiers tiers;
    for (const Trial& trial : trials)
        if (trial.chosen) tiers.set(trial.product, trial.variant);
    return tiers;
}

} // namespace fathom
