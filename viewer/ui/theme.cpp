#include "viewer/ui/theme.h"

#include "viewer/ui/compat.h"

#include <algorithm>
#include <cstdint>
#include <fmt/format.h>

namespace fathom::viewer::ui {

const std::array<ImU32, PINS> PIN_COLOURS = {
    IM_COL32(0xE6, 0x9F, 0x00, 255), IM_COL32(0x56, 0xB4, 0xE9, 255), IM_COL32(0x00, 0x9E, 0x73, 255),
    IM_COL32(0xF0, 0xE4, 0x42, 255), IM_COL32(0x00, 0x72, 0xB2, 255), IM_COL32(0xD5, 0x5E, 0x00, 255),
    IM_COL32(0xCC, 0x79, 0xA7, 255), IM_COL32(0xFF, 0xFF, 0xFF, 255)};

namespace {

// Nine samples of Viridis (van der Walt and Smith, matplotlib), evenly spaced.
constexpr uint8_t VIRIDIS[9][3] = {{0x44, 0x01, 0x54}, {0x47, 0x2D, 0x7B}, {0x3B, 0x52, 0x8B},
                                   {0x2C, 0x72, 0x8E}, {0x21, 0x91, 0x8C}, {0x28, 0xAE, 0x80},
                                   {0x5E, 0xC9, 0x62}, {0xAD, 0xDC, 0x30}, {0xFD, 0xE7, 0x25}};

ImVec4 vec(ImU32 colour) { return ImGui::ColorConvertU32ToFloat4(colour); }

} // namespace

std::array<float, 3> viridis(float t) {
    const float at = std::clamp(t, 0.0f, 1.0f) * 8;
    const auto low = std::min(static_cast<size_t>(at), size_t{7});
    const float part = at - static_cast<float>(low);
    std::array<float, 3> rgb{};
    for (size_t i = 0; i < 3; ++i)
        rgb[i] = (float(VIRIDIS[low][i]) * (1 - part) + float(VIRIDIS[low + 1][i]) * part) / 255;
    return rgb;
}

ImU32 heat(float t, float alpha) {
    const auto [r, g, b] = viridis(t);
    return ImGui::ColorConvertFloat4ToU32({r, g, b, alpha});
}

ImU32 on_heat(float t) { return t > 0.6f ? IM_COL32(15, 15, 20, 255) : IM_COL32(250, 250, 250, 255); }

Theme apply_theme(bool dark, float scale) {
    ImGuiStyle& style = ImGui::GetStyle();
    style = ImGuiStyle();
    Theme t;
    t.dark = dark;
    t.scale = scale;
    if (dark) {
        ImGui::StyleColorsDark();
        t.text = IM_COL32(228, 231, 237, 255), t.dim = IM_COL32(150, 157, 171, 255);
        t.faint = IM_COL32(84, 91, 106, 255), t.accent = IM_COL32(110, 178, 255, 255);
        t.warning = IM_COL32(255, 176, 84, 255), t.missing = IM_COL32(58, 62, 72, 255);
        t.panel = IM_COL32(24, 27, 33, 255), t.line = IM_COL32(48, 53, 63, 255);
        style.Colors[ImGuiCol_WindowBg] = vec(IM_COL32(15, 17, 21, 255));
    } else {
        ImGui::StyleColorsLight();
        t.text = IM_COL32(26, 29, 35, 255), t.dim = IM_COL32(92, 98, 110, 255);
        t.faint = IM_COL32(170, 176, 186, 255), t.accent = IM_COL32(0, 92, 190, 255);
        t.warning = IM_COL32(176, 84, 0, 255), t.missing = IM_COL32(214, 217, 222, 255);
        t.panel = IM_COL32(255, 255, 255, 255), t.line = IM_COL32(214, 218, 225, 255);
        style.Colors[ImGuiCol_WindowBg] = vec(IM_COL32(240, 242, 245, 255));
        style.Colors[ImGuiCol_FrameBg] = vec(IM_COL32(232, 235, 240, 255)); // by itself as white as panels
    }
    style.Colors[ImGuiCol_Text] = vec(t.text);
    style.Colors[ImGuiCol_ChildBg] = vec(t.panel);
    style.Colors[ImGuiCol_Border] = vec(t.line);
    style.Colors[ImGuiCol_PopupBg] = vec(dark ? IM_COL32(32, 36, 44, 250) : IM_COL32(255, 255, 255, 250));
    style.WindowPadding = {10, 8};
    style.FramePadding = {8, 4};
    style.ItemSpacing = {8, 5};
    style.ChildRounding = 6, style.FrameRounding = 4, style.PopupRounding = 6, style.GrabRounding = 4;
    style.WindowBorderSize = 0, style.ScrollbarSize = 12;
    style.ScaleAllSizes(scale);
    return t;
}

namespace {

// The length of a whole UTF-8 sequence at `i`, or 0.
size_t sequence_length(const std::string& s, size_t i) {
    const auto c = static_cast<uint8_t>(s[i]);
    const size_t n = c < 0x80 ? 1 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 0;
    if (n == 0 || i + n > s.size()) return 0;
    for (size_t k = 1; k < n; ++k)
        if ((static_cast<uint8_t>(s[i + k]) & 0xC0) != 0x80) return 0;
    return n;
}

uint32_t code_point(const std::string& s, size_t i, size_t n) {
    const auto byte = [&](size_t k) { return static_cast<uint8_t>(s[i + k]); };
    if (n <= 1) return byte(0);
    uint32_t at = byte(0) & (0xFFu >> (n + 1));
    for (size_t k = 1; k < n; ++k) at = at << 6 | (byte(k) & 0x3Fu);
    return at;
}

} // namespace

std::string shown(const std::string& bytes) {
    std::string out;
    for (size_t i = 0; i < bytes.size();) {
        const size_t n = sequence_length(bytes, i);
        const auto c = static_cast<uint8_t>(bytes[i]);
        if (c == '\n')
            out += "↵";
        else if (c == '\t')
            out += "→";
        else if (n == 0 || c < 0x20)
            out += fmt::format("[{:02X}]", c);
        else if (const uint32_t at = code_point(bytes, i, n); n == 1 || has_glyph(at))
            out += bytes.substr(i, n);
        else if (at == 0xFF5C) // of DeepSeek's special tokens: the wide form of a bar
            out += '|';
        else
            out += fmt::format("[U+{:04X}]", at);
        i += std::max<size_t>(n, 1);
    }
    return out;
}

} // namespace fathom::viewer::ui
