// What a server counts of its answers, for /metrics in Prometheus' text format.
#pragma once

#include "trace/record.h"

#include <array>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace fathom::server {

// Seconds, by how long; from any thread.
class Histogram {
  public:
    void add(double seconds);
    std::string text(const char* name, const char* help) const;

  private:
    static constexpr std::array BOUNDS = {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0};
    mutable std::mutex mutex_;
    std::array<uint64_t, BOUNDS.size() + 1> counts_{};
    double sum_ = 0;
};

// How often each expert was chosen; from any thread.
class ExpertLoad {
  public:
    explicit ExpertLoad(trace::Shape shape) : shape_(std::move(shape)) {}
    void add(std::span<const trace::TokenRecord> records);
    // The coefficient of variation of the load over a layer's experts, as the mean over all layers; 0:
    // nothing was counted.
    double variation() const;

  private:
    const trace::Shape shape_;
    mutable std::mutex mutex_;
    std::vector<uint64_t> counts_; // (MoE layers, experts)
};

std::string metric_text(const char* name, const char* type, const char* help, double value,
                        const std::string& labels = "");

} // namespace fathom::server
