// What both hosts do with a GLFW window and OpenGL: fonts, a frame, a picture of it.
#pragma once

#include "viewer/app.h"

struct GLFWwindow;

namespace fathom::viewer {

// Fonts of this size in pixels: one for text, and one for CJK behind it. Of null: ImGui's own, and none. The
// bytes must outlive the fonts.
struct FontBytes {
    void* text = nullptr;
    size_t text_bytes = 0;
    void* cjk = nullptr;
    size_t cjk_bytes = 0;
};
void make_fonts(const FontBytes& bytes, float size);

void draw(GLFWwindow* window, App& app);

// A part of what is drawn, in ImGui's coordinates, as a PNG file; "" where it could not be made.
std::string picture_of(GLFWwindow* window, ImVec2 from, ImVec2 to);

// The picture that was asked for, where it is time: the menu that asked is gone.
std::optional<App::Picture> due_picture(App& app);

} // namespace fathom::viewer
