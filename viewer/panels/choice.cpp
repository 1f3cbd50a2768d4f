// The router at one token and layer: what it chose and how nearly it chose otherwise.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>

namespace fathom::viewer {

using ui::operator+;

namespace {

void bars(App& app, const trace::TokenRecord& r, uint32_t layer) {
    const trace::Shape& s = app.store.shape();
    const auto experts = std::span(r.experts).subspan(size_t{layer} * s.n_active, s.n_active);
    const auto weights = std::span(r.weights).subspan(size_t{layer} * s.n_active, s.n_active);
    const float largest = std::max(1e-9f, *std::max_element(weights.begin(), weights.end()));
    const float room = ImGui::GetContentRegionAvail().x * 0.36f;
    for (uint32_t k = 0; k < s.n_active; ++k) {
        const auto pin = app.pin_of(layer, experts[k]);
        const ImVec2 at = ImGui::GetCursorScreenPos();
        ImGui::GetWindowDrawList()->AddRectFilled(
            at + ImVec2{0, 3}, at + ImVec2{room * weights[k] / largest, ImGui::GetFontSize()},
            pin ? ui::PIN_COLOURS[*pin] : ui::heat(weights[k] / largest), 2);
        ImGui::Dummy({room, ImGui::GetFontSize()});
        ImGui::SameLine();
        const bool selected = app.selection().expert == experts[k] && app.selection().layer == layer;
        const std::string label = fmt::format("expert {}   {:.4f}{}##{}", experts[k], weights[k],
                                              r.swapped[layer] >> k & 1 ? "   by bias" : "", k);
        if (ImGui::Selectable(label.c_str(), selected))
            app.select_expert(app.selection().token, layer, experts[k]);
    }
}

const trace::RouterScores* scores_of(const trace::TokenRecord& r, uint32_t layer) {
    const auto it = std::find_if(r.scores.begin(), r.scores.end(),
                                 [&](const trace::RouterScores& s) { return s.layer == layer; });
    return it == r.scores.end() ? nullptr : &*it;
}

bool is_chosen(const trace::TokenRecord& r, const trace::Shape& s, uint32_t layer, uint32_t expert) {
    const auto chosen = std::span(r.experts).subspan(size_t{layer} * s.n_active, s.n_active);
    return std::find(chosen.begin(), chosen.end(), expert) != chosen.end();
}

void score_tooltip(App& app, const trace::TokenRecord& r, const trace::RouterScores& told, uint32_t layer,
                   uint32_t expert) {
    const trace::Shape& s = app.store.shape();
    ImGui::BeginTooltip();
    tell(app, fmt::format("expert {}", expert));
    tell(app, "score", fmt::format("{:.4f}", told.scores[expert]));
    tell(app, "bias", fmt::format("{:+.4f}", told.keys[expert] - told.scores[expert]));
    tell(app, "key", fmt::format("{:.4f}", told.keys[expert]), app.theme.accent);
    const uint32_t size = std::max(1u, s.n_experts / std::max(1u, s.n_groups)), group = expert / size;
    if (s.n_groups > 1 && group < 32 && !(r.groups[layer] >> group & 1))
        ui::text(app.theme.dim, "its group was not kept");
    else
        ui::text(app.theme.dim, is_chosen(r, s, layer, expert) ? "chosen" : "not chosen");
    ImGui::EndTooltip();
}

// Every expert's score as a bar and its key as a line across: where they differ, a bias moved it. Groups that
// were not kept are pale; the line from side to side is the lowest key that was chosen.
void draw_scores(App& app, const trace::TokenRecord& r, const trace::RouterScores& told, uint32_t layer) {
    const trace::Shape& s = app.store.shape();
    const ImVec2 from = ImGui::GetCursorScreenPos();
    const ImVec2 size{ImGui::GetContentRegionAvail().x, 84 * app.theme.scale};
    const bool pressed = ImGui::InvisibleButton("scores", size);
    float low = 0, high = 1e-6f, last = std::numeric_limits<float>::max();
    for (uint32_t e = 0; e < s.n_experts; ++e) {
        const float key = told.keys[e];
        if (!(std::abs(key) < 1e6f)) continue; // steered out of, or into, every choice
        low = std::min({low, key, told.scores[e]}), high = std::max({high, key, told.scores[e]});
        if (is_chosen(r, s, layer, e)) last = std::min(last, key);
    }
    ImDrawList* list = ImGui::GetWindowDrawList();
    list->AddRectFilled(from, from + size, app.theme.line, 3);
    const float width = size.x / float(s.n_experts);
    const auto y = [&](float value) {
        return size.y - 2 - (std::clamp(value, low, high) - low) / (high - low) * (size.y - 4);
    };
    const uint32_t group_size = std::max(1u, s.n_experts / std::max(1u, s.n_groups));
    for (uint32_t e = 0; e < s.n_experts; ++e) {
        const uint32_t group = e / group_size;
        const bool kept = s.n_groups <= 1 || group >= 32 || (r.groups[layer] >> group & 1);
        const float x = width * float(e), right = x + std::max(1.0f, width - 1);
        list->AddRectFilled(from + ImVec2{x, y(told.scores[e])}, from + ImVec2{right, y(0)},
                            is_chosen(r, s, layer, e) ? app.theme.accent
                            : kept                    ? app.theme.faint
                                                      : app.theme.missing);
        list->AddLine(from + ImVec2{x, y(told.keys[e])}, from + ImVec2{right, y(told.keys[e])},
                      kept ? app.theme.text : app.theme.dim, 1.5f);
        if (e != 0 && e % group_size == 0 && s.n_groups > 1)
            list->AddLine(from + ImVec2{x, 0}, from + ImVec2{x, size.y}, app.theme.panel, 2);
    }
    if (last < 1e6f)
        list->AddLine(from + ImVec2{0, y(last)}, from + ImVec2{size.x, y(last)}, app.theme.warning, 1);
    if (!ImGui::IsItemHovered()) return;
    const auto expert =
        std::min(static_cast<uint32_t>((ImGui::GetIO().MousePos.x - from.x) / width), s.n_experts - 1);
    score_tooltip(app, r, told, layer, expert);
    if (!pressed) return;
    Selection next = app.selection();
    next.layer = layer, next.expert = expert;
    app.select(next);
}

std::string groups_text(const trace::Shape& s, uint32_t bits) {
    std::string out;
    for (uint32_t g = 0; g < std::min(s.n_groups, 32u); ++g)
        if (bits >> g & 1) out += fmt::format("{}{}", out.empty() ? "" : ", ", g);
    return fmt::format("{} of {} groups", out, s.n_groups);
}

} // namespace

void draw_choice(App& app) {
    const trace::Shape& s = app.store.shape();
    const float share = app.preset == Preset::route ? 0.5f : 0.62f;
    const float width = app.preset == Preset::route ? ImGui::GetContentRegionAvail().x * 0.5f : 0;
    ui::child("choice", {width, app.preset == Preset::route ? 0 : ImGui::GetContentRegionAvail().y * share},
              true);
    const Timeline* t = app.timeline();
    const auto& chosen = app.selection();
    const uint32_t position = chosen.token.value_or(app.size() >= 2 ? app.size() - 2 : 0);
    const uint32_t layer = chosen.layer.value_or(0);
    const trace::TokenRecord* r = t ? t->record(position) : nullptr;
    ui::text(app.theme.text, "The router's choice");
    if (!r || r->experts.empty() || layer >= s.moe_layers.size()) {
        ui::text(app.theme.dim, r || position + 1 != app.size()
                                    ? "Not recorded."
                                    : "This token has not gone through the model yet.");
        ImGui::EndChild();
        return;
    }
    ImGui::SameLine();
    ui::text(app.theme.dim,
             fmt::format("for {} in layer {}", app.token_label(position), s.moe_layers[layer]).c_str());
    if (const trace::RouterScores* told = scores_of(*r, s.moe_layers[layer])) {
        draw_scores(app, *r, *told, layer);
    } else if (app.source.control()) {
        ImGui::SameLine();
        if (ImGui::SmallButton("all scores")) app.watch(s.moe_layers[layer]);
    }
    bars(app, *r, layer);
    const float margin = r->margin[layer];
    fact(app, "margin to the best one left out",
         std::isinf(margin) ? "none was left out"
                            : fmt::format("{:.4g}{}", margin, margin < 1e-3f ? ", nearly a tie" : ""),
         margin < 1e-3f ? app.theme.warning : 0);
    fact(app, "entropy of all scores",
         fmt::format("{:.2f} of {:.2f} nats", r->entropy[layer], std::log(double(s.n_experts))));
    if (s.n_groups > 1) fact(app, "allowed", groups_text(s, r->groups[layer]));
    const uint32_t in_model = s.moe_layers[layer];
    fact(app, "residual stream, RMS",
         fmt::format("{:.3g} before, {:.3g} after", r->norms[in_model], r->norms[in_model + 1]));
    ImGui::EndChild();
}

} // namespace fathom::viewer
