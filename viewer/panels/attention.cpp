// What the heads of one layer look at: every head's map in small, one token's row in large, and what kind of
// head each is. Lightness is the square root of a weight, so that small ones are seen.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace fathom::viewer {

using ui::operator+;

namespace {

constexpr uint32_t MOST_ROWS = 64; // of a small map: tokens, and as many columns

uint8_t lightness(float weight) {
    return static_cast<uint8_t>(std::lround(std::sqrt(std::clamp(weight, 0.0f, 1.0f)) * 255));
}

// The layers, to choose one: those that are told of in a colour.
void layer_strip(App& app, uint32_t chosen) {
    const uint32_t layers = app.store.shape().n_layers;
    const std::vector<uint32_t>& known = app.store.watched();
    const bool live = app.source.control() != nullptr;
    const float room = ImGui::GetContentRegionAvail().x - ImGui::CalcTextSize("layer ").x;
    const float gap = 2 * app.theme.scale,
                width = std::clamp(room / float(layers) - gap, 5 * app.theme.scale, 26 * app.theme.scale);
    ui::text(app.theme.dim, "layer");
    ImGui::SameLine();
    const ImVec2 from = ImGui::GetCursorScreenPos();
    const float height = ImGui::GetFontSize() * 1.3f;
    for (uint32_t layer = 0; layer < layers; ++layer) {
        const bool told = std::binary_search(known.begin(), known.end(), layer);
        const ImVec2 at = from + ImVec2{float(layer) * (width + gap), 0}, end = at + ImVec2{width, height};
        ImGui::SetCursorScreenPos(at);
        ImGui::PushID(static_cast<int>(layer));
        const bool pressed = ImGui::InvisibleButton("layer", {width, height});
        if (ImGui::IsItemHovered())
            ImGui::SetTooltip("layer %u%s", layer,
                              told   ? ""
                              : live ? ": not watched yet; click to read the text once more and watch it"
                                     : ": not recorded");
        ImGui::PopID();
        ImDrawList* list = ImGui::GetWindowDrawList();
        list->AddRectFilled(at, end, told ? ui::heat(0.45f) : app.theme.line, 2);
        if (layer == chosen) ui::rect(list, at, end, app.theme.accent, 2, 2);
        if (const std::string label = fmt::format("{}", layer); ImGui::CalcTextSize(label.c_str()).x < width)
            list->AddText({at.x + (width - ImGui::CalcTextSize(label.c_str()).x) / 2, at.y + 2},
                          told ? ui::on_heat(0.45f) : app.theme.dim, label.c_str());
        if (!pressed) continue;
        if (told)
            app.select_attention(layer, app.selection().head);
        else if (live)
            app.watch(layer);
    }
    ImGui::SetCursorScreenPos({from.x, from.y + height + 4 * app.theme.scale});
    ImGui::Dummy({1, 1});
}

// The tokens whose rows the small maps show: the last MOST_ROWS in sight that tell of this layer.
std::pair<uint32_t, uint32_t> rows_in_sight(const App& app, uint32_t attended) {
    const uint32_t n = app.size() > 0 ? app.size() - 1 : 0; // the last one has not gone through the model
    const uint32_t end = app.follow ? n : std::min(n, std::max(attended + 1, MOST_ROWS));
    return {end > MOST_ROWS ? end - MOST_ROWS : 0, end};
}

// Cell (x, y) of a head's map: what the token in row y pays to the position in column x.
void fill(App& app, const Timeline& t, const App::Attended& a) {
    const auto [first, end] = rows_in_sight(app, a.position);
    if (!app.heads_view.made_of.changes({app.store.revision(), t.session, first, end, a.block})) return;
    app.heads_view.first = first;
    uint32_t heads = 0;
    for (uint32_t i = first; i < end; ++i)
        if (const trace::AttentionRows* rows = Store::attention(t, i, a.block))
            heads = std::max(heads, rows->n_heads);
    auto& maps = app.heads_view.maps;
    maps.resize(heads);
    const uint32_t n = end - first;
    for (auto& map : maps) {
        if (!map) map = std::make_unique<ui::HeatMap>();
        map->resize(n, n);
    }
    for (uint32_t y = 0; y < n; ++y) {
        const trace::AttentionRows* rows = Store::attention(t, first + y, a.block);
        for (uint32_t h = 0; h < heads; ++h)
            for (uint32_t x = 0; x < n; ++x) {
                ui::HeatMap::Cell& cell = maps[h]->at(x, y);
                cell = {0, ui::HeatMap::MISSING};
                if (!rows || h >= rows->n_heads) continue;
                const uint32_t bin = (first + x) / rows->pool;
                const float weight =
                    x <= y ? rows->weights[size_t{h} * rows->bins() + bin] : 0; // nobody sees what follows
                cell = {lightness(weight), 0};
            }
    }
}

void map_tooltip(App& app, const Timeline& t, const App::Attended& a, uint32_t index, uint32_t x,
                 uint32_t y) {
    const uint32_t from = app.heads_view.first + y, to = app.heads_view.first + x;
    const trace::AttentionRows* rows = Store::attention(t, from, a.block);
    ImGui::BeginTooltip();
    tell(app, fmt::format("head {}, layer {}", index + (rows ? rows->first_head : 0), a.block));
    tell(app, app.token_label(from) + " looks at " + app.token_label(to));
    if (!rows || index >= rows->n_heads)
        ui::text(app.theme.warning, "not recorded for this token");
    else if (x > y)
        ui::text(app.theme.dim, "which comes after it: nothing");
    else
        tell(app, rows->pool == 1 ? "weight" : fmt::format("weight of {} positions", rows->pool).c_str(),
             fmt::format("{:.4f}", rows->weights[size_t{index} * rows->bins() + to / rows->pool]),
             app.theme.accent);
    ImGui::EndTooltip();
    app.lit = App::Range{to, to};
}

// The side of the largest squares of which `n` fit, each with a line of text above it.
float tile_side(uint32_t n, ImVec2 room, float line) {
    float best = 0;
    for (uint32_t columns = 1; columns <= n; ++columns) {
        const auto lines = static_cast<float>((n + columns - 1) / columns);
        best = std::max(best, std::min(room.x / float(columns) - 8, room.y / lines - line - 4));
    }
    return std::max(best, 12.0f);
}

void tile(App& app, const Timeline& t, const App::Attended& a, uint32_t index, ImVec2 at, float side) {
    const uint32_t head = index + (a.rows ? a.rows->first_head : 0);
    ui::HeatMap& map = *app.heads_view.maps[index];
    ImDrawList* list = ImGui::GetWindowDrawList();
    const float line = ImGui::GetFontSize();
    const bool chosen = app.selection().head == head;
    if (side > 1.5f * line)
        list->AddText(at, chosen ? app.theme.accent : app.theme.dim, fmt::format("{}", head).c_str());
    const ImVec2 from = at + ImVec2{0, line}, to = from + ImVec2{side, side};
    ImGui::SetCursorScreenPos(from);
    ImGui::PushID(static_cast<int>(index));
    const bool pressed = ImGui::InvisibleButton("head", {side, side});
    ImGui::PopID();
    map.draw(list, from, to);
    if (a.position >= app.heads_view.first && a.position < app.heads_view.first + map.height()) {
        const float cell = side / float(map.height()), y = cell * float(a.position - app.heads_view.first);
        ui::rect(list, from + ImVec2{0, y}, from + ImVec2{side, y + std::max(cell, 2.0f)}, app.theme.text, 1);
    }
    if (chosen) ui::rect(list, from, to, app.theme.accent, 2);
    if (!ImGui::IsItemHovered() || map.width() == 0) return;
    const ImVec2 mouse = ImGui::GetIO().MousePos;
    const auto x = std::min(static_cast<uint32_t>((mouse.x - from.x) / side * float(map.width())),
                            map.width() - 1),
               y = std::min(static_cast<uint32_t>((mouse.y - from.y) / side * float(map.height())),
                            map.height() - 1);
    map_tooltip(app, t, a, index, x, y);
    if (!pressed) return;
    Selection next = app.selection();
    next.token = app.heads_view.first + y, next.block = a.block, next.head = head;
    app.follow = false;
    app.select(next);
}

std::string csv(const App& app, const Timeline& t, uint32_t block) {
    std::string out = "token,layer,head,first,last,weight\n";
    for (uint32_t i = 0; i < app.size(); ++i) {
        const trace::AttentionRows* rows = Store::attention(t, i, block);
        for (size_t k = 0; rows && k < rows->weights.size(); ++k) {
            const auto bin = static_cast<uint32_t>(k % rows->bins());
            out += fmt::format("{},{},{},{},{},{}\n", i, block, rows->first_head + k / rows->bins(),
                               bin * rows->pool, std::min((bin + 1) * rows->pool - 1, i), rows->weights[k]);
        }
    }
    return out;
}

const char* nothing_to_see(const App& app) {
    if (app.source.control())
        return "This layer was not watched when these tokens went through the model. Click it above.";
    return app.store.watched().empty() ? "This recording tells no attention: 'fathom run --watch LAYERS "
                                         "--trace FILE' records it."
                                       : "Not recorded for this layer or token.";
}

} // namespace

