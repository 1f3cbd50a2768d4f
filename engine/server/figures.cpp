#include "server/figures.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

namespace fathom::server {

void Histogram::add(double seconds) {
    const auto bucket = std::lower_bound(BOUNDS.begin(), BOUNDS.end(), seconds) - BOUNDS.begin();
    const std::lock_guard lock(mutex_);
    ++counts_[static_cast<size_t>(bucket)];
    sum_ += seconds;
}

std::string Histogram::text(const char* name, const char* help) const {
    const std::lock_guard lock(mutex_);
    std::string out = fmt::format("# HELP fathom_{0} {1}\n# TYPE fathom_{0} histogram\n", name, help);
    uint64_t sum = 0;
    for (size_t i = 0; i < BOUNDS.size(); ++i)
        out += fmt::format("fathom_{}_bucket{{le=\"{}\"}} {}\n", name, BOUNDS[i], sum += counts_[i]);
    sum += counts_.back();
    return out +
           fmt::format("fathom_{0}_bucket{{le=\"+Inf\"}} {1}\nfathom_{0}_sum {2}\nfathom_{0}_count {1}\n",
                       name, sum, sum_);
}

void ExpertLoad::add(std::span<const trace::TokenRecord> records) {
    const size_t layers = shape_.moe_layers.size();
    const std::lock_guard lock(mutex_);
    counts_.resize(layers * shape_.n_experts);
    for (const trace::TokenRecord& record : records)
        for (size_t i = 0; i < record.experts.size(); ++i)
            ++counts_[i / shape_.n_active * shape_.n_experts + record.experts[i]];
}

double ExpertLoad::variation() const {
    const std::lock_guard lock(mutex_);
    const size_t n = shape_.n_experts;
    double sum = 0;
    for (size_t layer = 0; layer * n < counts_.size(); ++layer) {
        const std::span load(counts_.data() + layer * n, n);
        const double mean = double(std::accumulate(load.begin(), load.end(), uint64_t{0})) / double(n);
        if (mean == 0) return 0;
        double squares = 0;
        for (const uint64_t c : load) squares += (double(c) - mean) * (double(c) - mean);
        sum += std::sqrt(squares / double(n)) / mean;
    }
    return counts_.empty() ? 0 : sum / double(shape_.moe_layers.size());
}

std::string metric_text(const char* name, const char* type, const char* help, double value,
                        const std::string& labels) {
    std::string out;
    if (*help) out = fmt::format("# HELP fathom_{0} {2}\n# TYPE fathom_{0} {1}\n", name, type, help);
    return out + fmt::format("fathom_{}{} {}\n", name, labels, value);
}

} // namespace fathom::server
