// What the engine tells: the records of tokens, from the ring that the kernels write, and events.
#include "session/engine_impl.h"

#include "base/error.h"
#include "base/numbers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>

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

// Where the time of an op belongs in TokenRecord::times; nowhere: it only keeps a tap.
std::optional<size_t> stage_of(std::string_view label, uint32_t n_layers) {
    using Name = std::pair<std::string_view, uint32_t>;
    static constexpr Name STAGE_OF[] = {{"attn_norm", 0},
                                        {"q_kv_a", 0},
                                        {"kv_a", 0},
                                        {"latent_write", 0},
                                        {"q_a_norm", 0},
                                        {"q_b", 0},
                                        {"qkv", 0},
                                        {"k", 0},
                                        {"v", 0},
                                        {"kv_write", 0},
                                        {"absorb", 1},
                                        {"latent_attention", 1},
                                        {"history", 1},
                                        {"rotate_queries", 1},
                                        {"cache_read", 1},
                                        {"kv_b", 1},
                                        {"expanded_attention", 1},
                                        {"plain_attention", 1},
                                        {"o", 2},
                                        {"ffn_norm", 3},
                                        {"router", 3},
                                        {"expert_sort", 3},
                                        {"shared_sort", 3},
                                        {"moe_up", 4},
                                        {"moe_down", 4},
                                        {"shared_up", 4},
                                        {"shared_down", 4},
                                        {"attention_map", 5}};
    static constexpr Name END_OF[] = {{"embed", 0}, {"final_norm", 1}, {"logits", 1}, {"sample", 2}};
    const auto find = [&](std::span<const Name> names, std::string_view name) {
        const auto it =
            std::find_if(names.begin(), names.end(), [&](const Name& n) { return n.first == name; });
        check(it != names.end(), "every op belongs to a stage");
        return it->second;
    };
    if (label.starts_with("tap ")) return {};
    if (!label.starts_with("layers.")) return n_layers * trace::STAGES.size() + find(END_OF, label);
    label.remove_prefix(7);
    const size_t layer = std::strtoul(label.data(), nullptr, 10);
    label.remove_prefix(label.find('.') + 1);
    return layer * trace::STAGES.size() + find(STAGE_OF, label.substr(0, label.find('.')));
}

// The rows of one layer out of the logarithms that the kernel left: divided by their sum, head by head.
trace::AttentionRows attention_rows(const trace::LayerWatch& watch, uint32_t layer, uint32_t position,
                                    const float* map) {
    trace::AttentionRows rows{
        layer, watch.first_head, watch.n_heads, attention_pool(position + 1, watch.width), {}};
    const uint32_t bins = div_up(position + 1, rows.pool);
    rows.weights.resize(uint64_t{watch.n_heads} * bins);
    for (uint32_t h = 0; h < watch.n_heads; ++h) {
        const float* from = map + uint64_t{h} * watch.width;
        float* to = rows.weights.data() + uint64_t{h} * bins;
        const float largest = *std::max_element(from, from + bins);
        double sum = 0;
        for (uint32_t i = 0; i < bins; ++i) sum += to[i] = std::exp(from[i] - largest);
        for (uint32_t i = 0; i < bins; ++i) to[i] = static_cast<float>(to[i] / sum);
    }
    return rows;
}

} // namespace

uint64_t Engine::Impl::now() const {
    using namespace std::chrono;
    return static_cast<uint64_t>(duration_cast<nanoseconds>(steady_clock::now() - began).count());
}