void draw_heads(App& app) {
    const App::Attended a = app.attended();
    const Timeline* t = app.timeline();
    begin_panel(app, "What the heads look at", "a row for each token, a column for each one it may look at",
                ImGui::GetContentRegionAvail().y * 0.52f,
                ImGuiWindowFlags_NoScrollbar | ImGuiWindowFlags_NoScrollWithMouse);
    if (app.source.control()) {
        ImGui::SameLine();
        if (ImGui::Checkbox("every position", &app.every_position)) app.watch(a.block);
        if (ImGui::IsItemHovered())
            ImGui::SetTooltip("long texts too: never sums of neighbours (takes more memory)");
    }
    layer_strip(app, a.block);
    if (t && app.size() > 1) fill(app, *t, a);
    if (!t || app.heads_view.maps.empty()) {
        ImGui::TextWrapped("%s", t && app.size() > 1 ? nothing_to_see(app) : "No token yet.");
        return end_panel();
    }
    const auto n = static_cast<uint32_t>(app.heads_view.maps.size());
    const ImVec2 from = ImGui::GetCursorScreenPos(), room = ImGui::GetContentRegionAvail();
    const float line = ImGui::GetFontSize(), side = tile_side(n, room, line);
    const auto columns = std::max(1u, static_cast<uint32_t>(room.x / (side + 8)));
    for (uint32_t h = 0; h < n; ++h)
        tile(app, *t, a, h,
             from + ImVec2{float(h % columns) * (side + 8), float(h / columns) * (side + line + 4)}, side);
    ImGui::SetCursorScreenPos(from);
    ImGui::Dummy(room);
    copy_menu(app, "attention", [&] { return csv(app, *t, a.block); });
    end_panel();
}

