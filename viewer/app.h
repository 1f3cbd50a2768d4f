// The viewer, host apart: its state, one frame of it, and what every panel may use. A host (desktop, later
// the browser) makes the ImGui context, calls frame() and draws what it made.
#pragma once

#include "viewer/preset.h"
#include "viewer/source.h"
#include "viewer/ui/heatmap.h"
#include "viewer/ui/range.h"
#include "viewer/ui/theme.h"

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fathom::viewer {

// What is looked at. `layer` counts MoE layers; `block` is the number of a layer whose attention is looked
// at, `head` one of its heads.
struct Selection {
    std::optional<uint32_t> token, layer, expert; // token: its position
    std::optional<uint32_t> block, head;
    bool operator==(const Selection&) const = default;
};

enum class Colouring : uint8_t { none, probability, uncertainty, expert, attention };
inline constexpr std::array COLOURING_NAMES = {"plain", "probability", "uncertainty", "pinned experts",
                                               "attention"};

// What something kept was made of, so that it is made anew only where that has changed.
class Basis {
  public:
    static uint64_t of(float value) {
        uint32_t bits = 0; // std::bit_cast, which Emscripten's library lacks in Debian 12
        std::memcpy(&bits, &value, sizeof(bits));
        return bits;
    }
    bool changes(std::vector<uint64_t> now) {
        if (now == of_) return false;
        of_ = std::move(now);
        return true;
    }

  private:
    std::vector<uint64_t> of_;
};

class App {
  public:
    App(Source& source, bool dark, float scale);

    size_t queued = 0;         // packets that waited at the last poll which found any
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
    bool prompt_outside = false;     // the host has the field to write in
    bool chat = false;               // it is said to a model that answers
    bool ending = false;             // the person wants to leave
    int lesson = 0;                  // step of the tour
    bool paused = false;             // the view stays where it is; records go on coming
    bool follow = true;              // the text and the grid keep the newest token in sight
    uint32_t window = 0;             // tokens that loads are counted over, back from the newest; 0: all
    float split = 0.42f;             // of the width, for the text
    std::vector<Steered> steered;    // experts that the model does not use as it would
    std::vector<Pin> pins;           // at most ui::PINS
    std::optional<uint32_t> hovered; // the token under the mouse, wherever it is drawn
    std::string told;                // by the tooltip of this frame, line by line
    std::optional<uint32_t> in_text; // the selected token that the text was last scrolled to
    std::optional<uint32_t> other;   // the session that this one is compared with
    std::vector<uint32_t> bookmarks; // positions, in order
    struct Range {                   // of positions, the last one included
        uint32_t first, last;
    };
    std::optional<Range> lit; // positions that the mouse points at in a panel, to be marked in the text
    float play_speed = 0;     // of the view through what is there, times the speed it came with; 0: it stands
    // Asks the host for a picture of a part of the window, in the next frame: the menu is gone then.
    struct Picture {
        std::string name;
        ImVec2 from, to;
        int frames = 2; // until it is taken
    };
    std::optional<Picture> picture;
    std::string notice; // of the host: where it put a picture

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
    void select_expert(std::optional<uint32_t> token, uint32_t layer, uint32_t expert);
    void show_session(uint32_t session);
    void toggle_pin(Pin pin);
    void set_preset(Preset wanted);
    void select_attention(std::optional<uint32_t> block, std::optional<uint32_t> head);
    bool every_position = false; // of attention that is watched from now on: never sums of neighbours
    void watch(uint32_t block);  // the attention of this layer, of a live model; reads the text once more
    const Steered* steering_of(Pin expert) const; // null: it is free
    void steer(const Steered& expert);            // of a live model
    void free(Pin expert);                        // as it is again
    void toggle_pause();
    void play(float speed);
    void toggle_bookmark(uint32_t position);
    void go_to_event(int direction);      // the next bookmark, branch or gap, from the selected token
    void zoom(float factor);              // of everything
    void move_to_display(float scale);    // whose scale is another one
    void reset();                         // to what the window was made with, but for what was recorded
    void compare_from(uint32_t position); // writes on from there twice: as the model is, and as it is steered
    // What is looked at in the attention panels: a token that went through the model, and what its heads of
    // the chosen layer looked at; no rows where that is not known.
    struct Attended {
        uint32_t position = 0, block = 0;
        const trace::AttentionRows* rows = nullptr;
        std::optional<uint32_t>
            head; // the selected one, as the rows count it; none: it, or they, are not told
    };
    Attended attended() const;
    void basis_of_pins(std::vector<uint64_t>& basis) const;
    // Of the positions of the text what the attended head pays to each, 0 to 1; empty: not known.
    const std::vector<float>& attention_paint();
    std::optional<size_t> pin_of(uint32_t layer, uint32_t expert) const;
    void generate(std::string text, std::optional<uint32_t> keep = {}, std::optional<Token> forced = {});

    // A token as it is drawn, worked out once for each font size.
    struct Glyphs {
        std::string text;  // see ui::shown
        float width = 0;   // pixels
        bool ends = false; // a line
        TokenClass kind = TokenClass::other;
    };
    const Glyphs& glyphs(Token token);
    void forget_glyphs() { glyphs_.clear(); }   // the font is another one
    std::string token_label(uint32_t position); // 812 "的"
    std::string sentence();                     // what is selected, for who cannot see it
    std::string candidate_label(Token token);

    // What panels keep from frame to frame.
    struct TextView {
        std::array<uint32_t, 30> bins{}; // tokens by the value of their colour
        Basis made_of;
        ui::Range range; // of values whose tokens are coloured
    } text_view;
    struct GridView {
        float begin = 0, tokens = 64;    // in sight
        std::array<uint32_t, 30> bins{}; // cells by their weight
        ui::Range range;                 // of weights, over the largest, that are shown
        Basis made_of;
    } grid_view;
    struct LoadView {
        std::vector<uint32_t> counts; // (MoE layers, experts)
        uint32_t tokens = 0;          // counted
        Basis made_of;
    } load_view;
    ui::HeatMap grid, loads;
    struct HeadsView {
        std::vector<std::unique_ptr<ui::HeatMap>> maps; // one for each head
        Basis made_of;
        uint32_t first = 0; // position of the first row
    } heads_view;
    const trace::Difference& difference(const Timeline& a, const Timeline& b); // worked out when one changes
    std::optional<ImVec2> launch_button; // where it was drawn last, for tests
    bool palette = false;                // open
    std::string palette_text;

  private:
    void keys();
    void body(float height);
    void go(int steps); // through the history

    void advance(); // the view that plays
    void begin_anew();
    void ask(const Request& request); // of a live model
    uint64_t generation_ = 0;         // of the source
    std::string state_;               // the same, as it was at the last poll
    bool busy_ = false;               // its control, then
    bool asked_ = false;              // for what a live model writes: its sessions are shown as they begin
    uint32_t session_ = 0, paused_at_ = 0;
    std::string told_before_; // by the tooltip of the frame before, to be copied
    float first_scale_ = 1;
    double played_ = 0; // ns of the recording's time that the view has come to
    std::vector<float> paint_;
    Basis paint_of_, difference_of_;
    trace::Difference difference_;
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
void draw_grid(App& app);          // token x layer
void draw_load(App& app);          // layer x expert
void draw_choice(App& app);        // router of the selected token and layer
void draw_expert(App& app);        // the selected expert
void draw_cache(App& app);         // latent cache against others
void draw_memory(App& app);        // by owner
void draw_heads(App& app);         // attention: every head's map in small
void draw_attention_row(App& app); // what the selected token's head looks at
void draw_head_atlas(App& app);    // what kind of head each is
void draw_times(App& app);         // from token to token
void draw_stages(App& app);        // of one token, by layer and stage
void draw_launches(App& app);      // of a step, of a live model
void draw_compare(App& app);       // two sessions side by side
void draw_learn(App& app);         // the tour
void draw_palette(App& app);       // commands and search
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
// The panel's menu under the right mouse button: what it shows as CSV, into the clipboard, or as a picture.
void copy_menu(App& app, const char* id, const std::function<std::string()>& csv);
// The numbers of the MoE layers beside a map of this height, as many as fit.
void layer_labels(App& app, ImVec2 corner, float height);

} // namespace fathom::viewer
