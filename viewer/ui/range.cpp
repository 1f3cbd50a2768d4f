#include "viewer/ui/range.h"

#include "viewer/ui/compat.h"
#include "viewer/ui/theme.h"

#include <algorithm>
#include <cmath>

namespace fathom::viewer::ui {

bool histogram_range(const char* id, std::span<const uint32_t> bins, Range& range, ImVec2 size) {
    const ImVec2 from = ImGui::GetCursorScreenPos();
    ImGui::InvisibleButton(id, size);
    const Range before = range;
    const ImGuiIO& io = ImGui::GetIO();
    const auto value_at = [&](float x) { return std::clamp((x - from.x) / size.x, 0.0f, 1.0f); };
    if (ImGui::IsItemHovered() && ImGui::IsMouseDoubleClicked(0)) {
        range = {};
    } else if (ImGui::IsItemActive() && ImGui::IsMouseDragging(0, 2)) {
        // An edge goes along where the drag began near it; elsewhere a new range begins.
        ImGuiStorage* kept = ImGui::GetStateStorage();
        const ImGuiID key = ImGui::GetID(id);
        if (io.MouseDownDuration[0] <= io.DeltaTime || kept->GetFloat(key, -1) < 0) {
            const float start = value_at(io.MouseClickedPos[0].x), near = 5 / size.x;
            const float anchor = range.all()                           ? start
                                 : std::abs(start - range.low) < near  ? range.high
                                 : std::abs(start - range.high) < near ? range.low
                                                                       : start;
            kept->SetFloat(key, anchor);
        }
        const float anchor = kept->GetFloat(key, 0), now = value_at(io.MousePos.x);
        range = {std::min(anchor, now), std::max(anchor, now)};
    } else if (!ImGui::IsItemActive()) {
        ImGui::GetStateStorage()->SetFloat(ImGui::GetID(id), -1);
    }
    ImDrawList* list = ImGui::GetWindowDrawList();
    const uint32_t most = std::max(1u, *std::max_element(bins.begin(), bins.end()));
    const float width = size.x / static_cast<float>(bins.size());
    for (size_t i = 0; i < bins.size(); ++i) {
        const float middle = (static_cast<float>(i) + 0.5f) / static_cast<float>(bins.size());
        const float high =
            bins[i] == 0 ? 1 : std::max(2.0f, size.y * std::sqrt(float(bins[i]) / float(most)));
        list->AddRectFilled(from + ImVec2{width * float(i), size.y - high},
                            from + ImVec2{width * float(i + 1), size.y},
                            heat(middle, range.holds(middle) ? 1.0f : 0.25f));
    }
    if (!range.all())
        rect(list, from + ImVec2{size.x * range.low, 0}, from + ImVec2{size.x * range.high, size.y},
             ImGui::GetColorU32(ImGuiCol_Text), 1);
    return range.low != before.low || range.high != before.high;
}

} // namespace fathom::viewer::ui
