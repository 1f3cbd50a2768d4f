// The router at one token and layer: what it chose and how nearly it chose otherwise.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

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
            app.select({app.selection().token, layer, experts[k]});
    }
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