trace::TokenRecord Engine::Impl::record_of(StepKind::Mode mode, uint32_t slot, Token token,
                                           uint32_t position) const {
    trace::TokenRecord record{.token = token, .position = position, .time = now()};
    const uint64_t page = uint64_t{model->page_bytes} * model->config.n_layers;
    record.cache_bytes = pages.used() * page;
    record.shared_bytes = pages.shared() * page;
    const WatchedLayers& seen = model->watched();
    for (size_t i = 0; i < seen.watch.layers.size(); ++i) {
        const uint64_t at =
            uint64_t{slot % seen.rows} * seen.stride + i * seen.watch.n_heads * seen.watch.width;
        const auto* map = reinterpret_cast<const float*>(executor->mapped(seen.ring)) + at;
        record.attention.push_back(attention_rows(seen.watch, seen.watch.layers[i], position, map));
    }
    const uint32_t stride = model->trace_stride, active = model->config.n_active_experts;
    if (stride == 0) return record;
    const std::vector<uint32_t> scored = model->scored();
    std::vector<uint32_t> words(
        model->trace_of_scores(static_cast<uint32_t>(scored.size()))); // told of a row
    std::memcpy(words.data(), executor->mapped(model->trace) + 4ull * (slot % TRACE_ROWS) * stride,
                4 * words.size());
    for (uint32_t layer = 0; layer < model->n_moe_layers; ++layer)
        add_choice(record, words.data() + model->trace_of_choice(layer), active);
    for (uint32_t layer = 0; layer <= model->config.n_layers; ++layer)
        record.norms.push_back(std::bit_cast<float>(words[model->trace_of_norm(layer)]));
    for (const uint32_t layer : scored) {
        const auto* from = reinterpret_cast<const float*>(
            words.data() + model->trace_of_scores(static_cast<uint32_t>(record.scores.size())));
        const uint32_t n = model->config.n_routed_experts;
        record.scores.push_back({layer, {from, from + n}, {from + n, from + 2 * n}});
    }
    if (mode == StepKind::Mode::prefill) // it ends before the last norm
        record.norms.back() = std::numeric_limits<float>::quiet_NaN();
    return record;
}

bool Engine::Impl::is_time_to_time() {
    constexpr uint32_t STEPS = 64; // a timed one waits between launches, and costs a little
    {
        const std::lock_guard lock(listeners_mutex);
        if (listeners.empty()) return false;
    }
    if (++untimed < STEPS || model->trace_stride == 0) return false;
    untimed = 0;
    return true;
}

std::vector<float> Engine::Impl::stage_times(const Plan& plan) const {
    const std::vector<double> seconds = executor->seconds(plan);
    if (seconds.empty()) return {};
    const uint32_t n_layers = model->config.n_layers;
    std::vector<float> times(n_layers * trace::STAGES.size() + trace::ENDS.size());
    for (size_t i = 0; i < seconds.size(); ++i)
        if (const auto stage = stage_of(plan.ops()[i].label, n_layers))
            times[*stage] += static_cast<float>(seconds[i]);
    return times;
}

void Engine::Impl::keep_record(Session::Impl& s, trace::TokenRecord record) {
    record.session = s.number;
    if (s.number != Session::Impl::UNTOLD) {
        const std::lock_guard lock(listeners_mutex);
        for (trace::Queue* queue : listeners) queue->offer(record);
    }
    if (model->trace_stride == 0) return;
    record.attention.clear(), record.scores.clear(); // for listeners, who take them at once
    if (s.records.size() >= MAX_KEPT_RECORDS)
        s.records.erase(s.records.begin(), s.records.begin() + MAX_KEPT_RECORDS / 2);
    s.records.push_back(std::move(record));
}

void Engine::Impl::publish(trace::Event event) {
    if (event.session == Session::Impl::UNTOLD) return;
    event.time = now();
    const std::lock_guard lock(listeners_mutex);
    for (trace::Queue* queue : listeners) queue->offer(event);
}

namespace {
std::vector<trace::Event> memory_events(const MemoryReport& report) {
    std::vector<trace::Event> events;
    for (const MemoryReport::Item& item : report.items)
        events.push_back({.kind = trace::Event::Kind::memory, .count = item.reserved, .text = item.owner});
    return events;
}
} // namespace

void Engine::listen(trace::Queue& queue) {
    const std::vector<trace::Event> held = memory_events(memory());
    const std::lock_guard lock(impl_->listeners_mutex);
    for (trace::Event event : held) {
        event.time = impl_->now();
        queue.offer(event);
    }
    impl_->listeners.push_back(&queue);
}

void Engine::watch_layers(const trace::LayerWatch& watch) {
    {
        const Impl::Quiet quiet(*impl_);
        impl_->model->watch(watch);
        impl_->watch = watch;
    }
    for (trace::Event& event : memory_events(memory())) impl_->publish(std::move(event));
}

trace::LayerWatch Engine::watched_layers() const {
    const std::lock_guard lock(impl_->device_mutex);
    return impl_->model->watched().watch;
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
