#include "viewer/desktop/window.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "viewer/desktop/fonts.h"
#include "viewer/host/frame.h"
#include "viewer/ui/gl.h"

#define GLFW_INCLUDE_NONE
#include <GLFW/glfw3.h>
#include <backends/imgui_impl_glfw.h>
#include <backends/imgui_impl_opengl3.h>
#include <imgui.h>
#include <imgui_freetype.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <thread>
#include <utility>

namespace fathom::viewer {

namespace {

constexpr double IDLE_SECONDS = 0.25, BUSY_SECONDS = 1.0 / 30; // between frames without and with news
constexpr int AFTER_EVENT = 3;                                 // frames drawn after something happened

struct Fonts {
    std::string text, cjk;
    explicit Fonts(float scale) {
#if IMGUI_VERSION_NUM < 19200
        ImGui::GetIO().Fonts->FontBuilderIO = ImGuiFreeType::GetBuilderForFreeType();
#endif
        text = text_font(), cjk = cjk_font();
        if (text.empty())
            log::warning(
                "the viewer found no DejaVu Sans (package fonts-dejavu-core): its text will be plain");
        make_fonts({text.empty() ? nullptr : text.data(), text.size(), cjk.empty() ? nullptr : cjk.data(),
                    cjk.size()},
                   std::round(ui::FONT_SIZE * scale));
    }
};

[[noreturn]] void fail(const char* what) {
    const char* reason = nullptr;
    glfwGetError(&reason);
    throw Error({.what = what,
                 .got = reason ? reason : "",
                 .fix = "start it where there is a display (DISPLAY or WAYLAND_DISPLAY), with OpenGL 3.2"});
}

class Window {
  public:
    explicit Window(const WindowOptions& options) {
        if (!glfwInit()) fail("cannot open a window");
        glfwWindowHint(GLFW_CONTEXT_VERSION_MAJOR, 3);
        glfwWindowHint(GLFW_CONTEXT_VERSION_MINOR, 2);
        glfwWindowHint(GLFW_OPENGL_PROFILE, GLFW_OPENGL_CORE_PROFILE);
        glfwWindowHint(GLFW_OPENGL_FORWARD_COMPAT, GLFW_TRUE);
        glfwWindowHint(GLFW_SCALE_TO_MONITOR, options.scale == 0 ? GLFW_TRUE : GLFW_FALSE);
        window = glfwCreateWindow(options.width, options.height, "Fathom", nullptr, nullptr);
        if (!window) {
            glfwTerminate();
            fail("cannot open a window");
        }
        glfwMakeContextCurrent(window);
        glfwSwapInterval(1);
        float x = 1, y = 1;
        glfwGetWindowContentScale(window, &x, &y);
        scale = options.scale != 0 ? options.scale : x;
        ImGui::CreateContext();
        ImGui::GetIO().IniFilename = nullptr;
        fonts.emplace(scale);
        ImGui_ImplGlfw_InitForOpenGL(window, true);
        ImGui_ImplOpenGL3_Init("#version 150");
    }
    ~Window() {
        ui::release_heatmaps();
        ImGui_ImplOpenGL3_Shutdown();
        ImGui_ImplGlfw_Shutdown();
        ImGui::DestroyContext();
        glfwDestroyWindow(window);
        glfwTerminate();
    }
    Window(const Window&) = delete;

