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

// For each (layer, expert) its pin, from 1; empty without pins.
std::vector<uint8_t> pin_table(const App& app) {
    const trace::Shape& s = app.store.shape();
    std::vector<uint8_t> table(app.pins.empty() ? 0 : s.moe_layers.size() * s.n_experts);
    for (size_t i = 0; i < app.pins.size(); ++i)
        table[size_t{app.pins[i].layer} * s.n_experts + app.pins[i].expert] = static_cast<uint8_t>(i + 1);
    return table;
}

// One column of cells, of the tokens [first, last).
void fill_column(App& app, const Timeline& t, uint32_t column, uint32_t first, uint32_t last,
                 const std::vector<uint8_t>& pins) {
    const trace::Shape& s = app.store.shape();
    const uint32_t rows = app.grid.height();
    std::vector<float> weights(rows, -1.0f);
    std::vector<uint8_t> pinned(rows, 0);
    bool any = false;
    for (uint32_t i = first; i < last; ++i) {
        const trace::TokenRecord* r = t.record(i);
        if (!r || r->experts.empty()) continue;
        any = true;
        for (uint32_t row = 0; row < rows; ++row) weights[row] = std::max(weights[row], r->weights[row]);
        if (pins.empty()) continue;
        for (uint32_t row = 0; row < rows; ++row)
            if (const uint8_t pin = pins[size_t{row / s.n_active} * s.n_experts + r->experts[row]])
                pinned[row] = pin;
    }
    for (uint32_t row = 0; row < rows; ++row) {
        float value = std::clamp(weights[row] / t.largest, 0.0f, 1.0f);
        const size_t bins = app.grid_view.bins.size();
        if (any) ++app.grid_view.bins[std::min(static_cast<size_t>(value * float(bins)), bins - 1)];
        if (!app.grid_view.range.holds(value)) value = 0;
        app.grid.at(column, row) = {static_cast<uint8_t>(value * 255 + 0.5f),
                                    any ? pinned[row] : ui::HeatMap::MISSING};
    }
}

// Cells for the tokens in sight, at most one for each column of pixels.
void fill(App& app, const Timeline& t, float width) {
    const auto begin = static_cast<uint32_t>(app.grid_view.begin);
    const auto end = static_cast<uint32_t>(std::ceil(app.grid_view.begin + app.grid_view.tokens));
    const uint32_t tokens = std::min(end, app.size()) - begin;
    const auto columns = std::max(1u, std::min(tokens, static_cast<uint32_t>(width)));
    std::vector<uint64_t> basis{app.store.revision(),
                                t.session,
                                begin,
                                tokens,
                                columns,
                                app.size(),
                                Basis::of(app.grid_view.range.low),
                                Basis::of(app.grid_view.range.high)};
    app.basis_of_pins(basis);
    if (!app.grid_view.made_of.changes(std::move(basis))) return;
    const std::vector<uint8_t> pins = pin_table(app);
    app.grid_view.bins.fill(0);
    app.grid.resize(columns, app.store.shape().choices());
    for (uint32_t c = 0; c < columns; ++c) {
        const auto first = begin + static_cast<uint32_t>(uint64_t{c} * tokens / columns);
        const auto last = begin + static_cast<uint32_t>(uint64_t{c + 1} * tokens / columns);
        fill_column(app, t, c, first, std::min(std::max(last, first + 1), app.size()), pins);
    }
}

void tooltip(App& app, const Timeline& t, uint32_t position, uint32_t row) {
    const trace::Shape& s = app.store.shape();
    const uint32_t layer = row / s.n_active, choice = row % s.n_active;
    ImGui::BeginTooltip();
    tell(app, app.token_label(position));
    const trace::TokenRecord* r = t.record(position);
    if (!r)
        ui::text(app.theme.warning, position + 1 == app.size() ? "not gone through the model yet" : "lost");
    if (r && r->experts.empty()) ui::text(app.theme.warning, "its routing was not recorded, or was let go");
    if (r && !r->experts.empty()) {
        tell(app, "layer", fmt::format("{}", s.moe_layers[layer]));
        tell(app, "expert", fmt::format("{}", r->experts[row]), app.theme.accent);
        tell(app, "weight", fmt::format("{:.4f}, choice {} of {}", r->weights[row], choice + 1, s.n_active));
        tell(app, "margin", fmt::format("{:.4g}", r->margin[layer]));
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
            app.select_expert(position, cell / s.n_active, r->experts[cell]);
            app.follow = false;
        }
    }
}