namespace {

// The bars of one row; the one under the mouse lights its tokens in the text, and is gone to by a click.
void row_bars(App& app, const trace::AttentionRows& rows, const std::vector<float>& weights,
              uint32_t position) {
    const ImVec2 from = ImGui::GetCursorScreenPos();
    const ImVec2 size{ImGui::GetContentRegionAvail().x,
                      std::max(20.0f, ImGui::GetContentRegionAvail().y - 5.2f * ImGui::GetFontSize())};
    const bool pressed = ImGui::InvisibleButton("row", size);
    ImDrawList* list = ImGui::GetWindowDrawList();
    list->AddRectFilled(from, from + size, app.theme.line, 3);
    const float most = std::max(1e-6f, *std::max_element(weights.begin(), weights.end()));
    const float width = size.x / static_cast<float>(weights.size());
    for (size_t i = 0; i < weights.size(); ++i) {
        const float high = std::max(1.0f, (size.y - 4) * weights[i] / most), x = width * float(i);
        list->AddRectFilled(from + ImVec2{x, size.y - high},
                            from + ImVec2{x + std::max(1.0f, width - 1), size.y},
                            ui::heat(std::sqrt(weights[i])));
    }
    if (!ImGui::IsItemHovered()) return;
    const auto bin = std::min(static_cast<uint32_t>((ImGui::GetIO().MousePos.x - from.x) / width),
                              static_cast<uint32_t>(weights.size()) - 1);
    const uint32_t first = bin * rows.pool, last = std::min(first + rows.pool - 1, position);
    app.lit = App::Range{first, last};
    ImGui::BeginTooltip();
    tell(app, app.token_label(first) + (last > first ? " to " + app.token_label(last) : ""));
    tell(app, "gets", fmt::format("{:.4f}", weights[bin]), app.theme.accent);
    ImGui::EndTooltip();
    if (pressed) app.select_token(first);
}

} // namespace

