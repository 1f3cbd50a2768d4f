// The text, token by token: each on the colour of what was uncertain about it, and what else it could have
// been.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace fathom::viewer {

using ui::operator+;

namespace {

constexpr double MOST_BITS = 5; // uncertainty that has the lightest colour

struct Paint {
    bool any = false;
    float value = 0; // 0 to 1, of the colour map
    ImU32 hue = 0;   // instead of it
};

// In the attention preset the text shows attention.
Colouring colouring_of(const App& app) {
    return app.preset == Preset::attend ? Colouring::attention : app.colouring;
}

Paint paint_of(App& app, const Timeline& t, uint32_t position) {
    switch (colouring_of(app)) {
    case Colouring::attention: {
        const std::vector<float>& paid = app.attention_paint();
        return position < paid.size() ? Paint{true, std::sqrt(paid[position]), 0} : Paint{};
    }
    case Colouring::none:
        return {};
    case Colouring::probability: {
        const double p = probability(t, position);
        return std::isnan(p) ? Paint{} : Paint{true, static_cast<float>(1 - p), 0};
    }
    case Colouring::uncertainty: {
        const double bits = uncertainty(t, position);
        return std::isnan(bits) ? Paint{}
                                : Paint{true, static_cast<float>(std::min(1.0, bits / MOST_BITS)), 0};
    }
    case Colouring::expert: {
        const trace::TokenRecord* r = t.record(position);
        if (!r || r->experts.empty()) return {};
        const uint32_t active = app.store.shape().n_active;
        for (size_t c = 0; c < r->experts.size(); ++c)
            if (const auto pin = app.pin_of(static_cast<uint32_t>(c / active), r->experts[c]))
                return {true, 0, ui::PIN_COLOURS[*pin]};
        return {};
    }
    }
    return {};
}

void tooltip(App& app, const Timeline& t, uint32_t position) {
    ImGui::BeginTooltip();
    tell(app, app.token_label(position));
    ui::text(app.theme.dim, t.generated(position) ? "generated" : "prompt");
    const double p = probability(t, position), bits = uncertainty(t, position);
    if (!std::isnan(p)) tell(app, "probability", fmt::format("{:.4f}", p));
    if (!std::isnan(bits)) tell(app, "uncertainty", fmt::format("{:.2f} bits", bits));
    const trace::TokenRecord* before = position > 0 ? t.record(position - 1) : nullptr;
    if (before)
        for (const trace::Candidate& c : before->candidates)
            ui::text(c.token == t.token(position) ? app.theme.accent : app.theme.text,
                     fmt::format("{:7.4f}  {}", std::exp(double(c.logprob)), app.candidate_label(c.token))
                         .c_str());
    ImGui::EndTooltip();
}

void chip(App& app, const Timeline& t, uint32_t position, const std::string& text, ImVec2 at, ImVec2 size) {
    ImDrawList* list = ImGui::GetWindowDrawList();
    Paint paint = paint_of(app, t, position);
    if (paint.any && !paint.hue && !app.text_view.range.holds(paint.value)) paint.any = false;
    ImU32 ink = t.generated(position) ? app.theme.text : app.theme.dim;
    if (paint.any) {
        list->AddRectFilled(at, at + size, paint.hue ? paint.hue : ui::heat(paint.value, 0.85f), 3);
        ink = paint.hue ? IM_COL32(10, 10, 14, 255) : ui::on_heat(paint.value);
    }
    list->AddText(at, ink, text.c_str());
    if (app.selection().token == position) ui::rect(list, at, at + size, app.theme.accent, 2, 3);
    if (app.lit && position >= app.lit->first && position <= app.lit->last)
        ui::rect(list, at, at + size, app.theme.warning, 2, 3);
    if (std::binary_search(app.bookmarks.begin(), app.bookmarks.end(), position))
        list->AddTriangleFilled(at, at + ImVec2{6, 0}, at + ImVec2{0, 6}, app.theme.warning);
    if (ImGui::IsWindowHovered() && ImGui::IsMouseHoveringRect(at, at + size)) {
        app.hovered = position;
        ui::rect(list, at, at + size, app.theme.text, 1, 3);
        tooltip(app, t, position);
        if (ImGui::IsMouseClicked(0)) app.select_token(position);
    }
}

void lay_out(App& app, const Timeline& t) {
    const ImVec2 origin = ImGui::GetCursorScreenPos();
    const float width = ImGui::GetContentRegionAvail().x, line = ImGui::GetFontSize() * 1.45f;
    const float top = ImGui::GetWindowPos().y - line,
                bottom = ImGui::GetWindowPos().y + ImGui::GetWindowHeight();
    float x = 0, y = 0;
    for (uint32_t i = 0; i < app.size(); ++i) {
        const Token token = t.token(i);
        const auto& [text, w, ends, kind] = app.glyphs(token);
        if (x + w > width && x > 0) x = 0, y += line;
        if (app.selection().token == i && app.in_text != i) {
            app.in_text = i;
            const float line_at = origin.y + y - ImGui::GetWindowPos().y;
            if (line_at < 0 || line_at + line > ImGui::GetWindowHeight())
                ImGui::SetScrollY(ImGui::GetScrollY() + line_at - ImGui::GetWindowHeight() / 3);
        }
        if (origin.y + y > top && origin.y + y < bottom && !text.empty())
            chip(app, t, i, text, origin + ImVec2{x, y}, {w, ImGui::GetFontSize() * 1.15f});
        x += w;
        if (ends) x = 0, y += line;
    }
    ImGui::Dummy({1, y + line});
    if (app.follow && !app.paused) ImGui::SetScrollHereY(1);
}

// How often each colour is, which is its legend too; dragging over it leaves colour to a range of values.
void colour_scale(App& app, const char* low, const char* high) {
    const Timeline* t = app.timeline();
    App::TextView& view = app.text_view;
    const App::Attended a = app.attended();
    if (view.made_of.changes({app.store.revision(), uint64_t(colouring_of(app)), t ? t->session : 0,
                              app.size(), a.position, a.block, a.head.value_or(UINT32_MAX)})) {
        view.bins.fill(0);
        for (uint32_t i = 0; t && i < app.size(); ++i)
            if (const Paint paint = paint_of(app, *t, i); paint.any)
                ++view.bins[std::min(static_cast<size_t>(paint.value * float(view.bins.size())),
                                     view.bins.size() - 1)];
    }
    ImGui::SameLine();
    ui::text(app.theme.dim, low);
    ImGui::SameLine(0, 4);
    ui::histogram_range("range", view.bins, view.range,
                        {90 * app.theme.scale, ImGui::GetFontSize() + 4 * app.theme.scale});
    if (ImGui::IsItemHovered()) ImGui::SetTooltip("drag for a range, double click for all");
    ImGui::SameLine(0, 4);
    ui::text(app.theme.dim, high);
}

} // namespace

