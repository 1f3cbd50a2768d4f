// Engine::profile: timestamps around every launch of one decode step, on a session of its own.
#include "session/engine_impl.h"

#include <algorithm>
#include <limits>

namespace fathom {

std::vector<KernelTime> Engine::profile() {
    constexpr int ROUNDS = 10; // the fastest counts: what disturbs a measurement only ever adds
    Session session = open();
    session.feed(std::vector<Token>{impl_->model->config.bos.empty() ? 0 : impl_->model->config.bos.front()});
    session.next();
    const Token token = session.tokens().front();

    const Impl::Quiet quiet(*impl_);
    const Plan& plan = impl_->model->plan({StepKind::Mode::decode, 1});
    Executor& executor = *impl_->executor;
    std::vector<double> seconds(plan.ops().size(), std::numeric_limits<double>::max());
    for (int round = 0; round < ROUNDS; ++round) {
        impl_->write_step(StepKind::Mode::decode, {{token, 0, session.impl_->sequence, 0}});
        executor.wait(executor.start(plan, true));
        const std::vector<double> measured = executor.seconds(plan);
        if (measured.empty()) return {};
        for (size_t i = 0; i < measured.size(); ++i) seconds[i] = std::min(seconds[i], measured[i]);
    }
    std::vector<KernelTime> times;
    for (size_t i = 0; i < seconds.size(); ++i) {
        const std::string kernel(plan.ops()[i].module);
        auto it = std::find_if(times.begin(), times.end(), [&](const auto& t) { return t.kernel == kernel; });
        if (it == times.end()) it = times.insert(times.end(), {kernel});
        ++it->launches;
        it->seconds += seconds[i];
    }
    std::sort(times.begin(), times.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
    return times;
}

} // namespace fathom
