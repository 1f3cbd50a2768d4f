// Two sessions side by side: where their texts part, and where the router chose differently before that, with
// how close the choice was.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace fathom::viewer {

using ui::operator+;

namespace {

// Another session than the one shown: what it was compared with last, or the one it came from, or any.
const Timeline* other_of(App& app) {
    const Timeline* now = app.timeline();
    if (!now) return nullptr;
    const auto usable = [&](const Timeline* t) { return t && t != now && t->size() > 0; };
    if (app.other && usable(app.store.timeline(*app.other))) return app.store.timeline(*app.other);
    if (now->parent && usable(app.store.timeline(*now->parent))) return app.store.timeline(*now->parent);
    for (const Timeline& t : app.store.timelines())
        if (usable(&t)) return &t;
    return nullptr;
}

std::string name_of(const Timeline& t) {
    return fmt::format("session {}{}, {} tokens", t.session, t.parent ? ", a branch" : "", t.size());
}

// The text of one from where both are still alike; the first token that differs, and those with another
// choice of experts, are marked.
void column(App& app, const Timeline& t, const trace::Difference& d, const char* id, float width,
            float height) {
    ui::child(id, {width, height}, true);
    ui::text(app.theme.text, name_of(t).c_str());
    const uint32_t parts = d.token.value_or(d.compared), first = parts > 40 ? parts - 40 : 0;
    const ImVec2 origin = ImGui::GetCursorScreenPos();
    const float room = ImGui::GetContentRegionAvail().x, line = ImGui::GetFontSize() * 1.45f;
    float x = 0, y = 0;
    size_t flip = 0;
    for (uint32_t i = first; i < std::min(t.size(), first + 400); ++i) {
        const App::Glyphs& glyphs = app.glyphs(t.token(i));
        if (x + glyphs.width > room && x > 0) x = 0, y += line;
        const ImVec2 at = origin + ImVec2{x, y},
                     end = at + ImVec2{glyphs.width, ImGui::GetFontSize() * 1.15f};
        while (flip < d.flips.size() && d.flips[flip].position < i) ++flip;
        const bool flipped = flip < d.flips.size() && d.flips[flip].position == i;
        ImDrawList* list = ImGui::GetWindowDrawList();
        if (i == d.token) list->AddRectFilled(at, end, app.theme.warning, 3);
        list->AddText(at,
                      i == d.token ? IM_COL32(10, 10, 14, 255)
                      : i < parts  ? app.theme.dim
                                   : app.theme.text,
                      glyphs.text.c_str());
        if (flipped) list->AddLine({at.x, end.y}, end, app.theme.warning, 2);
        if (ImGui::IsWindowHovered() && ImGui::IsMouseHoveringRect(at, end)) {
            ui::rect(list, at, end, app.theme.text, 1, 3);
            ImGui::BeginTooltip();
            tell(app, fmt::format("{} \"{}\"", i, glyphs.text));
            ImGui::EndTooltip();
        }
        x += glyphs.width;
        if (glyphs.ends) x = 0, y += line;
    }
    ImGui::Dummy({1, y + line});
    ImGui::EndChild();
}

void flips_table(App& app, const trace::Difference& d) {
    if (d.flips.empty()) return;
    ui::text(app.theme.dim, "token, layer: experts of one alone; of the other alone; margins");
    ui::child("flips", {0, 0}, false);
    const std::vector<uint32_t>& layers = app.store.shape().moe_layers;
    for (size_t i = 0; i < std::min<size_t>(d.flips.size(), 200); ++i) {
        const trace::Flip& f = d.flips[i];
        const std::string label =
            fmt::format("{}, layer {}: {}; {}; {:.3g} and {:.3g}##{}", app.token_label(f.position), f.layer,
                        fmt::join(f.only_a, ", "), fmt::join(f.only_b, ", "), f.margin_a, f.margin_b, i);
        if (!ImGui::Selectable(label.c_str(), app.selection().token == f.position)) continue;
        Selection next = app.selection();
        next.token = f.position;
        next.layer =
            static_cast<uint32_t>(std::lower_bound(layers.begin(), layers.end(), f.layer) - layers.begin());
        next.expert = f.only_a.front();
        app.select(next);
    }
    ImGui::EndChild();
}

void choose_other(App& app, const Timeline& now, const Timeline* other) {
    ImGui::SetNextItemWidth(230 * app.theme.scale);
    if (ImGui::BeginCombo("##other", other ? name_of(*other).c_str() : "nothing to compare with")) {
        for (const Timeline& t : app.store.timelines())
            if (&t != &now && t.size() > 0 && ImGui::Selectable(name_of(t).c_str(), &t == other))
                app.other = t.session;
        ImGui::EndCombo();
    }
    if (!app.source.control()) return;
    ImGui::SameLine();
    const bool ready = !app.steered.empty() && !app.source.control()->busy();
    const uint32_t from = app.selection().token.value_or(now.parent ? now.forked_at : 0);
    if (!ready) {
        ui::text(app.theme.dim, app.steered.empty() ? "Steer an expert (Route) to see what it changes." : "");
    } else if (from > 0 &&
               ImGui::Button(fmt::format("Write on from {} twice: free and steered", from).c_str())) {
        app.compare_from(from);
    } else if (from == 0) {
        ui::text(app.theme.dim, "Choose a token in the text to write on from.");
    }
}

} // namespace

void draw_compare(App& app) {
    begin_panel(app, "Side by side", "", 0, ImGuiWindowFlags_NoScrollbar);
    ImGui::SameLine();
    const Timeline* now = app.timeline();
    if (!now) {
        ui::text(app.theme.dim, "No token yet.");
        return end_panel();
    }
    const Timeline* other = other_of(app);
    choose_other(app, *now, other);
    if (!other) {
        ImGui::TextWrapped(
            "There is one session only. Click an alternative of a token to branch, or open two "
            "recordings: fathom view A.ftrace B.ftrace.");
        return end_panel();
    }
    app.other = other->session;
    const trace::Difference& d = app.difference(*other, *now);
    fact(app, "alike up to",
         d.token ? app.token_label(*d.token > 0 ? *d.token - 1 : 0) : "the end of the shorter",
         d.token ? app.theme.warning : app.theme.accent);
    ImGui::SameLine(0, 14 * app.theme.scale);
    fact(app, "choices of experts that differ before", fmt::format("{} of {}", d.flips.size(), d.choices));
    if (!d.flips.empty()) {
        ImGui::SameLine(0, 14 * app.theme.scale);
        fact(app, "first at",
             fmt::format("token {}, layer {}, margin {:.3g}", d.flips[0].position, d.flips[0].layer,
                         d.flips[0].margin_a));
    }
    const float width = ImGui::GetContentRegionAvail().x / 2 - 4,
                height = ImGui::GetContentRegionAvail().y * 0.66f;
    column(app, *other, d, "one", width, height);
    ImGui::SameLine();
    column(app, *now, d, "two", 0, height);
    flips_table(app, d);
    end_panel();
}

} // namespace fathom::viewer
