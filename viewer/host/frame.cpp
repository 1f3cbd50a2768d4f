#include "viewer/host/frame.h"

#include "viewer/ui/gl.h"

#define GLFW_INCLUDE_NONE
#include <GLFW/glfw3.h>
#include <backends/imgui_impl_glfw.h>
#include <backends/imgui_impl_opengl3.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#include <stb_image_write.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace fathom::viewer {

void make_fonts(const FontBytes& bytes, float size) {
    static const ImWchar wide[] = {0x20,   0x24F,  0x370,  0x52F,  0x1E00, 0x1EFF,
                                   0x2000, 0x22FF, 0x2500, 0x25FF, 0};
    ImFontAtlas& atlas = *ImGui::GetIO().Fonts;
    if (!bytes.text) {
        atlas.AddFontDefault();
        return;
    }
    ImFontConfig config;
    config.FontDataOwnedByAtlas = false;
    atlas.AddFontFromMemoryTTF(bytes.text, static_cast<int>(bytes.text_bytes), size, &config, wide);
    if (!bytes.cjk) return;
    config.MergeMode = true;
    config.OversampleH = 1;
    atlas.AddFontFromMemoryTTF(bytes.cjk, static_cast<int>(bytes.cjk_bytes), size, &config,
                               atlas.GetGlyphRangesChineseSimplifiedCommon());
}

void draw(GLFWwindow* window, App& app) {
    ImGui_ImplOpenGL3_NewFrame();
    ImGui_ImplGlfw_NewFrame();
    ImGui::GetIO().DeltaTime = std::max(ImGui::GetIO().DeltaTime, 1e-4f); // a browser's clock may stand still
    ImGui::NewFrame();
    app.frame();
    ImGui::Render();
    int width = 0, height = 0;
    glfwGetFramebufferSize(window, &width, &height);
    glViewport(0, 0, width, height);
    const ImVec4 back = ImGui::GetStyle().Colors[ImGuiCol_WindowBg];
    glClearColor(back.x, back.y, back.z, 1);
    glClear(GL_COLOR_BUFFER_BIT);
    ImGui_ImplOpenGL3_RenderDrawData(ImGui::GetDrawData());
}

std::string picture_of(GLFWwindow* window, ImVec2 from, ImVec2 to) {
    int all_wide = 0, all_high = 0;
    glfwGetFramebufferSize(window, &all_wide, &all_high);
    const ImVec2 scale = ImGui::GetIO().DisplayFramebufferScale;
    const auto pixel = [](float at, float by, int most) {
        return std::clamp(static_cast<int>(std::lround(at * by)), 0, most);
    };
    const int left = pixel(from.x, scale.x, all_wide), right = pixel(to.x, scale.x, all_wide),
              top = pixel(from.y, scale.y, all_high), bottom = pixel(to.y, scale.y, all_high);
    const int width = right - left, height = bottom - top;
    std::vector<unsigned char> pixels(size_t(width) * size_t(height) * 4);
    glPixelStorei(GL_PACK_ALIGNMENT, 1);
    glReadPixels(left, all_high - bottom, width, height, GL_RGBA, GL_UNSIGNED_BYTE, pixels.data());
    for (size_t i = 3; i < pixels.size(); i += 4) pixels[i] = 255;
    stbi_flip_vertically_on_write(1);
    std::string png;
    const auto take = [](void* to_string, void* data, int n) {
        static_cast<std::string*>(to_string)->append(static_cast<const char*>(data), static_cast<size_t>(n));
    };
    if (!stbi_write_png_to_func(take, &png, width, height, 4, pixels.data(), width * 4)) png.clear();
    return png;
}

std::optional<App::Picture> due_picture(App& app) {
    if (!app.picture || --app.picture->frames > 0) return std::nullopt;
    return std::exchange(app.picture, std::nullopt);
}

} // namespace fathom::viewer
