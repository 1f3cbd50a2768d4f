// Which experts each token chose: a column for each token, for each MoE layer a row for each choice, lighter
// for a larger weight. Wheel zooms at the cursor, drag pans, double click shows all. Where several tokens
// share a column of pixels it shows the largest weight.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace fathom::viewer {

using ui::operator+;

namespace {

constexpr float FEWEST = 8;

void zoom_and_pan(App& app, ImVec2 from, float width, uint32_t n) {
    const ImGuiIO& io = ImGui::GetIO();
    const float most = std::max(FEWEST, static_cast<float>(n));
    if (app.follow && !app.paused) app.grid_view.begin = static_cast<float>(n) - app.grid_view.tokens;
    if (ImGui::IsItemHovered()) {
        if (io.MouseWheel != 0) {
            const float under = (io.MousePos.x - from.x) / width;
            const float at = app.grid_view.begin + under * app.grid_view.tokens;
            app.grid_view.tokens =
                std::clamp(app.grid_view.tokens * std::pow(0.85f, io.MouseWheel), FEWEST, most);
            app.grid_view.begin = at - under * app.grid_view.tokens;
            app.follow = app.grid_view.begin + app.grid_view.tokens >= static_cast<float>(n) - 0.5f;
        }
        if (ImGui::IsMouseDoubleClicked(0)) app.grid_view.begin = 0, app.grid_view.tokens = most;
    }
    if (ImGui::IsItemActive() && ImGui::IsMouseDragging(0)) {
        app.grid_view.begin -= io.MouseDelta.x / width * app.grid_view.tokens;
        app.follow = false;
    }
    app.grid_view.begin =
        std::clamp(app.grid_view.begin, 0.0f, std::max(0.0f, static_cast<float>(n) - app.grid_view.tokens));
}

void set_cell(App& app, const Timeline& t, uint32_t column, uint32_t first, uint32_t last) {
    const uint32_t active = app.store.shape().n_active;
    for (uint32_t row = 0; row < app.grid.height(); ++row) {
        float weight = -1;
        uint8_t pin = ui::HeatMap::MISSING;
        for (uint32_t i = first; i < last; ++i) {
            const trace::TokenRecord* r = t.record(i);
            if (!r || r->experts.empty()) continue;
            if (pin == ui::HeatMap::MISSING) pin = 0;
            if (const auto found = app.pin_of(row / active, r->experts[row]))
                pin = static_cast<uint8_t>(*found + 1);
            weight = std::max(weight, r->weights[row]);
        }
        const float value = std::clamp(weight / app.grid_view.largest, 0.0f, 1.0f);
        app.grid.at(column, row) = {static_cast<uint8_t>(std::lround(value * 255)), pin};
    }
}

// Cells for the tokens in sight, at most one for each column of pixels.
void fill(App& app, const Timeline& t, float width) {
    const auto begin = static_cast<uint32_t>(app.grid_view.begin);
    const auto end = static_cast<uint32_t>(std::ceil(app.grid_view.begin + app.grid_view.tokens));
    const uint32_t tokens = std::min(end, app.size()) - begin;
    const auto columns = std::max(1u, std::min(tokens, static_cast<uint32_t>(width)));
    uint64_t made_of =
        app.store.revision() * 1000003 + begin * 8191ull + tokens * 131ull + columns + app.size();
    for (const Pin& pin : app.pins) made_of = made_of * 31 + pin.layer * 4099ull + pin.expert + 1;
    if (made_of == app.grid_view.made_of) return;
    app.grid_view.made_of = made_of;
    app.grid_view.largest = 1e-9f;
    for (uint32_t i = begin; i < begin + tokens; ++i)
        if (const trace::TokenRecord* r = t.record(i))
            for (const float w : r->weights) app.grid_view.largest = std::max(app.grid_view.largest, w);
    app.grid.resize(columns, app.store.shape().choices());
    for (uint32_t c = 0; c < columns; ++c) {
        const auto first = begin + static_cast<uint32_t>(uint64_t{c} * tokens / columns);
        const auto last = begin + static_cast<uint32_t>(uint64_t{c + 1} * tokens / columns);
        set_cell(app, t, c, first, std::min(std::max(last, first + 1), app.size()));
    }
}

void tooltip(App& app, const Timeline& t, uint32_t position, uint32_t row) {
    const trace::Shape& s = app.store.shape();
    const uint32_t layer = row / s.n_active, choice = row % s.n_active;
    ImGui::BeginTooltip();
    ImGui::TextUnformatted(app.token_label(position).c_str());
    const trace::TokenRecord* r = t.record(position);
    if (!r)
        ui::text(app.theme.warning, position + 1 == app.size() ? "not gone through the model yet" : "lost");
    if (r && r->experts.empty()) ui::text(app.theme.warning, "its routing was not recorded, or was let go");
    if (r && !r->experts.empty()) {
        fact(app, "layer", fmt::format("{}", s.moe_layers[layer]));
        fact(app, "expert", fmt::format("{}", r->experts[row]), app.theme.accent);
        fact(app, "weight", fmt::format("{:.4f}, choice {} of {}", r->weights[row], choice + 1, s.n_active));
        fact(app, "margin", fmt::format("{:.4g}", r->margin[layer]));
        if (r->swapped[layer] >> choice & 1) ui::text(app.theme.warning, "chosen only thanks to its bias");
    }
    ImGui::EndTooltip();
}

void marks(App& app, ImVec2 from, ImVec2 size) {
    ImDrawList* list = ImGui::GetWindowDrawList();
    const auto layers = static_cast<float>(app.store.shape().moe_layers.size());
    for (float layer = 1; layer < layers; ++layer) // between layers
        list->AddLine(from + ImVec2{0, size.y * layer / layers},
                      from + ImVec2{size.x, size.y * layer / layers}, app.theme.panel, 1);
    const float token = size.x / app.grid_view.tokens;
    const auto column = [&](uint32_t position, ImU32 colour) {
        const float x = (static_cast<float>(position) - app.grid_view.begin) * token;
        if (x + token < 0 || x > size.x) return;
        ui::rect(list, from + ImVec2{std::max(0.0f, x), 0},
                 from + ImVec2{std::min(size.x, x + std::max(token, 2.0f)), size.y}, colour, 1.5f);
    };
    if (app.hovered) column(*app.hovered, app.theme.dim);
    if (app.selection().token) column(*app.selection().token, app.theme.accent);
    if (const auto layer = app.selection().layer) {
        const float top = size.y * static_cast<float>(*layer) / layers;
        ui::rect(list, from + ImVec2{0, top}, from + ImVec2{size.x, top + size.y / layers}, app.theme.accent,
                 1.5f);
    }
}

void under_mouse(App& app, const Timeline& t, ImVec2 from, ImVec2 size) {
    const trace::Shape& s = app.store.shape();
    const ImVec2 mouse = ImGui::GetIO().MousePos;
    const auto position =
        static_cast<uint32_t>(app.grid_view.begin + (mouse.x - from.x) / size.x * app.grid_view.tokens);
    const auto cell =
        std::min(static_cast<uint32_t>((mouse.y - from.y) / size.y * float(s.choices())), s.choices() - 1);
    if (position < app.size()) {
        app.hovered = position;
        tooltip(app, t, position, cell);
        const bool click = ImGui::IsMouseReleased(0) && ImGui::GetIO().MouseDragMaxDistanceSqr[0] < 9;
        const trace::TokenRecord* r = t.record(position);
        if (click && r && !r->experts.empty()) {
            app.select({position, cell / s.n_active, r->experts[cell]});
            app.follow = false;
        }
    }
}

} // namespace

