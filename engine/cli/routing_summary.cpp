// Routing arithmetic and its table; see routing_summary.h.
#include "cli/routing_summary.h"

#include "base/error.h"
#include "base/numbers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

namespace fathom::cli {

double load_cv(std::span<const uint64_t> load) {
    const double sum = static_cast<double>(std::accumulate(load.begin(), load.end(), uint64_t{0}));
    if (sum == 0) return 0;
    const double mean = sum / static_cast<double>(load.size());
    double squares = 0;
    for (const uint64_t count : load)
        squares += (static_cast<double>(count) - mean) * (static_cast<double>(count) - mean);
    return std::sqrt(squares / static_cast<double>(load.size())) / mean;
}

double load_entropy(std::span<const uint64_t> load) {
    const double sum = static_cast<double>(std::accumulate(load.begin(), load.end(), uint64_t{0}));
    double bits = 0;
    for (const uint64_t count : load)
        if (count) bits -= static_cast<double>(count) / sum * std::log2(static_cast<double>(count) / sum);
    return bits;
}

std::string load_bar(std::span<const uint64_t> load, uint32_t cells, const Style& style) {
    static constexpr std::array<std::string_view, 8> bars = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    const double sum = static_cast<double>(std::accumulate(load.begin(), load.end(), uint64_t{0}));
    const auto group = div_up(static_cast<uint32_t>(load.size()), std::max(cells, 1u));
    std::string out;
    for (size_t first = 0; first < load.size(); first += group) {
        const auto part = load.subspan(first, std::min<size_t>(group, load.size() - first));
        const double chosen = static_cast<double>(std::accumulate(part.begin(), part.end(), uint64_t{0}));
        if (chosen == 0) {
            out += style.dim("·");
            continue;
        }
        const double even = sum * static_cast<double>(part.size()) / static_cast<double>(load.size());
        const double height = chosen / even * 4; // an even share fills four of the eight steps
        const auto step = static_cast<size_t>(std::clamp(std::lround(height), 1L, 8L));
        out += style.heat(height / 8, bars[step - 1]);
    }
    return out;
}

RoutingSummary::RoutingSummary(const trace::Shape& shape)
    : n_experts_(shape.n_experts), n_active_(shape.n_active) {
    for (const uint32_t layer : shape.moe_layers)
        layers_.push_back({layer, std::vector<uint64_t>(n_experts_)});
}

void RoutingSummary::clear() {
    tokens_ = 0;
    for (LayerLoad& layer : layers_) std::fill(layer.load.begin(), layer.load.end(), 0);
}

void RoutingSummary::add(std::span<const trace::TokenRecord> records) {
    for (const trace::TokenRecord& record : records) {
        if (record.experts.empty()) continue; // of a trace that was off
        check(record.experts.size() == layers_.size() * n_active_, "a routing record has every MoE layer");
        for (size_t i = 0; i < record.experts.size(); ++i) {
            check(record.experts[i] < n_experts_, "a routing record names experts of the model");
            ++layers_[i / n_active_].load[record.experts[i]];
        }
        ++tokens_;
    }
}

const std::vector<LayerLoad>& RoutingSummary::layers() {
    for (LayerLoad& layer : layers_) {
        layer.cv = load_cv(layer.load);
        layer.entropy = load_entropy(layer.load);
    }
    return layers_;
}

std::string RoutingSummary::table(const Style& style, uint32_t width) {
    if (tokens_ == 0 || layers_.empty()) return "";
    constexpr uint32_t fixed = 60; // columns beside the bar
    const uint32_t room = width > fixed + 16 ? width - fixed : 16;
    const uint32_t cells = div_up(n_experts_, div_up(n_experts_, room));
    const double most = std::log2(n_experts_);
    std::string out =
        style.bold(fmt::format("Which experts worked: {} tokens, {} of {} routed experts for each\n", tokens_,
                               n_active_, n_experts_));
    const std::string heading = cells == n_experts_ ? fmt::format("experts 0-{}", n_experts_ - 1)
                                                    : fmt::format("{} a cell", div_up(n_experts_, cells));
    const uint32_t bar = std::max(cells, columns_of(heading));
    out += style.dim(
        fmt::format("layer  {:<{}}  busiest       idle  CV    entropy of {:.2f} bits\n", heading, bar, most));
    for (const LayerLoad& layer : layers()) {
        const auto busiest = std::max_element(layer.load.begin(), layer.load.end());
        const double share = static_cast<double>(*busiest) / static_cast<double>(tokens_ * n_active_);
        out += fmt::format("{:5}  {}{}  #{:<4} {:4.1f} %  {:4}  {:4.2f}  {:4.2f} ({:.0f} %)\n", layer.layer,
                           load_bar(layer.load, cells, style), std::string(bar - cells, ' '),
                           busiest - layer.load.begin(), share * 100,
                           std::count(layer.load.begin(), layer.load.end(), 0), layer.cv, layer.entropy,
                           most > 0 ? layer.entropy / most * 100 : 100);
    }
    out += style.dim("A half-high bar is an even share, a dot an expert never chosen. CV 0 and full entropy: "
                     "all alike.\n");
    return out;
}

std::string RoutingSummary::line() {
    if (tokens_ == 0 || layers_.empty()) return "";
    double low = layers()[0].cv, high = low, entropy = 0;
    for (const LayerLoad& layer : layers_) {
        low = std::min(low, layer.cv);
        high = std::max(high, layer.cv);
        entropy += layer.entropy / static_cast<double>(layers_.size());
    }
    return fmt::format("expert load: CV {:.2f} to {:.2f}, entropy {:.2f} of {:.2f} bits", low, high, entropy,
                       std::log2(n_experts_));
}

} // namespace fathom::cli
