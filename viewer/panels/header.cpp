// What is always to be seen: the model, where it runs, how fast, and whether anything was lost.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <fmt/format.h>
#include <numeric>

namespace fathom::viewer {

namespace {

// Behind what was drawn last, or on a line of its own where the window has no room for so much more.
void beside(float gap, float width) {
    const float right = ImGui::GetWindowPos().x + ImGui::GetWindowContentRegionMax().x;
    if (ImGui::GetItemRectMax().x + gap + width <= right) ImGui::SameLine(0, gap);
}

void tabs(App& app) {
    for (size_t i = 0; i < PRESET_NAMES.size(); ++i) {
        const bool on = app.preset == static_cast<Preset>(i);
        std::string name(PRESET_NAMES[i]);
        name[0] = static_cast<char>(name[0] - 'a' + 'A');
        const float width = ImGui::CalcTextSize(name.c_str()).x + 2 * ImGui::GetStyle().FramePadding.x;
        if (i != 0) beside(4 * app.theme.scale, width);
        if (on) ImGui::PushStyleColor(ImGuiCol_Button, ImGui::GetStyle().Colors[ImGuiCol_ButtonActive]);
        if (ImGui::Button(name.c_str())) app.set_preset(static_cast<Preset>(i));
        if (on) ImGui::PopStyleColor();
        if (ImGui::IsItemHovered()) ImGui::SetTooltip("%d", static_cast<int>(i) + 1);
    }
}

// Forks and other sessions, when there are several.
void sessions(App& app) {
    if (app.store.timelines().size() < 2) return;
    ImGui::SameLine(0, 16 * app.theme.scale);
    ImGui::SetNextItemWidth(190 * app.theme.scale);
    const Timeline* now = app.timeline();
    const auto label = [](const Timeline& t) {
        if (t.parent) return fmt::format("session {}, from {} at {}", t.session, *t.parent, t.forked_at);
        return fmt::format("session {}, {} tokens", t.session, t.size());
    };
    if (!ImGui::BeginCombo("##session", now ? label(*now).c_str() : "")) return;
    for (const Timeline& t : app.store.timelines()) {
        if (t.size() == 0) continue;
        if (ImGui::Selectable(label(t).c_str(), &t == now)) app.show_session(t.session);
    }
    ImGui::EndCombo();
}

// The share of the last timed token that went into attention maps for this window.
double watching_cost(const App& app) {
    const Timeline* t = app.timeline();
    const trace::TokenRecord* record = t ? Store::timed(*t, app.size()) : nullptr;
    if (!record) return 0;
    const trace::StageSums sums = trace::stage_sums(app.store.shape(), record->times);
    const double watching = sums[trace::STAGES.size() - 1],
                 all = std::accumulate(sums.begin(), sums.end(), 0.0);
    return all > 0 ? watching / all : 0;
}

} // namespace

void draw_header(App& app) {
    tabs(app);
    sessions(app);
    ui::text(app.theme.text, ui::shown(app.store.model_name()).c_str());
    ImGui::SameLine(0, 6 * app.theme.scale);
    if (!app.store.device().empty()) ui::text(app.theme.dim, ui::shown("on " + app.store.device()).c_str());
    const auto gap = [&] { beside(20 * app.theme.scale, 110 * app.theme.scale); };
    if (const Timeline* t = app.timeline()) {
        if (const double speed = app.store.speed(*t, 16); speed > 0) {
            gap();
            fact(app, "tokens/s", fmt::format("{:.1f}", speed), app.theme.accent);
            gap();
            fact(app, "p50, p99",
                 fmt::format("{:.0f}, {:.0f} ms", 1e3 * app.store.token_seconds(*t, 0.5),
                             1e3 * app.store.token_seconds(*t, 0.99)));
            gap();
            fact(app, "first token", fmt::format("{:.0f} ms", 1e3 * app.store.first_token_seconds(*t)));
        }
    }
    gap();
    const std::string state = app.source.state();
    const bool fine = state == "live" || state == "recording";
    ui::text(fine ? app.theme.dim : app.theme.warning, state.c_str());
    if (app.wants_frames() && app.source.control()) {
        gap();
        fact(app, "queue", fmt::format("{}", app.queued));
    }
    if (!app.steered.empty()) {
        gap();
        fact(app, "steered", fmt::format("{} experts", app.steered.size()), app.theme.warning);
    }
    if (const double cost = watching_cost(app); cost > 0) {
        gap();
        fact(app, "watching", fmt::format("{:.1f} % of a token", 100 * cost));
    }
    if (!app.notice.empty()) {
        gap();
        ui::text(app.theme.accent, app.notice.c_str());
    }
    if (app.store.lost() != 0) {
        gap();
        fact(app, "lost", fmt::format("{} records", app.store.lost()), app.theme.warning);
    }
    if (app.store.thinned() != 0) {
        gap();
        fact(app, "let go", fmt::format("tables of {} records", app.store.thinned()), app.theme.warning);
    }
    if (app.paused) {
        gap();
        const uint32_t behind = app.timeline() ? app.timeline()->size() - app.size() : 0;
        if (ImGui::SmallButton(fmt::format("Live ({} tokens behind)", behind).c_str())) app.paused = false;
    }
}

void draw_keys(App& app, bool& open) {
    static const char* rows[][2] = {{"1 to 7", "presets"},
                                    {"Ctrl+P, K or F", "commands; tokens by number or text; L3 E7"},
                                    {"Left, Right", "the token before, after"},
                                    {"Up, Down", "the layer above, below"},
                                    {"Space", "pause the view; records go on coming"},
                                    {"P", "play what is there, from the selected token"},
                                    {"B", "a bookmark at the selected token"},
                                    {", and .", "the bookmark, branch or gap before, after"},
                                    {"Ctrl+C", "copies what the tooltip says"},
                                    {"Ctrl+= and -", "larger, smaller"},
                                    {"Home", "the grid as it was at first"},
                                    {"End", "the newest token"},
                                    {"Alt+Left, Alt+Right", "what was selected before, after"},
                                    {"Esc", "nothing selected"},
                                    {"T", "light or dark"},
                                    {"H or ?", "this list"},
                                    {"Ctrl+Q", "leave"}};
    ImGui::SetNextWindowSize({520 * app.theme.scale, 0});
    if (ImGui::Begin("Keys", &open, ImGuiWindowFlags_NoResize | ImGuiWindowFlags_NoCollapse))
        for (const auto& row : rows) {
            ui::text(app.theme.accent, row[0]);
            ImGui::SameLine(170 * app.theme.scale);
            ImGui::TextUnformatted(row[1]);
        }
    ImGui::End();
}

} // namespace fathom::viewer
