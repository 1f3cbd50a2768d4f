// Engine::profile: timestamps around every launch of one decode step, on a session of its own.
#include "model/traffic.h"
#include "session/engine_impl.h"

#include <algorithm>
#include <limits>

namespace fathom {

StepProfile Engine::profile() {
    constexpr int ROUNDS = 10; // the fastest counts: what disturbs a measurement only ever adds
    Session session = open(false);
    session.feed(std::vector<Token>{impl_->model->config.bos.empty() ? 0 : impl_->model->config.bos.front()});
    session.next();
    const Token token = session.tokens().front();

    const Impl::Quiet quiet(*impl_);
    const StepKind kind{StepKind::Mode::decode, 1};
    const Plan& plan = impl_->model->plan(kind);
    Executor& executor = *impl_->executor;
    const StepRow row{token, 0, session.impl_->sequence};
    std::vector<double> seconds(plan.ops().size(), std::numeric_limits<double>::max());
    for (int round = 0; round < ROUNDS; ++round) {
        impl_->model->write_step(kind, std::span(&row, 1));
        executor.wait(executor.start(plan, true));
        const std::vector<double> measured = executor.seconds(plan);
        if (measured.empty()) return {};
        for (size_t i = 0; i < measured.size(); ++i) seconds[i] = std::min(seconds[i], measured[i]);
    }
    const StepFacts facts{std::span(&row, 1), [&](View view, std::span<uint32_t> out) {
                              executor.download(view, std::as_writable_bytes(out));
                          }};
    StepProfile profile;
    for (size_t i = 0; i < seconds.size(); ++i) {
        const Op& op = plan.ops()[i];
        const Traffic traffic = traffic_of(op, facts);
        profile.launches.push_back(
            {op.label, std::string(kernel_of(op.module)), seconds[i], traffic.bytes(), traffic.flops});
    }
    if (gpu::Device* device = executor.gpu()) profile.read_rate = device->read_rate(gpu::Placement::device);
    return profile;
}

} // namespace fathom
