// Prefixes; see units.h.
#include "base/units.h"

#include <array>
#include <fmt/format.h>
#include <string_view>

namespace fathom {

namespace {
std::string scaled(uint64_t value, std::array<std::string_view, 5> units) {
    double scaled_value = static_cast<double>(value);
    size_t unit = 0;
    while (scaled_value >= 999.5 && unit + 1 < units.size()) {
        scaled_value /= 1000;
        ++unit;
    }
    if (unit == 0) return units[0].empty() ? fmt::format("{}", value) : fmt::format("{} {}", value, units[0]);
    const int digits = scaled_value < 9.995 ? 2 : scaled_value < 99.95 ? 1 : 0;
    return fmt::format("{:.{}f} {}", scaled_value, digits, units[unit]);
}
} // namespace

std::string bytes_text(uint64_t bytes) { return scaled(bytes, {"B", "kB", "MB", "GB", "TB"}); }
std::string count_text(uint64_t count) { return scaled(count, {"", "k", "M", "B", "T"}); }

} // namespace fathom
