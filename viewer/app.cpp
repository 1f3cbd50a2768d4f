#include "viewer/app.h"

#include "viewer/ui/compat.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <iterator>

namespace fathom::viewer {

App::App(Source& from, bool dark, float scale)
    : source(from), store(from.identity(), [&from](Token token) { return from.text(token); }),
      theme(ui::apply_theme(dark, scale)), preset(from.control() ? Preset::generate : Preset::route),
      first_scale_(scale) {}

bool App::poll() {
    const std::vector<trace::Packet> packets = source.poll();
    if (source.generation() != generation_) begin_anew();
    Control* control = source.control();
    for (const trace::Packet& packet : packets) {
        store.ingest(packet);
        const auto* event = std::get_if<trace::Event>(&packet);
        const bool began =
            event && (event->kind == trace::Event::Kind::opened || event->kind == trace::Event::Kind::forked);
        if (!began || !control || (timeline() && !asked_)) continue;
        if (preset == Preset::compare && event->kind == trace::Event::Kind::forked && timeline())
            other = timeline()->parent == event->other ? session_ : event->other; // its twin, or what it left
        show_session(event->session);                                             // what was asked for
    }
    if (!packets.empty()) queued = packets.size();
    if (control && packets.empty() && !control->busy()) asked_ = false;
    if (!timeline() && !store.timelines().empty()) show_session(store.timelines().front().session);
    std::string state = source.state();
    const bool busy = control && control->busy();
    const bool is_news = !packets.empty() || state != state_ || busy != busy_;
    state_ = std::move(state);
    busy_ = busy;
    return is_news;
}

void App::begin_anew() {
    generation_ = source.generation();
    store.begin_anew(source.identity());
    session_ = 0;
    paused = asked_ = false;
    follow = true;
    bookmarks.clear(), steered.clear(), pins.clear(), glyphs_.clear();
    hovered.reset(), in_text.reset(), other.reset(), lit.reset();
    selection_ = {};
    history_ = {{}};
    at_ = 0;
    grid_view.begin = 0;
}

bool App::wants_frames() const {
    return picture || play_speed > 0 || (source.control() && source.control()->busy());
}

uint32_t App::size() const {
    const Timeline* t = timeline();
    if (!t) return 0;
    return paused ? std::min(paused_at_, t->size()) : t->size();
}

nlohmann::json App::settings() const {
    return {{"dark", theme.dark},
            {"split", split},
            {"preset", PRESET_NAMES[static_cast<size_t>(preset)]},
            {"colouring", static_cast<int>(colouring)},
            {"chat", chat},
            {"zoom", theme.scale / first_scale_},
            {"temperature", sampling.temperature},
            {"top_p", sampling.top_p},
            {"max_tokens", sampling.max_tokens}};
}

void App::set_settings(const nlohmann::json& settings) {
    if (!settings.is_object()) return;
    const auto number = [&](const char* key, auto& value, double least, double most) {
        const auto it = settings.find(key);
        if (it == settings.end() || !it->is_number()) return;
        if (const auto given = it->get<double>(); given >= least && given <= most)
            value = static_cast<std::remove_reference_t<decltype(value)>>(given);
    };
    number("split", split, 0.2, 0.75);
    float size = theme.scale / first_scale_;
    number("zoom", size, 0.75, 3);
    if (size != theme.scale / first_scale_) zoom(size * first_scale_ / theme.scale);
    number("temperature", sampling.temperature, 0, 2);
    number("top_p", sampling.top_p, 0.05, 1);
    number("max_tokens", sampling.max_tokens, 1, 1000);
    int shade = static_cast<int>(colouring);
    number("colouring", shade, 0, static_cast<int>(Colouring::attention));
    colouring = static_cast<Colouring>(shade);
    if (const auto it = settings.find("dark"); it != settings.end() && it->is_boolean() && *it != theme.dark)
        theme = ui::apply_theme(*it, theme.scale);
    if (const auto it = settings.find("chat"); it != settings.end() && it->is_boolean()) chat = *it;
    if (const auto it = settings.find("preset"); it != settings.end() && it->is_string()) {
        const auto known = std::find(PRESET_NAMES.begin(), PRESET_NAMES.end(), it->get<std::string>());
        if (known != PRESET_NAMES.end()) preset = static_cast<Preset>(known - PRESET_NAMES.begin());
    }
}

nlohmann::json App::state() const {
    const auto number = [](std::optional<uint32_t> value) {
        return value ? nlohmann::json(*value) : nlohmann::json();
    };
    const auto area = [](const ui::HeatMap& map) {
        return nlohmann::json{map.from().x, map.from().y, map.to().x, map.to().y, map.width(), map.height()};
    };
    const Timeline* t = timeline();
    return {{"session", session_},
            {"sessions", store.timelines().size()},
            {"parent", number(t ? t->parent : std::nullopt)},
            {"tokens", size()},
            {"token", number(selection_.token)},
            {"layer", number(selection_.layer)},
            {"expert", number(selection_.expert)},
            {"hovered", number(hovered)},
            {"told", told},
            {"state", state_},
            {"preset", static_cast<int>(preset)},
            {"lesson", lesson},
            {"steered", steered.size()},
            {"block", number(selection_.block)},
            {"head", number(selection_.head)},
            {"other", number(other)},
            {"bookmarks", bookmarks},
            {"palette", palette},
            {"heads", heads_view.maps.empty() ? nlohmann::json() : area(*heads_view.maps.front())},
            {"lit", lit ? nlohmann::json{lit->first, lit->last} : nlohmann::json()},
            {"notice", notice},
            {"launches", source.control() ? source.control()->profile().launches.size() : 0},
            {"launch_button",
             launch_button ? nlohmann::json{launch_button->x, launch_button->y} : nlohmann::json()},
            {"range", {text_view.range.low, text_view.range.high}},
            {"paused", paused},
            {"busy", wants_frames()},
            {"grid", area(grid)},
            {"grid_begin", grid_view.begin},
            {"loads", area(loads)}};
}

void App::select(Selection selection) {
    if (selection == selection_) return;
    selection_ = selection;
    history_.resize(at_ + 1);
    history_.push_back(selection);
    at_ = history_.size() - 1;
}

void App::select_token(std::optional<uint32_t> token) {
    Selection next = selection_;
    next.token = token;
    if (token) follow = *token + 1 >= size();
    select(next);
}

void App::select_expert(std::optional<uint32_t> token, uint32_t layer, uint32_t expert) {
    Selection next = selection_;
    next.token = token, next.layer = layer, next.expert = expert;
    select(next);
}

void App::show_session(uint32_t session) {
    if (session == session_ && timeline()) return;
    session_ = session;
    paused = false;
    follow = true;
    selection_.token.reset();
}

void App::toggle_pin(Pin pin) {
    if (std::erase(pins, pin) != 0) return;
    if (pins.size() == ui::PINS) pins.erase(pins.begin());
    pins.push_back(pin);
}

const Steered* App::steering_of(Pin expert) const {
    const auto it =
        std::find_if(steered.begin(), steered.end(), [&](const Steered& s) { return s.expert == expert; });
    return it == steered.end() ? nullptr : &*it;
}

void App::steer(const Steered& expert) {
    if (!source.control()) return;
    std::erase_if(steered, [&](const Steered& s) { return s.expert == expert.expert; });
    if (expert.key != 0 || expert.factor != 1) steered.push_back(expert);
    source.control()->steer(steered);
}

void App::free(Pin expert) { steer({.expert = expert}); }

void App::set_preset(Preset wanted) {
    preset = wanted;
    const auto layers = store.shape().n_layers;
    const bool asked = selection_.block || !store.watched().empty();
    if (preset == Preset::attend && source.control() && !asked && layers != 0) watch(layers / 2);
}

void App::select_attention(std::optional<uint32_t> block, std::optional<uint32_t> head) {
    Selection next = selection_;
    next.block = block, next.head = head;
    select(next);
}

void App::watch(uint32_t block) {
    select_attention(block, selection_.head);
    Control* control = source.control();
    if (!control) return;
    trace::LayerWatch wanted{.layers = {block}};
    if (every_position) wanted.width = 0;
    control->watch(wanted);
    const Timeline* t = timeline();
    if (!t || t->slots.empty() || control->busy()) return; // from the next token on
    ask({.session = t->session,
         .keep = t->size(),
         .text = "",
         .forced = {},
         .sampling = sampling,
         .again = true});
}

App::Attended App::attended() const {
    Attended a;
    const std::vector<uint32_t>& known = store.watched();
    a.block = selection_.block.value_or(known.empty() ? 0 : known[known.size() / 2]);
    const Timeline* t = timeline();
    if (!t || size() == 0) return a;
    a.position = selection_.token.value_or(size() >= 2 ? size() - 2 : 0);
    a.rows = Store::attention(*t, a.position, a.block);
    if (const std::optional<uint32_t> head = selection_.head; a.rows && head && *head >= a.rows->first_head)
        if (*head - a.rows->first_head < a.rows->n_heads) a.head = *head - a.rows->first_head;
    return a;
}

void App::basis_of_pins(std::vector<uint64_t>& basis) const {
    for (const Pin& pin : pins) basis.push_back(uint64_t{pin.layer} << 32 | pin.expert);
}

const std::vector<float>& App::attention_paint() {
    const Attended a = attended();
    if (!paint_of_.changes({store.revision(), session_, a.position, a.block, a.head.value_or(UINT32_MAX)}))
        return paint_;
    paint_.clear();
    if (!a.rows) return paint_;
    const std::vector<float> weights = attention_of(*a.rows, a.head);
    for (uint32_t i = 0; i <= a.position; ++i) paint_.push_back(weights[i / a.rows->pool]);
    return paint_;
}

const trace::Difference& App::difference(const Timeline& a, const Timeline& b) {
    if (difference_of_.changes({store.revision(), a.session, b.session}))
        difference_ = store.difference(a, b);
    return difference_;
}

void App::toggle_pause() {
    if (!paused) paused_at_ = size();
    paused = !paused;
    play_speed = 0;
}

void App::play(float speed) {
    const Timeline* t = timeline();
    play_speed = speed;
    if (!t || speed <= 0) return;
    paused_at_ = selection_.token ? *selection_.token + 1 : paused && paused_at_ < t->size() ? paused_at_ : 1;
    paused = true;
    follow = true;
    const trace::TokenRecord* record = t->record(paused_at_ - 1);
    played_ = record ? static_cast<double>(record->time) : 0;
}

// Tokens come into sight at the distances in time that they were made with, but never further apart than a
// second, and those of a prompt one by one.
void App::advance() {
    const Timeline* t = timeline();
    if (play_speed <= 0 || !t) return;
    played_ += 1e9 * ImGui::GetIO().DeltaTime * play_speed;
    for (int steps = 0; paused_at_ < t->size() && steps < 64; ++steps) {
        const trace::TokenRecord *now = t->record(paused_at_ - 1), *next = t->record(paused_at_);
        const double from = now ? double(now->time) : played_;
        const double to = next ? std::clamp(double(next->time), from + 2e7, from + 1e9) : from;
        if (played_ < to) break;
        played_ = next ? played_ - to + double(next->time) : played_;
        ++paused_at_;
    }
    if (paused_at_ < t->size()) return;
    play_speed = 0;
    paused = false;
}

void App::toggle_bookmark(uint32_t position) {
    const auto at = std::lower_bound(bookmarks.begin(), bookmarks.end(), position);
    if (at != bookmarks.end() && *at == position)
        bookmarks.erase(at);
    else
        bookmarks.insert(at, position);
}

void App::go_to_event(int direction) {
    const Timeline* t = timeline();
    if (!t) return;
    std::vector<uint32_t> events = bookmarks;
    if (t->parent) events.push_back(t->forked_at);
    for (uint32_t i = 0; i < size(); ++i) // the first of each gap
        if (!t->record(i) && i + 1 < size() && (i == 0 || t->record(i - 1))) events.push_back(i);
    std::sort(events.begin(), events.end());
    const uint32_t now = selection_.token.value_or(direction > 0 ? 0 : size());
    if (direction > 0) {
        const auto next = std::upper_bound(events.begin(), events.end(), now);
        if (next != events.end() && *next < size()) select_token(*next);
    } else if (const auto at = std::lower_bound(events.begin(), events.end(), now); at != events.begin()) {
        select_token(*std::prev(at));
    }
}

void App::zoom(float factor) {
    const float before = theme.scale / first_scale_, wanted = std::clamp(before * factor, 0.75f, 3.0f);
    theme = ui::apply_theme(theme.dark, first_scale_ * wanted);
    ImGui::GetIO().FontGlobalScale = wanted;
}

void App::move_to_display(float scale) {
    const float zoomed = theme.scale / first_scale_;
    first_scale_ = scale;
    theme = ui::apply_theme(theme.dark, scale * zoomed);
    forget_glyphs();
}

void App::reset() {
    zoom(first_scale_ / theme.scale);
    theme = ui::apply_theme(true, first_scale_);
    split = 0.42f;
    colouring = Colouring::uncertainty;
    sampling = {};
    window = 0;
    chat = false;
    text_view.range = grid_view.range = {};
    grid_view.tokens = 64;
    follow = true;
    pins.clear(), bookmarks.clear();
    select({});
}

void App::compare_from(uint32_t position) {
    const Timeline* t = timeline();
    if (!source.control() || !t) return;
    other.reset();
    set_preset(Preset::compare);
    follow = true, paused = false;
    ask({.session = t->session,
         .keep = position,
         .text = "",
         .forced = {},
         .sampling = sampling,
         .twice = true});
}

std::optional<size_t> App::pin_of(uint32_t layer, uint32_t expert) const {
    const auto it = std::find(pins.begin(), pins.end(), Pin{layer, expert});
    if (it == pins.end()) return std::nullopt;
    return static_cast<size_t>(it - pins.begin());
}

void App::ask(const Request& request) {
    paused = false;
    follow = asked_ = true;
    source.control()->generate(request);
}

void App::generate(std::string text, std::optional<uint32_t> keep, std::optional<Token> forced) {
    Control* control = source.control();
    if (!control) return;
    Request request{.text = std::move(text), .forced = forced, .sampling = sampling};
    request.chat = chat && !request.text.empty();
    if (const Timeline* t = timeline(); t && keep) {
        request.session = t->session;
        request.keep = *keep;
    }
    ask(request);
}

std::string App::sentence() {
    if (!selection_.token && !selection_.expert) return "";
    std::string out;
    const Timeline* t = timeline();
    const trace::TokenRecord* record = nullptr;
    if (selection_.token && t && *selection_.token < size()) {
        out = fmt::format("Token {}", token_label(*selection_.token));
        record = t->record(*selection_.token);
        if (const double p = probability(*t, *selection_.token); !std::isnan(p))
            out += fmt::format(", chosen with {:.1f} %", 100 * p);
    }
    const trace::Shape& shape = store.shape();
    if (!selection_.layer || *selection_.layer >= shape.moe_layers.size()) return out;
    out += fmt::format("{}layer {}", out.empty() ? "" : ", ", shape.moe_layers[*selection_.layer]);
    if (selection_.expert) out += fmt::format(", expert {}", *selection_.expert);
    if (!record || record->experts.empty()) return out;
    out += ", experts";
    for (uint32_t i = 0; i < shape.n_active; ++i) {
        const size_t at = size_t{*selection_.layer} * shape.n_active + i;
        out += fmt::format("{} {} with weight {:.2f}", i == 0 ? "" : ",", record->experts[at],
                           record->weights[at]);
    }
    return out;
}

const App::Glyphs& App::glyphs(Token token) {
    if (glyphs_size_ != ImGui::GetFontSize()) glyphs_.clear();
    glyphs_size_ = ImGui::GetFontSize();
    const auto [it, added] = glyphs_.try_emplace(token);
    if (added) {
        const std::string bytes = token == trace::NO_TOKEN ? "?" : store.text(token);
        const std::string text = ui::shown(bytes);
        it->second = {text, ImGui::CalcTextSize(text.c_str()).x, bytes.find('\n') != std::string::npos,
                      class_of(bytes)};
    }
    return it->second;
}

std::string App::token_label(uint32_t position) {
    const Timeline* t = timeline();
    const Token token = t ? t->token(position) : trace::NO_TOKEN;
    if (token == trace::NO_TOKEN) return fmt::format("{} (lost)", position);
    return fmt::format("{} \"{}\"", position, glyphs(token).text);
}

std::string App::candidate_label(Token token) {
    const std::string& text = glyphs(token).text;
    return text.empty() ? fmt::format("[{}]", token) : text;
}

void App::go(int steps) {
    const auto wanted = static_cast<std::ptrdiff_t>(at_) + steps;
    if (wanted < 0 || wanted >= static_cast<std::ptrdiff_t>(history_.size())) return;
    at_ = static_cast<size_t>(wanted);
    selection_ = history_[at_];
}

void App::keys() {
    const ImGuiIO& io = ImGui::GetIO();
    if (io.KeyCtrl && ui::letter_pressed('Q')) ending = true;
    if (io.KeyCtrl && (ui::letter_pressed('P') || ui::letter_pressed('K') || ui::letter_pressed('F'))) {
        palette = !palette;
        palette_text.clear();
        return;
    }
    if (io.KeyCtrl && ui::letter_pressed('=')) zoom(1.1f);
    if (io.KeyCtrl && ui::letter_pressed('-')) zoom(1 / 1.1f);
    if (io.WantTextInput || palette) return;
    if (io.KeyCtrl) {
        if (ui::letter_pressed('C') && !told_before_.empty()) {
            ImGui::SetClipboardText(told_before_.c_str());
            notice = "copied what the tooltip says";
        }
        return;
    }
    const auto layers = static_cast<uint32_t>(store.shape().moe_layers.size());
    const auto step = [&](std::optional<uint32_t> now, int by, uint32_t n, uint32_t first) {
        if (n == 0) return std::optional<uint32_t>();
        const int64_t from = now ? int64_t{*now} + by : first;
        return std::optional(static_cast<uint32_t>(std::clamp<int64_t>(from, 0, n - 1)));
    };
    const uint32_t n = size();
    if (io.KeyAlt) {
        if (ui::key_pressed(ImGuiKey_LeftArrow)) go(-1);
        if (ui::key_pressed(ImGuiKey_RightArrow)) go(1);
        return;
    }
    if (ui::key_pressed(ImGuiKey_LeftArrow)) select_token(step(selection_.token, -1, n, n ? n - 1 : 0));
    if (ui::key_pressed(ImGuiKey_RightArrow)) select_token(step(selection_.token, 1, n, 0));
    Selection next = selection_;
    if (ui::key_pressed(ImGuiKey_UpArrow)) next.layer = step(selection_.layer, -1, layers, 0);
    if (ui::key_pressed(ImGuiKey_DownArrow)) next.layer = step(selection_.layer, 1, layers, 0);
    if (ui::key_pressed(ImGuiKey_Escape)) next = {};
    if (next != selection_) select(next);
    if (ui::key_pressed(ImGuiKey_End)) follow = true, select_token(std::nullopt);
    if (ui::key_pressed(ImGuiKey_Space)) toggle_pause();
    for (size_t i = 0; i < PRESET_NAMES.size(); ++i)
        if (ui::letter_pressed(static_cast<char>('1' + i))) set_preset(static_cast<Preset>(i));
    if (ui::letter_pressed('P')) play(play_speed > 0 ? 0 : 1);
    if (ui::letter_pressed('B') && selection_.token) toggle_bookmark(*selection_.token);
    if (ui::letter_pressed(',')) go_to_event(-1);
    if (ui::letter_pressed('.')) go_to_event(1);
    if (ui::key_pressed(ImGuiKey_Home)) grid_view.tokens = 64, follow = true, select_token(std::nullopt);
    if (ui::letter_pressed('H') || (io.KeyShift && ui::letter_pressed('/'))) help_ = !help_;
    if (ui::letter_pressed('T')) theme = ui::apply_theme(!theme.dark, theme.scale);
}

namespace {

// A bar to drag, which divides the width.
void splitter(App& app, float height) {
    ImGui::SameLine(0, 0);
    const float width = 8 * app.theme.scale;
    ImGui::InvisibleButton("splitter", {width, height});
    if (ImGui::IsItemHovered() || ImGui::IsItemActive()) ImGui::SetMouseCursor(ImGuiMouseCursor_ResizeEW);
    if (ImGui::IsItemActive()) {
        const float all = ImGui::GetWindowWidth();
        app.split = std::clamp(app.split + ImGui::GetIO().MouseDelta.x / all, 0.2f, 0.75f);
    }
    ImGui::SameLine(0, 0);
}

} // namespace

constexpr float NARROW = 640; // of a window, at scale 1

void App::body(float height) {
    const float all = ImGui::GetContentRegionAvail().x;
    const ImGuiWindowFlags flags = ImGuiWindowFlags_NoScrollbar | ImGuiWindowFlags_NoScrollWithMouse;
    const auto column = [](const char* id, ImVec2 size, ImGuiWindowFlags with) {
        ImGui::PushStyleColor(ImGuiCol_ChildBg, ImVec4(0, 0, 0, 0));
        ui::child(id, size, false, with);
        ImGui::PopStyleColor();
    };
    const bool narrow = all < NARROW * theme.scale; // a phone: one column, which scrolls
    if (narrow) column("stack", {0, height}, 0);
    column("left", narrow ? ImVec2{0, 0.75f * height} : ImVec2{all * split, height}, flags);
    draw_text(*this);
    if (preset != Preset::learn) draw_alternatives(*this); // the tour comes to it by itself
    if (source.control()) draw_prompt(*this);
    ImGui::EndChild();
    if (!narrow) splitter(*this, height);
    column("right", {0, height}, 0);
    switch (preset) {
    case Preset::generate:
        draw_grid(*this);
        draw_choice(*this);
        draw_cache(*this);
        break;
    case Preset::route:
        draw_grid(*this);
        draw_load(*this);
        draw_choice(*this);
        draw_expert(*this);
        break;
    case Preset::attend:
        draw_heads(*this);
        draw_attention_row(*this);
        draw_head_atlas(*this);
        break;
    case Preset::memory:
        draw_cache(*this);
        draw_memory(*this);
        break;
    case Preset::time:
        draw_times(*this);
        draw_stages(*this);
        draw_launches(*this);
        break;
    case Preset::compare:
        draw_compare(*this);
        break;
    case Preset::learn:
        draw_learn(*this);
    }
    ImGui::EndChild();
    if (narrow) ImGui::EndChild();
}

void App::frame() {
    const ImGuiIO& io = ImGui::GetIO();
    lit.reset();
    hovered.reset();
    told_before_ = std::move(told);
    told.clear();
    keys();
    advance();
    ImGui::SetNextWindowPos({0, 0});
    ImGui::SetNextWindowSize(io.DisplaySize);
    ImGui::Begin("fathom", nullptr,
                 ImGuiWindowFlags_NoDecoration | ImGuiWindowFlags_NoMove | ImGuiWindowFlags_NoSavedSettings |
                     ImGuiWindowFlags_NoBringToFrontOnFocus | ImGuiWindowFlags_NoNavInputs);
    draw_header(*this);
    body(ImGui::GetContentRegionAvail().y);
    ImGui::End();
    if (help_) draw_keys(*this, help_);
    if (palette) draw_palette(*this);
}

void begin_panel(App& app, const char* title, const char* note, float height, ImGuiWindowFlags flags) {
    ui::child(title, {0, height}, true, flags);
    ImGui::AlignTextToFramePadding(); // for what may stand beside it
    ui::text(app.theme.text, title);
    if (note && *note) {
        ImGui::SameLine();
        ui::text(app.theme.dim, note);
    }
}

void end_panel() { ImGui::EndChild(); }

void tell(App& app, const std::string& line) {
    app.told += line + "\n";
    ImGui::TextUnformatted(line.c_str());
}

void tell(App& app, const char* label, const std::string& value, ImU32 colour) {
    app.told += std::string(label) + " " + value + "\n";
    fact(app, label, value, colour);
}

void fact(App& app, const char* label, const std::string& value, ImU32 colour) {
    ui::text(app.theme.dim, label);
    ImGui::SameLine(0, 6 * app.theme.scale);
    ui::text(colour ? colour : app.theme.text, value.c_str());
}

void copy_menu(App& app, const char* id, const std::function<std::string()>& csv) {
    const ImVec2 from = ImGui::GetWindowPos(), size = ImGui::GetWindowSize(); // of the panel
    if (!ImGui::BeginPopupContextItem(id)) return;
    if (ImGui::MenuItem("Copy as CSV")) ImGui::SetClipboardText(csv().c_str());
    if (ImGui::MenuItem("Save as PNG")) app.picture = {id, from, {from.x + size.x, from.y + size.y}};
    ImGui::EndPopup();
}

void layer_labels(App& app, ImVec2 corner, float height) {
    const std::vector<uint32_t>& layers = app.store.shape().moe_layers;
    const float row = height / static_cast<float>(layers.size()), size = ImGui::GetFontSize();
    const auto every = static_cast<size_t>(std::ceil(size / row));
    for (size_t l = 0; l < layers.size(); l += every)
        ImGui::GetWindowDrawList()->AddText({corner.x, corner.y + row * (float(l) + 0.5f) - size / 2},
                                            app.theme.dim, fmt::format("{}", layers[l]).c_str());
}

std::string bytes_text(double bytes) {
    const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    while (bytes >= 1024 && unit < 4) bytes /= 1024, ++unit;
    return fmt::format("{:.{}f} {}", bytes, unit == 0 || bytes >= 100 ? 0 : 1, units[unit]);
}

} // namespace fathom::viewer