void draw_grid(App& app) {
    const trace::Shape& s = app.store.shape();
    const float height = ImGui::GetContentRegionAvail().y * (app.preset == Preset::route ? 0.38f : 0.5f);
    const bool narrow = app.grid_view.tokens > ImGui::GetContentRegionAvail().x;
    begin_panel(app, "Which experts each token chose",
                narrow ? "columns share pixels: the largest weight shows" : "wheel zooms, drag pans", height,
                ImGuiWindowFlags_NoScrollbar | ImGuiWindowFlags_NoScrollWithMouse);
    const Timeline* t = app.timeline();
    if (!t || app.size() == 0 || s.moe_layers.empty()) {
        ui::text(app.theme.dim, s.moe_layers.empty() ? "This model has no MoE layer." : "No token yet.");
        return end_panel();
    }
    const float labels = ImGui::CalcTextSize("000").x + 6;
    const ImVec2 corner = ImGui::GetCursorScreenPos();
    const ImVec2 from = corner + ImVec2{labels, 0};
    const ImVec2 size{ImGui::GetContentRegionAvail().x - labels,
                      ImGui::GetContentRegionAvail().y - ImGui::GetFontSize() - 4};
    if (size.x < 10 || size.y < 10) return end_panel();
    layer_labels(app, corner, size.y);
    ImGui::SetCursorScreenPos(from);
    ImGui::InvisibleButton("grid", size);
    zoom_and_pan(app, from, size.x, app.size());
    fill(app, *t, size.x);
    // whole tokens are cells; those cut by an edge begin and end outside it
    const auto begin = static_cast<float>(static_cast<uint32_t>(app.grid_view.begin));
    const float end = std::min(std::ceil(app.grid_view.begin + app.grid_view.tokens), float(app.size()));
    const float cells = end - begin, token = size.x / app.grid_view.tokens;
    ImDrawList* list = ImGui::GetWindowDrawList();
    list->PushClipRect(from, from + size, true);
    app.grid.draw(list, from + ImVec2{(begin - app.grid_view.begin) * token, 0},
                  from + ImVec2{(begin - app.grid_view.begin + cells) * token, size.y});
    list->PopClipRect();
    if (ImGui::IsItemHovered()) under_mouse(app, *t, from, size);
    marks(app, from, size);
    ui::text(app.theme.dim,
             fmt::format("tokens {} to {} of {}; weight 0 to {:.3g}",
                         static_cast<uint32_t>(app.grid_view.begin),
                         std::min<uint32_t>(static_cast<uint32_t>(app.grid_view.begin + app.grid_view.tokens),
                                            app.size()) -
                             1,
                         app.size(), app.grid_view.largest)
                 .c_str());
    end_panel();
}

} // namespace fathom::viewer
