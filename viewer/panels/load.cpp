// How even the experts' load is: a row for each MoE layer, a cell for each expert, its load relative to an
// even share. Beside each figure stands what pure chance would give for as many tokens.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace fathom::viewer {

using ui::operator+;

namespace {

constexpr float LIGHTEST = 3; // times an even share

void fill(App& app, const Timeline& t) {
    const trace::Shape& s = app.store.shape();
    const uint32_t end = app.size(), begin = app.window && app.window < end ? end - app.window : 0;
    std::vector<uint64_t> basis{app.store.revision(), t.session, begin, end};
    app.basis_of_pins(basis);
    if (!app.load_view.made_of.changes(std::move(basis))) return;
    app.load_view.counts = app.store.load(t, begin, end);
    app.load_view.tokens = 0;
    for (uint32_t i = begin; i < end; ++i) {
        const trace::TokenRecord* r = t.record(i);
        app.load_view.tokens += r && !r->experts.empty();
    }
    const auto layers = static_cast<uint32_t>(s.moe_layers.size());
    app.loads.resize(s.n_experts, layers);
    const float even = float(app.load_view.tokens) * float(s.n_active) / float(s.n_experts);
    for (uint32_t l = 0; l < layers; ++l)
        for (uint32_t e = 0; e < s.n_experts; ++e) {
            const float share =
                even > 0 ? float(app.load_view.counts[size_t{l} * s.n_experts + e]) / even / LIGHTEST : 0;
            const auto pin = app.pin_of(l, e);
            app.loads.at(e, l) = {static_cast<uint8_t>(std::lround(std::min(1.0f, share) * 255)),
                                  static_cast<uint8_t>(pin ? *pin + 1 : 0)};
        }
}

std::span<const uint32_t> layer_of(const App& app, uint32_t layer) {
    const size_t experts = app.store.shape().n_experts;
    return std::span(app.load_view.counts).subspan(layer * experts, experts);
}

void tooltip(App& app, uint32_t layer, uint32_t expert) {
    const trace::Shape& s = app.store.shape();
    const uint32_t count = layer_of(app, layer)[expert];
    const double even = double(app.load_view.tokens) * s.n_active / s.n_experts;
    ImGui::BeginTooltip();
    tell(app, fmt::format("layer {}, expert {}", s.moe_layers[layer], expert));
    tell(app, "chosen by", fmt::format("{} of {} tokens", count, app.load_view.tokens));
    tell(app, "against an even share", fmt::format("{:.2f}", even > 0 ? count / even : 0));
    ImGui::EndTooltip();
}

void figures(App& app, uint32_t layer) {
    const Balance b = app.store.balance(layer_of(app, layer), app.load_view.tokens);
    const auto gap = [&] { ImGui::SameLine(0, 14 * app.theme.scale); };
    fact(app, fmt::format("layer {}: CV", app.store.shape().moe_layers[layer]).c_str(),
         fmt::format("{:.2f} (by chance {:.2f})", b.cv, b.chance_cv));
    gap();
    fact(app, "busiest", fmt::format("+{:.0f} %", 100 * b.max_violation));
    gap();
    fact(app, "entropy", fmt::format("{:.0f} %", 100 * b.entropy));
    gap();
    fact(app, "effective", fmt::format("{:.1f}", b.effective));
    gap();
    fact(app, "idle", fmt::format("{:.0f} % ({:.0f} %)", 100 * b.idle, 100 * b.chance_idle));
}

std::string csv(const App& app) {
    const trace::Shape& s = app.store.shape();
    std::string out = "layer,expert,chosen,tokens\n";
    for (size_t i = 0; i < app.load_view.counts.size(); ++i)
        out += fmt::format("{},{},{},{}\n", s.moe_layers[i / s.n_experts], i % s.n_experts,
                           app.load_view.counts[i], app.load_view.tokens);
    return out;
}

} // namespace

void draw_load(App& app) {
    const trace::Shape& s = app.store.shape();
    begin_panel(app, "How even the load is", "lightest: three times an even share",
                ImGui::GetContentRegionAvail().y * 0.46f, ImGuiWindowFlags_NoScrollbar);
    ImGui::SameLine();
    ImGui::SetNextItemWidth(150 * app.theme.scale);
    const char* windows[] = {"all tokens", "last 512", "last 64", "last 16"};
    const uint32_t sizes[] = {0, 512, 64, 16};
    int window = static_cast<int>(std::find(sizes, sizes + 4, app.window) - sizes) % 4;
    if (ImGui::Combo("##window", &window, windows, 4)) app.window = sizes[window];
    const Timeline* t = app.timeline();
    if (!t || app.size() == 0 || s.moe_layers.empty()) {
        ui::text(app.theme.dim, "No token yet.");
        return end_panel();
    }
    fill(app, *t);
    const float labels = ImGui::CalcTextSize("000").x + 6;
    const ImVec2 corner = ImGui::GetCursorScreenPos(), from = corner + ImVec2{labels, 0};
    const ImVec2 size{ImGui::GetContentRegionAvail().x - labels,
                      ImGui::GetContentRegionAvail().y - 1.5f * ImGui::GetFontSize()};
    if (size.x < 10 || size.y < 10) return end_panel();
    layer_labels(app, corner, size.y);
    ImDrawList* list = ImGui::GetWindowDrawList();
    const float row = size.y / static_cast<float>(s.moe_layers.size()), cell = size.x / float(s.n_experts);
    ImGui::SetCursorScreenPos(from);
    ImGui::InvisibleButton("load", size);
    copy_menu(app, "load", [&] { return csv(app); });
    app.loads.draw(list, from, from + size);
    uint32_t layer = app.selection().layer.value_or(0);
    if (ImGui::IsItemHovered()) {
        const ImVec2 mouse = ImGui::GetIO().MousePos;
        const auto expert = std::min(static_cast<uint32_t>((mouse.x - from.x) / cell), s.n_experts - 1);
        layer = std::min(static_cast<uint32_t>((mouse.y - from.y) / row),
                         static_cast<uint32_t>(s.moe_layers.size()) - 1);
        tooltip(app, layer, expert);
        if (ImGui::IsMouseClicked(0)) app.select_expert(app.selection().token, layer, expert);
    }
    if (const auto& chosen = app.selection(); chosen.layer && chosen.expert) {
        const ImVec2 at = from + ImVec2{cell * float(*chosen.expert), row * float(*chosen.layer)};
        ui::rect(list, at, at + ImVec2{cell, row}, app.theme.accent, 2);
    }
    figures(app, layer);
    end_panel();
}

} // namespace fathom::viewer