void draw_attention_row(App& app) {
    const App::Attended a = app.attended();
    begin_panel(app, "One row of it", "", ImGui::GetContentRegionAvail().y * 0.56f,
                ImGuiWindowFlags_NoScrollbar);
    if (!a.rows) {
        ImGui::SameLine();
        ui::text(app.theme.dim, "Choose a token that went through the model while its layer was watched.");
        return end_panel();
    }
    ImGui::SameLine();
    ui::text(app.theme.dim,
             fmt::format("{} of layer {} for {}",
                         a.head ? fmt::format("head {}", *app.selection().head) : "the mean of all heads",
                         a.block, app.token_label(a.position))
                 .c_str());
    if (app.selection().head) {
        ImGui::SameLine();
        if (ImGui::SmallButton("all heads")) app.select_attention(a.block, std::nullopt);
    }
    const std::vector<float> weights = attention_of(*a.rows, a.head);
    row_bars(app, *a.rows, weights, a.position);
    const trace::AttentionRows alone{a.block, 0, 1, a.rows->pool, weights};
    const Focus f = focus(alone, 0, a.position);
    double sum = 0;
    for (const float w : weights) sum += w;
    const uint32_t first = f.most * a.rows->pool;
    fact(app, "most to",
         fmt::format("{}{}: {:.3f}", app.token_label(first), a.rows->pool > 1 ? " and on" : "",
                     weights[f.most]));
    fact(app, a.rows->pool > 1 ? "to the first positions" : "to the first token",
         fmt::format("{:.1f} %", 100 * f.sink));
    ImGui::SameLine(0, 14 * app.theme.scale);
    fact(app, fmt::format("to the last {}", Focus::LOCAL).c_str(), fmt::format("{:.1f} %", 100 * f.local));
    fact(app, "as if it looked at",
         fmt::format("{:.1f} of {} {} alike", std::exp2(f.entropy), weights.size(),
                     a.rows->pool > 1 ? "groups" : "tokens"));
    ImGui::SameLine(0, 14 * app.theme.scale);
    fact(app, "sum", fmt::format("{:.4f}", sum));
    end_panel();
}

void draw_head_atlas(App& app) {
    const App::Attended a = app.attended();
    const Timeline* t = app.timeline();
    begin_panel(app, "What kind of head each is", "mean over the tokens in sight", 0);
    const auto [first, end] = rows_in_sight(app, a.position);
    std::vector<Focus> heads;
    uint32_t tokens = 0, first_head = 0;
    for (uint32_t i = std::max(first, Focus::LOCAL + 1); t && i < end;
         ++i) { // earlier ones have only near ones
        const trace::AttentionRows* rows = Store::attention(*t, i, a.block);
        if (!rows) continue;
        heads.resize(std::max<size_t>(heads.size(), rows->n_heads));
        first_head = rows->first_head;
        ++tokens;
        for (uint32_t h = 0; h < rows->n_heads; ++h) {
            const Focus f = focus(*rows, h, i);
            heads[h].sink += f.sink, heads[h].local += f.local, heads[h].entropy += f.entropy;
        }
    }
    if (tokens == 0) {
        ui::text(app.theme.dim, "Needs more than a few watched tokens.");
        return end_panel();
    }
    const ImU32 sink = ui::PIN_COLOURS[0], local = ui::PIN_COLOURS[1];
    ImGui::SameLine();
    ui::text(sink, "to the first token");
    ImGui::SameLine();
    ui::text(local, fmt::format("to the last {}", Focus::LOCAL).c_str());
    ImGui::SameLine();
    ui::text(app.theme.dim, "elsewhere");
    const float width = ImGui::GetContentRegionAvail().x - 190 * app.theme.scale;
    for (size_t h = 0; h < heads.size(); ++h) {
        const double s = heads[h].sink / tokens, l = std::min(heads[h].local / tokens, 1 - s);
        const uint32_t head = first_head + static_cast<uint32_t>(h);
        if (ImGui::Selectable(fmt::format("head {}##atlas", head).c_str(), app.selection().head == head, 0,
                              {60 * app.theme.scale, 0}))
            app.select_attention(a.block, head);
        ImGui::SameLine(70 * app.theme.scale);
        const ImVec2 at = ImGui::GetCursorScreenPos();
        const float high = ImGui::GetFontSize(), one = width * float(s), two = one + width * float(l);
        ImDrawList* list = ImGui::GetWindowDrawList();
        list->AddRectFilled(at + ImVec2{0, 2}, at + ImVec2{width, high}, app.theme.line, 2);
        list->AddRectFilled(at + ImVec2{0, 2}, at + ImVec2{one, high}, sink, 2);
        list->AddRectFilled(at + ImVec2{one, 2}, at + ImVec2{two, high}, local, 2);
        ImGui::Dummy({width, high});
        ImGui::SameLine();
        ui::text(app.theme.dim, fmt::format("{:.1f} bits", heads[h].entropy / tokens).c_str());
    }
    end_panel();
}

} // namespace fathom::viewer
