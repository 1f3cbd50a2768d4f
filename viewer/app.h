// The viewer, host apart: its state, one frame of it, and what every panel may use. A host (desktop, later
// the browser) makes the ImGui context, calls frame() and draws what it made.
#pragma once

#include "viewer/source.h"
#include "viewer/ui/heatmap.h"
#include "viewer/ui/theme.h"

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fathom::viewer {

// What is looked at. `layer` counts MoE layers.
struct Selection {
    std::optional<uint32_t> token, layer, expert; // token: its position
    bool operator==(const Selection&) const = default;
};

enum class Preset : uint8_t { generate, route, memory, learn };
constexpr std::array<std::string_view, 4> PRESET_NAMES = {"generate", "route", "memory", "learn"};
enum class Colouring : uint8_t { none, probability, uncertainty, expert };

class App {
  public:
    App(Source& source, bool dark, float scale);

    bool poll();               // takes what the source has; true when there was something
    void frame();              // between ImGui::NewFrame() and ImGui::Render()
    bool wants_frames() const; // something is under way: do not sleep for long

    // For panels.
    Source& source;
    Store store;
    ui::Theme theme;
    Preset preset = Preset::generate;
    Colouring colouring = Colouring::uncertainty;
    Sampling sampling;
    std::string prompt;
    bool ending = false;             // the person wants to leave
    int lesson = 0;                  // step of the tour
    bool paused = false;             // the view stays where it is; records go on coming
    bool follow = true;              // the text and the grid keep the newest token in sight
    uint32_t window = 0;             // tokens that loads are counted over, back from the newest; 0: all
    float split = 0.42f;             // of the width, for the text
    std::vector<Pin> silenced;       // experts that the model may not choose
    std::vector<Pin> pins;           // at most ui::PINS
    std::optional<uint32_t> hovered; // the token under the mouse, wherever it is drawn
    std::string told;                // by the tooltip of this frame, line by line
    std::optional<uint32_t> in_text; // the selected token that the text was last scrolled to

    // What survives from one window to the next: theme, split, preset, colouring, sampling. What is missing
    // in `settings` or makes no sense stays as it is.
    nlohmann::json settings() const;
    void set_settings(const nlohmann::json& settings);
    nlohmann::json state() const; // what is shown and selected, for tests and other programs

    const Timeline* timeline() const { return store.timeline(session_); }
    uint32_t size() const; // tokens shown: fewer than there are when paused
    const Selection& selection() const { return selection_; }
    void select(Selection selection); // into the history
    void select_token(std::optional<uint32_t> token);
    void show_session(uint32_t session);
    void toggle_pin(Pin pin);
    void toggle_silence(Pin expert); // of a live model
    std::optional<size_t> pin_of(uint32_t layer, uint32_t expert) const;
    void generate(std::string text, std::optional<uint32_t> keep = {}, std::optional<Token> forced = {});

    // A token as it is drawn, worked out once for each font size.
    struct Glyphs {
        std::string text;  // see ui::shown
        float width = 0;   // pixels
        bool ends = false; // a line
    };
    const Glyphs& glyphs(Token token);
    std::string token_label(uint32_t position); // 812 "的"
    std::string candidate_label(Token token);

    // What the maps' panels keep from frame to frame.
    struct GridView {
        float begin = 0, tokens = 64; // in sight
        uint64_t made_of = 0;         // what the cells show
    } grid_view;
    struct LoadView {
        std::vector<uint32_t> counts; // (MoE layers, experts)
        uint32_t tokens = 0;          // counted
        uint64_t made_of = 0;
    } load_view;
    ui::HeatMap grid, loads;

  private:
    void keys();
    void body(float height);
    void go(int steps); // through the history

    uint32_t session_ = 0, paused_at_ = 0;
    Selection selection_;
    std::vector<Selection> history_{Selection{}};
    size_t at_ = 0;
    bool help_ = false;
    std::unordered_map<Token, Glyphs> glyphs_;
    float glyphs_size_ = 0; // of the font
};

// The panels: functions of the app's state, each in its own file.
void draw_header(App& app);
void draw_text(App& app);         // tokens, coloured
void draw_alternatives(App& app); // of the selected token
void draw_prompt(App& app);
void draw_grid(App& app);   // token x layer
void draw_load(App& app);   // layer x expert
void draw_choice(App& app); // router of the selected token and layer
void draw_expert(App& app); // the selected expert
void draw_cache(App& app);  // latent cache against others
void draw_memory(App& app); // by owner
void draw_learn(App& app);  // the tour
void draw_keys(App& app, bool& open);

// A title, and a panel below it of this height; always followed by end_panel().
void begin_panel(App& app, const char* title, const char* note, float height, ImGuiWindowFlags flags = 0);
void end_panel();
// A label and a value in two columns.
void fact(App& app, const char* label, const std::string& value, ImU32 colour = 0);
// The same in a tooltip, whose text is also App::told.
void tell(App& app, const char* label, const std::string& value, ImU32 colour = 0);
void tell(App& app, const std::string& line);
std::string bytes_text(double bytes);
// The panel's menu under the right mouse button: what it shows as CSV, into the clipboard.
void copy_menu(const char* id, const std::function<std::string()>& csv);
// The numbers of the MoE layers beside a map of this height, as many as fit.
void layer_labels(App& app, ImVec2 corner, float height);

} // namespace fathom::viewer
