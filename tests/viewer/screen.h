// ImGui without a window: frames are built and thrown away, and a mouse goes where a test puts it.
#pragma once

#include "viewer/app.h"

#include <imgui.h>

namespace fathom::test {

class Screen {
  public:
    Screen() {
        ImGui::CreateContext();
        ImGuiIO& io = ImGui::GetIO();
        io.DisplaySize = {1280, 800};
        io.IniFilename = nullptr;
        unsigned char* pixels = nullptr;
        int width = 0, height = 0;
        io.Fonts->GetTexDataAsRGBA32(&pixels, &width, &height);
    }
    ~Screen() { ImGui::DestroyContext(); }
    Screen(const Screen&) = delete;

    void begin(ImVec2 mouse, bool down = false) {
        ImGuiIO& io = ImGui::GetIO();
        io.DeltaTime = 1 / 60.0f;
#if IMGUI_VERSION_NUM < 18700
        io.MousePos = mouse;
        io.MouseDown[0] = down;
#else
        io.AddMousePosEvent(mouse.x, mouse.y);
        io.AddMouseButtonEvent(0, down);
#endif
        ImGui::NewFrame();
    }
    void frame(viewer::App& app, ImVec2 mouse, bool down = false) {
        begin(mouse, down);
        app.frame();
        ImGui::Render();
        vertices = ImGui::GetDrawData()->TotalVtxCount;
    }
    void click(viewer::App& app, ImVec2 at) { frame(app, at), frame(app, at, true), frame(app, at); }
    int vertices = 0; // of the last frame
};

} // namespace fathom::test
