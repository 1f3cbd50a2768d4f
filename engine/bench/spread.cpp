// Order statistics; see spread.h.
#include "bench/spread.h"

#include <algorithm>
#include <cmath>

namespace fathom::bench {

Spread spread_of(std::span<const double> samples) {
    if (samples.empty()) return {};
    std::vector<double> sorted(samples.begin(), samples.end());
    std::sort(sorted.begin(), sorted.end());
    const auto at = [&](double q) {
        return sorted[static_cast<size_t>(std::lround(q * static_cast<double>(sorted.size() - 1)))];
    };
    const size_t middle = sorted.size() / 2;
    const double median = sorted.size() % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    return {median, at(0.1), at(0.9), static_cast<uint32_t>(sorted.size())};
}

Spread scaled(const Spread& s, double factor) {
    return {s.median * factor, s.p10 * factor, s.p90 * factor, s.n};
}

Spread inverse(const Spread& s, double factor) {
    if (s.n == 0) return {};
    return {factor / s.median, factor / s.p90, factor / s.p10, s.n};
}

Line line_through(std::span<const double> x, std::span<const double> y) {
    double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        const double weight = 1 / (y[i] * y[i]);
        w += weight, wx += weight * x[i], wy += weight * y[i];
        wxx += weight * x[i] * x[i], wxy += weight * x[i] * y[i];
    }
    const double slope = (w * wxy - wx * wy) / (w * wxx - wx * wx);
    return {(wy - slope * wx) / w, slope};
}

} // namespace fathom::bench