// All tokens in small: where the view is, and how uncertain each was; click or drag to go there.
void scrubber(App& app, const Timeline& t, ImVec2 size) {
    const ImVec2 from = ImGui::GetCursorScreenPos();
    ImGui::InvisibleButton("scrubber", size);
    const float n = float(std::max(1u, app.size()));
    if (ImGui::IsItemActive()) {
        const float at = (ImGui::GetIO().MousePos.x - from.x) / size.x * n;
        app.grid_view.begin =
            std::clamp(at - app.grid_view.tokens / 2, 0.0f, std::max(0.0f, n - app.grid_view.tokens));
        app.follow = app.grid_view.begin + app.grid_view.tokens >= n - 0.5f;
    }
    ImDrawList* list = ImGui::GetWindowDrawList();
    list->AddRectFilled(from, from + size, app.theme.line, 3);
    const float step = std::max(3.0f, size.x / n);
    for (float x = 0; x < size.x; x += step) {
        double most = -1; // the most uncertain of those that share the place
        const auto first = static_cast<uint32_t>(x / size.x * n);
        const auto last = std::min(static_cast<uint32_t>((x + step) / size.x * n) + 1, app.size());
        for (uint32_t i = first; i < std::min(last, first + 8); ++i) {
            const double bits = uncertainty(t, i);
            if (!std::isnan(bits)) most = std::max(most, bits);
        }
        if (most < 0) continue;
        const float high = size.y * std::min(1.0f, float(most) / 6);
        list->AddRectFilled(from + ImVec2{x, size.y - high},
                            from + ImVec2{std::min(size.x, x + step - 1), size.y}, app.theme.faint);
    }
    const float left = size.x * app.grid_view.begin / n,
                right = size.x * (app.grid_view.begin + app.grid_view.tokens) / n;
    ui::rect(list, from + ImVec2{left, 0}, from + ImVec2{std::min(size.x, right), size.y}, app.theme.accent,
             1.5f, 3);
}

// A line for each token and choice in sight.
std::string csv(const App& app, const Timeline& t) {
    const trace::Shape& s = app.store.shape();
    std::string out = "position,token,layer,choice,expert,weight\n";
    const auto end =
        std::min(static_cast<uint32_t>(app.grid_view.begin + app.grid_view.tokens) + 1, app.size());
    for (auto i = static_cast<uint32_t>(app.grid_view.begin); i < end; ++i) {
        const trace::TokenRecord* r = t.record(i);
        for (size_t c = 0; r && c < r->experts.size(); ++c)
            out += fmt::format("{},{},{},{},{},{}\n", i, r->token, s.moe_layers[c / s.n_active],
                               c % s.n_active, r->experts[c], r->weights[c]);
    }
    return out;
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
                      ImGui::GetContentRegionAvail().y - 2.2f * ImGui::GetFontSize() - 12};
    if (size.x < 10 || size.y < 10) return end_panel();
    layer_labels(app, corner, size.y);
    ImGui::SetCursorScreenPos(from);
    ImGui::InvisibleButton("grid", size);
    copy_menu(app, "grid", [&] { return csv(app, *t); });
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
    ImGui::SetCursorScreenPos({from.x, ImGui::GetCursorScreenPos().y});
    scrubber(app, *t, {size.x, ImGui::GetFontSize() * 1.2f});
    ui::text(app.theme.dim,
             fmt::format("tokens {} to {} of {}; weight 0 to {:.3g}",
                         static_cast<uint32_t>(app.grid_view.begin),
                         std::min<uint32_t>(static_cast<uint32_t>(app.grid_view.begin + app.grid_view.tokens),
                                            app.size()) -
                             1,
                         app.size(), t->largest)
                 .c_str());
    ImGui::SameLine();
    ui::histogram_range("weights", app.grid_view.bins, app.grid_view.range,
                        {110 * app.theme.scale, ImGui::GetFontSize()});
    if (ImGui::IsItemHovered())
        ImGui::SetTooltip("cells by their weight: drag for a range, double click for all");
    end_panel();
}

} // namespace fathom::viewer
