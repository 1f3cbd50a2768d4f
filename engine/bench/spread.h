// Repeated measurements, and what is told of them: the median and the first and last tenth, never the best.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom::bench {

struct Spread {
    double median = 0, p10 = 0, p90 = 0;
    uint32_t n = 0;
    double width() const { return median > 0 ? (p90 - p10) / median : 0; } // of the middle 80 %, relative
};
Spread spread_of(std::span<const double> samples); // nearest rank; all 0 of none
Spread scaled(const Spread& spread, double factor);
// factor / value of each: rates from times, in their order.
Spread inverse(const Spread& spread, double factor);

// y = intercept + slope x with the least squares of relative errors.
struct Line {
    double intercept = 0, slope = 0;
};
Line line_through(std::span<const double> x, std::span<const double> y);

} // namespace fathom::bench