void draw_text(App& app) {
    const float below = (!app.source.control() ? 0
                         : app.prompt_outside  ? 84
                                               : 158) +
                        (app.preset == Preset::learn ? 0 : 168);
    const float height = ImGui::GetContentRegionAvail().y - std::max(1.0f, below * app.theme.scale);
    begin_panel(app, "Text", "", height, ImGuiWindowFlags_NoScrollbar | ImGuiWindowFlags_NoScrollWithMouse);
    ImGui::SameLine();
    int colouring = static_cast<int>(colouring_of(app));
    ImGui::SetNextItemWidth(150 * app.theme.scale);
    if (ImGui::Combo("##colouring", &colouring, COLOURING_NAMES.data(),
                     static_cast<int>(COLOURING_NAMES.size())))
        app.colouring = static_cast<Colouring>(colouring);
    struct Scale {
        Colouring of;
        const char *low, *high;
    };
    static constexpr Scale SCALES[] = {{Colouring::uncertainty, "0", "5 bits"},
                                       {Colouring::probability, "sure", "unlikely"},
                                       {Colouring::attention, "0", "1"}};
    for (const Scale& scale : SCALES)
        if (scale.of == colouring_of(app)) colour_scale(app, scale.low, scale.high);
    ui::child("tokens", {0, 0}, false);
    if (const Timeline* t = app.timeline(); t && app.size() > 0)
        lay_out(app, *t);
    else
        ui::text(app.theme.dim,
                 app.source.control() ? "Write a beginning below, and watch." : "Nothing recorded.");
    ImGui::EndChild();
    end_panel();
}

void draw_alternatives(App& app) {
    const bool live = app.source.control() != nullptr;
    begin_panel(app, "What else it could have said", live ? "click one to go on from it" : "",
                app.preset == Preset::learn ? 0 : 160 * app.theme.scale);
    const Timeline* t = app.timeline();
    const uint32_t shown = app.selection().token.value_or(app.size() > 0 ? app.size() - 1 : 0);
    const trace::TokenRecord* before = t && shown > 0 ? t->record(shown - 1) : nullptr;
    if (!before || before->candidates.empty()) {
        ui::text(app.theme.dim, t && app.size() > 0 ? "This token was given, not chosen." : "");
        end_panel();
        return;
    }
    fact(app, "for token", app.token_label(shown));
    double rest = 1;
    const float bar = 120 * app.theme.scale;
    for (const trace::Candidate& c : before->candidates) {
        const double p = std::exp(double(c.logprob));
        rest -= p;
        const ImVec2 at = ImGui::GetCursorScreenPos();
        ImGui::GetWindowDrawList()->AddRectFilled(
            at + ImVec2{0, 3}, at + ImVec2{1 + bar * float(p), ImGui::GetFontSize() - 1},
            c.token == t->token(shown) ? app.theme.accent : app.theme.faint, 2);
        ImGui::Dummy({bar, ImGui::GetFontSize()});
        ImGui::SameLine();
        const std::string label = fmt::format("{:.4f}  {}##{}", p, app.candidate_label(c.token), c.token);
        if (ImGui::Selectable(label.c_str(), c.token == t->token(shown)) && live)
            app.generate("", shown, c.token);
    }
    ui::text(app.theme.dim, fmt::format("{:.4f}  all others", std::max(0.0, rest)).c_str());
    end_panel();
}

} // namespace fathom::viewer