    GLFWwindow* window = nullptr;
    float scale = 1;
    std::optional<Fonts> fonts;
};

// A part of what is drawn, in ImGui's coordinates.
void save_picture(const Window& window, ImVec2 from, ImVec2 to, const std::filesystem::path& path) {
    AtomicFile file(path);
    file.write(picture_of(window.window, from, to));
    file.commit();
}

// What a panel's menu asks for, beside other files of the working folder; the header says where it is.
void take_picture(const Window& window, App& app) {
    const std::optional<App::Picture> due = due_picture(app);
    if (!due) return;
    const App::Picture& wanted = *due;
    std::filesystem::path path;
    for (int n = 1; path.empty() || std::filesystem::exists(path); ++n)
        path = fmt::format("fathom-{}-{}.png", wanted.name, n);
    try {
        save_picture(window, wanted.from, wanted.to, path);
        app.notice = fmt::format("saved {}", path.string());
    } catch (const Error& error) {
        app.notice = error.what();
    }
}

// Whole at any moment: whoever reads it sees the old or the new one.
void save_state(const App& app, const std::filesystem::path& path, std::string& last) {
    std::string text = app.state().dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (text == last) return;
    AtomicFile file(path);
    file.write(text);
    file.commit();
    last = std::move(text);
}

// Frames as fast as they come, each with another part of the grid in sight and another token selected.
void measure(Window& window, App& app, uint32_t frames) {
    glfwSwapInterval(0);
    std::vector<double> times;
    for (uint32_t i = 0; i < frames; ++i) {
        if (const uint32_t n = app.size(); n != 0) {
            app.select_token(i * 37 % n);
            app.grid_view.begin = static_cast<float>(i * 11 % n);
        }
        const auto start = std::chrono::steady_clock::now();
        draw(window.window, app);
        glFinish();
        times.push_back(
            std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
        glfwSwapBuffers(window.window);
        glfwPollEvents();
    }
    std::sort(times.begin(), times.end());
    int width = 0, height = 0;
    glfwGetFramebufferSize(window.window, &width, &height);
    fmt::print("{} frames of {} x {} ({}): {:.1f} ms median, {:.1f} ms p99\n", frames, width, height,
               reinterpret_cast<const char*>(glGetString(GL_RENDERER)), times[times.size() / 2],
               times[times.size() * 99 / 100]);
}

std::filesystem::path settings_path() {
    if (const char* config = std::getenv("XDG_CONFIG_HOME"); config && *config)
        return std::filesystem::path(config) / "fathom/viewer.json";
    const char* home = std::getenv("HOME");
    return home && *home ? std::filesystem::path(home) / ".config/fathom/viewer.json"
                         : std::filesystem::path();
}

// Those of the last window; none where there are none, or they cannot be read.
nlohmann::json load_settings(const std::filesystem::path& path) {
    if (std::error_code error; path.empty() || !std::filesystem::exists(path, error)) return {};
    try {
        return parse_json(read_file(path, 1 << 16), path.string());
    } catch (const Error& error) {
        log::warning("{}; the viewer begins as it was made", error.what());
        return {};
    }
}

void save_settings(const App& app, const std::filesystem::path& path) {
    if (path.empty()) return;
    try {
        std::filesystem::create_directories(path.parent_path());
        AtomicFile file(path);
        file.write(app.settings().dump(2) + "\n");
        file.commit();
    } catch (const std::exception& error) {
        log::warning("the viewer's settings are not kept: {}", error.what());
    }
}

} // namespace

void show_window(Source& source, const WindowOptions& options) {
    Window window(options);
    App app(source, options.dark.value_or(true), window.scale);
    const std::filesystem::path settings =
        options.screenshot.empty() && options.measure == 0 ? settings_path() : std::filesystem::path();
    nlohmann::json last = load_settings(settings);
    if (!last.is_object()) last = nlohmann::json::object();
    if (options.dark) last["dark"] = *options.dark;
    if (!source.control()) last.erase("preset"); // of a model that writes
    app.set_settings(last);
    const auto* preset = std::find(PRESET_NAMES.begin(), PRESET_NAMES.end(), options.preset);
    if (preset != PRESET_NAMES.end()) app.set_preset(static_cast<Preset>(preset - PRESET_NAMES.begin()));
    if (options.measure != 0) {
        app.poll();
        return measure(window, app, options.measure);
    }
    int awake = AFTER_EVENT, drawn = 0;
    std::string state;
    while (!glfwWindowShouldClose(window.window) && !app.ending) {
        const double patience = awake > 0 || app.wants_frames() ? BUSY_SECONDS : IDLE_SECONDS;
        const auto before = std::chrono::steady_clock::now();
        glfwWaitEventsTimeout(patience);
        const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - before;
        const bool news = app.poll(), event = waited.count() < 0.95 * patience;
        if (event || news) awake = AFTER_EVENT;
        if (awake <= 0 && !app.wants_frames()) continue;
        --awake;
        draw(window.window, app);
        take_picture(window, app);
        ++drawn;
        if (!options.state.empty()) save_state(app, options.state, state);
        if (!options.screenshot.empty() && drawn >= AFTER_EVENT && !app.wants_frames()) {
            save_picture(window, {0, 0}, ImGui::GetIO().DisplaySize, options.screenshot);
            return;
        }
        glfwSwapBuffers(window.window);
    }
    save_settings(app, settings);
}

} // namespace fathom::viewer
