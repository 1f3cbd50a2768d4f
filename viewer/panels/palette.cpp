// One box for everything: commands by name, tokens by number, and the text by what is in it.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdio>
#include <fmt/format.h>
#include <imgui_stdlib.h>

namespace fathom::viewer {

namespace {

struct Command {
    std::string name;
    std::function<void()> act;
};

std::string lower(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
}

void add_commands(App& app, std::vector<Command>& all) {
    for (size_t i = 0; i < PRESET_NAMES.size(); ++i)
        all.push_back({fmt::format("Show: {}", PRESET_NAMES[i]),
                       [&app, i] { app.set_preset(static_cast<Preset>(i)); }});
    all.push_back({app.paused ? "Go on (the view)" : "Pause (the view)", [&app] { app.toggle_pause(); }});
    for (const float speed : {0.25f, 1.0f, 4.0f})
        all.push_back({fmt::format("Play from the selected token, speed {}", speed),
                       [&app, speed] { app.play(speed); }});
    if (app.selection().token)
        all.push_back(
            {"Bookmark the selected token, or not", [&app] { app.toggle_bookmark(*app.selection().token); }});
    all.push_back({app.theme.dark ? "Theme: light" : "Theme: dark",
                   [&app] { app.theme = ui::apply_theme(!app.theme.dark, app.theme.scale); }});
    for (size_t i = 0; i < COLOURING_NAMES.size(); ++i)
        all.push_back({fmt::format("Colour the text by: {}", COLOURING_NAMES[i]),
                       [&app, i] { app.colouring = static_cast<Colouring>(i); }});
    all.push_back({"Save a picture of the window (PNG)", [&app] {
                       const ImVec2 size = ImGui::GetIO().DisplaySize;
                       app.picture = {"window", {0, 0}, size};
                   }});
    all.push_back({"Copy the text", [&app] {
                       std::string text;
                       for (uint32_t i = 0; app.timeline() && i < app.size(); ++i)
                           text += app.store.text(app.timeline()->token(i));
                       ImGui::SetClipboardText(text.c_str());
                   }});
    if (!app.steered.empty())
        all.push_back({"Let all experts work as they do", [&app] {
                           while (!app.steered.empty()) app.free(app.steered.front().expert);
                       }});
    for (size_t kind = 0; app.source.control() && app.timeline() && kind < CLASS_NAMES.size(); ++kind)
        all.push_back({fmt::format("Silence each layer's expert for: {}", CLASS_NAMES[kind]), [&app, kind] {
                           const auto is = [&](Token t) { return size_t(app.glyphs(t).kind) == kind; };
                           const auto found = app.store.specialists(*app.timeline(), is, 4);
                           for (uint32_t layer = 0; layer < found.size(); ++layer)
                               if (found[layer])
                                   app.steer({.expert = {layer, *found[layer]}, .key = Steered::SILENT});
                       }});
    if (!app.pins.empty() && app.source.control())
        all.push_back({"Silence all pinned experts", [&app] {
                           for (const Pin& pin : app.pins) app.steer({.expert = pin, .key = Steered::SILENT});
                       }});
    all.push_back({"Reset the window: theme, size, colours, sampling, marks", [&app] { app.reset(); }});
    all.push_back({"Leave", [&app] { app.ending = true; }});
}

void add_tokens(App& app, std::vector<Command>& all, const std::string& wanted) {
    const Timeline* t = app.timeline();
    if (!t) return;
    const auto go_to = [&](uint32_t position, const std::string& how) {
        all.push_back({fmt::format("{} {}", how, app.token_label(position)), [&app, position] {
                           app.select_token(position);
                           app.grid_view.begin = std::max(0.0f, float(position) - app.grid_view.tokens / 2);
                       }});
    };
    uint32_t number = 0;
    const char* end = wanted.data() + wanted.size();
    if (std::from_chars(wanted.data(), end, number).ptr == end && !wanted.empty() && number < app.size())
        go_to(number, "Go to token");
    uint32_t layer = 0, expert = 0; // "L3 E7"
    const std::vector<uint32_t>& layers = app.store.shape().moe_layers;
    if (std::sscanf(wanted.c_str(), " %*1[lL]%u %*1[eE]%u", &layer, &expert) == 2)
        if (const auto at = std::lower_bound(layers.begin(), layers.end(), layer);
            at != layers.end() && *at == layer && expert < app.store.shape().n_experts)
            all.push_back({fmt::format("Expert {} of layer {}", expert, layer), [&app, at, &layers, expert] {
                               app.set_preset(Preset::route);
                               app.select_expert(app.selection().token,
                                                 static_cast<uint32_t>(at - layers.begin()), expert);
                           }});
    for (const uint32_t mark : app.bookmarks)
        if (mark < app.size() && wanted.empty()) go_to(mark, "Bookmark");
    for (const uint32_t position : app.store.find(*t, wanted, 50))
        if (position < app.size()) go_to(position, "Found at");
}

} // namespace

void draw_palette(App& app) {
    const ImVec2 all = ImGui::GetIO().DisplaySize;
    ImGui::SetNextWindowPos({all.x / 2, all.y * 0.15f}, 0, {0.5f, 0});
    ImGui::SetNextWindowSize({std::min(all.x * 0.9f, 560 * app.theme.scale), all.y * 0.5f});
    ImGui::SetNextWindowFocus();
    ImGui::Begin("palette", nullptr,
                 ImGuiWindowFlags_NoTitleBar | ImGuiWindowFlags_NoResize | ImGuiWindowFlags_NoMove |
                     ImGuiWindowFlags_NoSavedSettings);
    if (ImGui::IsWindowAppearing()) ImGui::SetKeyboardFocusHere();
    ImGui::SetNextItemWidth(-1);
    const bool entered =
        ImGui::InputTextWithHint("##wanted", "a command, a token's number, or a piece of the text",
                                 &app.palette_text, ImGuiInputTextFlags_EnterReturnsTrue);
    std::vector<Command> commands, shown;
    add_tokens(app, commands, app.palette_text);
    const size_t tokens = commands.size();
    add_commands(app, commands);
    const std::string wanted = lower(app.palette_text);
    for (size_t i = 0; i < commands.size(); ++i)
        if (i < tokens || lower(commands[i].name).find(wanted) != std::string::npos)
            shown.push_back(commands[i]);
    bool done = ui::key_pressed(ImGuiKey_Escape);
    ui::child("commands", {0, 0}, false);
    for (size_t i = 0; i < shown.size(); ++i) {
        const bool chosen = ImGui::Selectable(fmt::format("{}##{}", shown[i].name, i).c_str(), i == 0);
        if (done || !(chosen || (entered && i == 0))) continue;
        shown[i].act();
        done = true;
    }
    if (shown.empty()) ui::text(app.theme.dim, "Nothing is called so, and no token holds it.");
    ImGui::EndChild();
    ImGui::End();
    if (done) app.palette = false;
}

} // namespace fathom::viewer
