// Dear ImGui by our own names, where its versions differ (1.86 of Debian 12 to 1.92): nothing else calls what
// stands in here.
#pragma once

#include <imgui.h>

namespace fathom::viewer::ui {

// The key of a letter, a digit or one of , . - = / (as an American keyboard has them), going down now.
inline bool letter_pressed(char upper) {
#if IMGUI_VERSION_NUM < 18700
    return ImGui::IsKeyPressed(upper, false); // GLFW's codes of these keys are their characters
#else
    const int key = upper == ','   ? ImGuiKey_Comma
                    : upper == '.' ? ImGuiKey_Period
                    : upper == '-' ? ImGuiKey_Minus
                    : upper == '=' ? ImGuiKey_Equal
                    : upper == '/' ? ImGuiKey_Slash
                    : upper >= 'A' ? ImGuiKey_A + (upper - 'A')
                                   : ImGuiKey_0 + (upper - '0');
    return ImGui::IsKeyPressed(static_cast<ImGuiKey>(key), false);
#endif
}
// A named key (ImGuiKey_LeftArrow, ...), going down or repeating.
inline bool key_pressed(ImGuiKey key) {
#if IMGUI_VERSION_NUM < 18700
    return ImGui::IsKeyPressed(ImGui::GetKeyIndex(key));
#else
    return ImGui::IsKeyPressed(key);
#endif
}
// The mouse's wheel, in steps up and to the left.
inline void turn_wheel(float x, float y) {
#if IMGUI_VERSION_NUM < 18700
    ImGui::GetIO().MouseWheelH += x, ImGui::GetIO().MouseWheel += y;
#else
    ImGui::GetIO().AddMouseWheelEvent(x, y);
#endif
}
// Whether the font in use has a character.
inline bool has_glyph(unsigned int character) {
#if IMGUI_VERSION_NUM < 19200
    return character <= 0xFFFF &&
           ImGui::GetFont()->FindGlyphNoFallback(static_cast<ImWchar>(character)) != nullptr;
#else
    return character <= IM_UNICODE_CODEPOINT_MAX &&
           ImGui::GetFont()->IsGlyphInFont(static_cast<ImWchar>(character));
#endif
}
inline bool child(const char* id, ImVec2 size, bool border = true, ImGuiWindowFlags flags = 0) {
    return ImGui::BeginChild(id, size, border, flags); // a bool converts to the later child flags
}
inline void rect(ImDrawList* list, ImVec2 a, ImVec2 b, ImU32 colour, float thickness = 1,
                 float rounding = 0) {
#if IMGUI_VERSION_NUM < 19280
    list->AddRect(a, b, colour, rounding, 0, thickness);
#else
    list->AddRect(a, b, colour, rounding, thickness);
#endif
}
inline ImVec2 operator+(ImVec2 a, ImVec2 b) { return {a.x + b.x, a.y + b.y}; }
inline ImVec2 operator-(ImVec2 a, ImVec2 b) { return {a.x - b.x, a.y - b.y}; }
// Text with a colour of its own.
inline void text(ImU32 colour, const char* begin, const char* end = nullptr) {
    ImGui::PushStyleColor(ImGuiCol_Text, colour);
    ImGui::TextUnformatted(begin, end);
    ImGui::PopStyleColor();
}

} // namespace fathom::viewer::ui
