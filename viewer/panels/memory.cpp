// The device's memory by owner.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom::viewer {

using ui::operator+;

void draw_memory(App& app) {
    begin_panel(app, "Memory on the device", "by what it is for", 0);
    std::vector<trace::Event> owners = app.store.memory();
    if (owners.empty()) {
        ui::text(app.theme.dim, "Not told.");
        return end_panel();
    }
    std::sort(owners.begin(), owners.end(), [](const auto& a, const auto& b) { return a.count > b.count; });
    double total = 0;
    for (const trace::Event& owner : owners) total += static_cast<double>(owner.count);
    const float bar = ImGui::GetContentRegionAvail().x * 0.45f;
    for (const trace::Event& owner : owners) {
        const double bytes = static_cast<double>(owner.count);
        const ImVec2 at = ImGui::GetCursorScreenPos();
        const float width =
            std::max(1.0f, bar * static_cast<float>(bytes / static_cast<double>(owners[0].count)));
        ImGui::GetWindowDrawList()->AddRectFilled(at + ImVec2{0, 3}, at + ImVec2{width, ImGui::GetFontSize()},
                                                  ui::heat(static_cast<float>(bytes / total)), 2);
        ImGui::Dummy({bar, ImGui::GetFontSize()});
        ImGui::SameLine();
        ui::text(app.theme.text, fmt::format("{}: {}", ui::shown(owner.text), bytes_text(bytes)).c_str());
    }
    fact(app, "in all", bytes_text(total));
    if (const double there = app.store.model_number("device_memory"); there > 0) {
        ImGui::SameLine(0, 14 * app.theme.scale);
        fact(app, "of", fmt::format("{} on the device, {:.0f} %", bytes_text(there), 100 * total / there));
    }
    end_panel();
}

} // namespace fathom::viewer
