// The browser host: a canvas in which the viewer runs, over the engine that the page came from or over a
// recording that is dropped on it. The page (page.html) has the field to write in, and a mirror of the text
// for screen readers; it calls what is exported here, and is called by the functions of EM_JS.
#include "base/error.h"
#include "base/json.h"
#include "viewer/host/frame.h"
#include "viewer/remote.h"
#include "viewer/ui/compat.h"
#include "viewer/web/link.h"

#define GLFW_INCLUDE_ES3
#include <GLFW/glfw3.h>
#include <backends/imgui_impl_glfw.h>
#include <backends/imgui_impl_opengl3.h>
#include <emscripten.h>
#include <fmt/format.h>
#include <imgui.h>

#include <charconv>
#include <cmath>
#include <cstring>
#include <map>

EM_JS(void, page_tell, (const char* json), { fathom.tell(JSON.parse(UTF8ToString(json))); });
EM_JS(void, page_copy, (const char* text), { fathom.copy(UTF8ToString(text)); });
EM_JS(void, page_save, (const char* name, const char* bytes, int size),
      { fathom.save(UTF8ToString(name), HEAPU8.slice(bytes, bytes + size)); });
EM_JS(int, page_width, (), { return fathom.width(); });
EM_JS(int, page_height, (), { return fathom.height(); });
EM_JS(double, page_ratio, (), { return window.devicePixelRatio || 1; });
EM_JS(void, page_wants_cjk, (), { fathom.wantsCjk(); });

