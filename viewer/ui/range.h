// A histogram to choose a range with: drag over it for a range, drag an edge to move it, double click for
// all.
#pragma once

#include <imgui.h>

#include <cstdint>
#include <span>

namespace fathom::viewer::ui {

struct Range {
    float low = 0, high = 1;
    bool all() const { return low <= 0 && high >= 1; }
    bool holds(float value) const { return value >= low && value <= high; }
};

// Bins of values from 0 to 1, each in the colour map's colour of its values; what is out of range is pale.
// Returns whether the range has changed.
bool histogram_range(const char* id, std::span<const uint32_t> bins, Range& range, ImVec2 size);

} // namespace fathom::viewer::ui
