// Arrangements of panels, by what a person wants to see.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fathom::viewer {

enum class Preset : uint8_t { generate, route, attend, memory, time, compare, learn };
constexpr std::array<std::string_view, 7> PRESET_NAMES = {"generate", "route",   "attend", "memory",
                                                          "time",     "compare", "learn"};

} // namespace fathom::viewer