namespace fathom::viewer {

namespace {

constexpr int AFTER_EVENT = 3; // frames drawn after something happened

std::string dump(const nlohmann::json& json) {
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

class Host {
  public:
    Host(std::string url, const nlohmann::json& settings, double scale) : scale_(static_cast<float>(scale)) {
        if (!glfwInit()) throw std::runtime_error("this browser gives no canvas");
        window_ =
            glfwCreateWindow(width_ = page_width(), height_ = page_height(), "Fathom", nullptr, nullptr);
        if (!window_) throw std::runtime_error("this browser has no WebGL 2");
        glfwMakeContextCurrent(window_);
        ImGui::CreateContext();
        ImGuiIO& io = ImGui::GetIO();
        io.IniFilename = nullptr;
        ImGui_ImplGlfw_InitForOpenGL(window_, true);
        ImGui_ImplOpenGL3_Init("#version 300 es");
        io.SetClipboardTextFn = [](void*, const char* text) { page_copy(text); };
        io.GetClipboardTextFn = [](void* host) { return static_cast<Host*>(host)->pasted.c_str(); };
        io.ClipboardUserData = this;
        auto remote = std::make_unique<RemoteSource>(open_link(std::move(url)));
        remote_ = remote.get();
        show(std::move(remote), settings);
    }

    void set_font(bool cjk, std::string bytes) {
        (cjk ? cjk_ : text_) = std::move(bytes);
        fonts_stale_ = true;
        wake();
    }
    void wake() { awake_ = AFTER_EVENT; }

    void show(std::unique_ptr<Source> source, const nlohmann::json& settings) {
        app_.reset();
        source_ = std::move(source);
        app_.emplace(*source_, true, scale_);
        app_->prompt_outside = true;
        app_->set_settings(settings);
        fonts_stale_ = true;
        wake();
    }

    // A recording that was dropped on the page.
    void open(std::string_view bytes, const std::string& name) {
        const nlohmann::json settings = app_->settings();
        try {
            auto source = std::make_unique<RecordingSource>(
                trace::read_recording(std::as_bytes(std::span(bytes.data(), bytes.size())), name));
            remote_ = nullptr;
            show(std::move(source), settings);
            app_->set_preset(Preset::route);
        } catch (const Error& error) {
            app_->notice = error.what();
        }
        wake();
    }

    void frame() {
        fit();
        if (app_->poll()) wake();
        state_ = source_->state();
        follow_address();
        if (awake_ > 0 || app_->wants_frames()) {
            --awake_;
            draw(window_, *app_);
            if (const auto due = due_picture(*app_)) {
                const std::string png = picture_of(window_, due->from, due->to);
                page_save(fmt::format("fathom-{}.png", due->name).c_str(), png.data(),
                          static_cast<int>(png.size()));
            }
            tell();
        }
    }

    App& app() { return *app_; }
    RemoteSource* remote() { return remote_; }
    void set_address(const std::string& address) { wanted_ = address, wake(); }
    std::string pasted;

  private:
    // The canvas as large as the page has room for, in the display's own pixels.
    void fit() {
        const auto ratio = static_cast<float>(page_ratio());
        const int width = page_width(), height = page_height();
        if (width != width_ || height != height_) {
            glfwSetWindowSize(window_, width_ = width, height_ = height);
            wake();
        }
        if (ratio != scale_) { // another display, or another zoom of the page
            app_->move_to_display(scale_ = ratio);
            fonts_stale_ = true;
        }
        if (!fonts_stale_) return;
        fonts_stale_ = false;
        ImGuiIO& io = ImGui::GetIO();
        ImGui_ImplOpenGL3_DestroyFontsTexture();
        io.Fonts->Clear();
        io.FontDefault = nullptr;
        make_fonts({text_.empty() ? nullptr : text_.data(), text_.size(),
                    cjk_.empty() ? nullptr : cjk_.data(), cjk_.size()},
                   std::round(ui::FONT_SIZE * scale_));
        ImGui_ImplOpenGL3_CreateFontsTexture();
        app_->forget_glyphs();
        wake();
    }

    // What the address asks for, as soon as it is there: "view=route&token=12&layer=3&expert=5".
    void follow_address() {
        if (wanted_.empty()) return;
        std::map<std::string, std::string> parts;
        std::string_view rest = wanted_;
        while (!rest.empty()) {
            const std::string_view part = rest.substr(0, rest.find('&'));
            rest.remove_prefix(std::min(rest.size(), part.size() + 1));
            if (const size_t at = part.find('='); at != std::string_view::npos)
                parts.emplace(part.substr(0, at), part.substr(at + 1));
        }
        const auto number = [&](const char* key) -> std::optional<uint32_t> {
            const auto it = parts.find(key);
            uint32_t value = 0;
            if (it == parts.end()) return std::nullopt;
            const auto end = it->second.data() + it->second.size();
            const auto got = std::from_chars(it->second.data(), end, value);
            return got.ec == std::errc() && got.ptr == end ? std::optional(value) : std::nullopt;
        };
        if (const auto view = parts.find("view"); view != parts.end()) {
            const auto* known = std::find(PRESET_NAMES.begin(), PRESET_NAMES.end(), view->second);
            if (known != PRESET_NAMES.end())
                app_->set_preset(static_cast<Preset>(known - PRESET_NAMES.begin()));
        }
        const auto session = number("session");
        if (session && app_->store.timeline(*session)) app_->show_session(*session);
        Selection selection = app_->selection();
        selection.token = number("token"), selection.layer = number("layer"),
        selection.expert = number("expert");
        const trace::Shape& shape = app_->store.shape();
        const bool there = app_->timeline() && (!selection.token || *selection.token < app_->size());
        if (!there && (selection.token || selection.layer || selection.expert)) return; // not yet
        if (selection.layer && *selection.layer >= shape.moe_layers.size()) selection.layer.reset();
        if (selection.expert && (!selection.layer || *selection.expert >= shape.n_experts))
            selection.expert.reset();
        wanted_.clear();
        app_->select(selection);
        if (selection.token) {
            app_->follow = false;
            app_->grid_view.begin =
                std::max(0.0f, static_cast<float>(*selection.token) - app_->grid_view.tokens / 2);
        }
        wake();
    }

    std::string address() const {
        std::string out = fmt::format("view={}", PRESET_NAMES[static_cast<size_t>(app_->preset)]);
        const Selection& s = app_->selection();
        const auto add = [&](const char* key, std::optional<uint32_t> value) {
            if (value) out += fmt::format("&{}={}", key, *value);
        };
        if (app_->store.timelines().size() > 1 && app_->timeline()) add("session", app_->timeline()->session);
        add("token", s.token), add("layer", s.layer), add("expert", s.expert);
        return out;
    }

    // The text from its first token on, and whether Chinese is in it.
    const std::string& written() {
        const Timeline* t = app_->timeline();
        const uint64_t revision = app_->store.revision(), session = t ? t->session : ~0u;
        if (revision == written_of_.first && session == written_of_.second) return written_;
        written_of_ = {revision, session};
        written_.clear();
        for (uint32_t i = 0; t && i < t->size(); ++i)
            if (const Token token = t->token(i); token != trace::NO_TOKEN)
                written_ += app_->store.text(token);
        const auto is_wide = [](char c) { return static_cast<unsigned char>(c) >= 0xE2; };
        if (!cjk_asked_ && std::any_of(written_.begin(), written_.end(), is_wide)) {
            cjk_asked_ = true;
            page_wants_cjk();
        }
        return written_;
    }

    // The page hears of what has changed.
    void tell() {
        const Control* control = source_->control();
        const nlohmann::json now = {
            {"text", written()},
            {"selection", app_->sentence()},
            {"state", state_},
            {"model", app_->store.model_name()},
            {"device", app_->store.device()},
            {"speed", app_->timeline() ? app_->store.speed(*app_->timeline(), 16) : 0},
            {"live", control != nullptr},
            {"connected", remote_ && remote_->generation() != 0 && state_ == "live"},
            {"busy", control && control->busy()},
            {"failure", control ? control->failure() : ""},
            {"dark", app_->theme.dark},
            {"address", wanted_.empty() ? address() : ""},
            {"app", app_->state()},
            {"settings", app_->settings()}};
        std::string text = dump(now);
        if (text == told_) return;
        told_ = std::move(text);
        page_tell(told_.c_str());
    }

    GLFWwindow* window_ = nullptr;
    float scale_ = 1;
    int width_ = 0, height_ = 0, awake_ = AFTER_EVENT;
    std::string text_, cjk_; // fonts
    bool fonts_stale_ = true, cjk_asked_ = false;
    std::unique_ptr<Source> source_;
    RemoteSource* remote_ = nullptr; // the source, where it is one
    std::optional<App> app_;
    std::string state_, told_, wanted_, written_;
    std::pair<uint64_t, uint64_t> written_of_{~0ull, 0};
};

std::unique_ptr<Host> host;

} // namespace

} // namespace fathom::viewer

using fathom::viewer::host;

extern "C" {

EMSCRIPTEN_KEEPALIVE void fathom_start(const char* url, const char* settings, const char* address) {
    nlohmann::json last;
    try {
        last = fathom::parse_json(settings, "settings");
    } catch (const fathom::Error&) { // none are kept, or others': as the viewer was made
    }
    host = std::make_unique<fathom::viewer::Host>(url, last, page_ratio());
    host->set_address(address);
    emscripten_set_main_loop([] { host->frame(); }, 0, 0);
}
EMSCRIPTEN_KEEPALIVE void fathom_font(int cjk, const char* bytes, int size) {
    host->set_font(cjk != 0, std::string(bytes, static_cast<size_t>(size)));
}
EMSCRIPTEN_KEEPALIVE void fathom_wake() {
    if (host) host->wake();
}
EMSCRIPTEN_KEEPALIVE void fathom_wheel(float x, float y) {
    fathom::viewer::ui::turn_wheel(x, y), host->wake();
}
EMSCRIPTEN_KEEPALIVE void fathom_prompt(const char* text) { host->app().prompt = text; }
EMSCRIPTEN_KEEPALIVE void fathom_begin() { host->app().generate(host->app().prompt), host->wake(); }
EMSCRIPTEN_KEEPALIVE void fathom_stop() {
    if (auto* control = host->app().source.control()) control->stop();
}
EMSCRIPTEN_KEEPALIVE void fathom_open(const char* bytes, int size, const char* name) {
    host->open(std::string_view(bytes, static_cast<size_t>(size)), name);
}
EMSCRIPTEN_KEEPALIVE void fathom_address(const char* address) { host->set_address(address); }
EMSCRIPTEN_KEEPALIVE void fathom_hide(int hidden) {
    if (auto* remote = host->remote()) remote->hide(hidden != 0);
}
EMSCRIPTEN_KEEPALIVE void fathom_paste(const char* text) { host->pasted = text; }
}
