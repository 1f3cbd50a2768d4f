// What the engine tells: the records of tokens, from the ring that the kernels write, and events.
#include "session/engine_impl.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace fathom {

namespace {

constexpr size_t MAX_KEPT_RECORDS = 16384; // that a session keeps when nobody takes them

void add_choice(trace::TokenRecord& record, const uint32_t* words, uint32_t n_active) {
    const uint32_t* told = words + 2 * size_t{n_active};
    for (uint32_t k = 0; k < n_active; ++k) {
        record.experts.push_back(static_cast<uint16_t>(words[k]));
        record.weights.push_back(std::bit_cast<float>(words[n_active + k]));
    }
    record.margin.push_back(std::bit_cast<float>(told[TRACE_MARGIN]));
    record.entropy.push_back(std::bit_cast<float>(told[TRACE_ENTROPY]));
    record.swapped.push_back(told[TRACE_SWAPPED]);
    record.groups.push_back(told[TRACE_GROUPS]);
}

} // namespace

uint64_t Engine::Impl::now() const {
    using namespace std::chrono;
    return static_cast<uint64_t>(duration_cast<nanoseconds>(steady_clock::now() - began).count());
}

trace::TokenRecord Engine::Impl::record_of(StepKind::Mode mode, uint32_t slot, Token token,
                                           uint32_t position) const {
    trace::TokenRecord record{.token = token, .position = position, .time = now()};
    const uint32_t stride = model->trace_stride, active = model->config.n_active_experts;
    if (stride == 0) return record;
    std::vector<uint32_t> words(stride);
    std::memcpy(words.data(), executor->mapped(model->trace) + 4ull * (slot % TRACE_ROWS) * stride,
                4ull * stride);
    for (uint32_t layer = 0; layer < model->n_moe_layers; ++layer)
        add_choice(record, words.data() + model->trace_of_choice(layer), active);
    for (uint32_t layer = 0; layer <= model->config.n_layers; ++layer)
        record.norms.push_back(std::bit_cast<float>(words[model->trace_of_norm(layer)]));
    if (mode == StepKind::Mode::prefill) // it ends before the last norm
        record.norms.back() = std::numeric_limits<float>::quiet_NaN();
    return record;
}

void Engine::Impl::keep_record(Session::Impl& s, trace::TokenRecord record) {
    record.session = s.number;
    {
        const std::lock_guard lock(listeners_mutex);
        for (trace::Queue* queue : listeners) queue->offer(record);
    }
    if (model->trace_stride == 0) return;
    if (s.records.size() >= MAX_KEPT_RECORDS)
        s.records.erase(s.records.begin(), s.records.begin() + MAX_KEPT_RECORDS / 2);
    s.records.push_back(std::move(record));
}

void Engine::Impl::publish(trace::Event event) {
    event.time = now();
    const std::lock_guard lock(listeners_mutex);
    for (trace::Queue* queue : listeners) queue->offer(event);
}

void Engine::listen(trace::Queue& queue) {
    const MemoryReport report = memory();
    const std::lock_guard lock(impl_->listeners_mutex);
    for (const MemoryReport::Item& item : report.items)
        queue.offer(trace::Event{.kind = trace::Event::Kind::memory,
                                 .time = impl_->now(),
                                 .count = item.reserved,
                                 .text = item.owner});
    impl_->listeners.push_back(&queue);
}

void Engine::ignore(trace::Queue& queue) {
    const std::lock_guard lock(impl_->listeners_mutex);
    std::erase(impl_->listeners, &queue);
}

trace::Shape Engine::trace_shape() const {
    const ModelConfig& c = config();
    trace::Shape shape{c.n_layers, c.n_routed_experts, c.n_active_experts, c.n_groups, c.n_active_groups, {}};
    for (uint32_t layer = 0; layer < c.n_layers; ++layer)
        if (c.is_moe(layer)) shape.moe_layers.push_back(layer);
    return shape;
}

uint32_t Session::number() const { return impl_->number; }

} // namespace fathom
