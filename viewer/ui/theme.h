// Colours, sizes and fonts. Quantities are drawn in Viridis, whose lightness grows with the value; hues are
// for pinned things alone, at most eight (Okabe and Ito).
#pragma once

#include <imgui.h>

#include <array>
#include <string>

namespace fathom::viewer::ui {

constexpr size_t PINS = 8;
extern const std::array<ImU32, PINS> PIN_COLOURS;

struct Theme {
    bool dark = true;
    float scale = 1; // of the person, beside the system's
    ImU32 text, dim, faint, accent, warning, missing, panel, line;
};

// Sets ImGui's style; sizes are in pixels of a 1x display times `scale`.
Theme apply_theme(bool dark, float scale);
constexpr float FONT_SIZE = 15;

std::array<float, 3> viridis(float t); // 0 to 1
ImU32 heat(float t, float alpha = 1);
ImU32 on_heat(float t); // text that can be read on it

// What text is drawn as: control characters, broken UTF-8 and characters that the font lacks as labels,
// newlines as a sign.
std::string shown(const std::string& bytes);

} // namespace fathom::viewer::ui
