// What one expert sees: the tokens that chose it, in context, and the experts chosen with it. Not what it
// knows: routing follows token types and positions more than topics.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom::viewer {

namespace {

// What the model may do with the expert, from the next token on.
void steering(App& app, Pin expert) {
    const Steered* now = app.steering_of(expert);
    Steered wanted = now ? *now : Steered{.expert = expert};
    const auto button = [&](const char* name, float key) {
        const bool on = wanted.key == key;
        ImGui::SameLine();
        if (on) ImGui::PushStyleColor(ImGuiCol_Button, ImGui::GetStyle().Colors[ImGuiCol_ButtonActive]);
        if (ImGui::SmallButton(name)) app.steer({expert, on ? 0 : key, wanted.factor});
        if (on) ImGui::PopStyleColor();
    };
    button("silence", Steered::SILENT);
    button("force", Steered::FORCED);
    ImGui::SameLine();
    ImGui::SetNextItemWidth(110 * app.theme.scale);
    if (ImGui::SliderFloat("##factor", &wanted.factor, 0, 3, "weight x %.2f")) app.steer(wanted);
    if (!now) return;
    ImGui::SameLine();
    if (ImGui::SmallButton("as it is")) app.free(expert);
}

// What kinds of tokens chose it, beside their share of all: kinds that it sees more of than others come
// first.
void classes(App& app, const Timeline& t, const std::vector<Use>& uses) {
    std::array<double, CLASS_NAMES.size()> here{}, everywhere{};
    for (uint32_t i = 0; i < app.size(); ++i)
        if (const Token token = t.token(i); token != trace::NO_TOKEN)
            ++everywhere[size_t(app.glyphs(token).kind)];
    for (const Use& use : uses) ++here[size_t(app.glyphs(t.token(use.position)).kind)];
    std::vector<size_t> order;
    for (size_t c = 0; c < here.size(); ++c)
        if (here[c] > 0) order.push_back(c);
    const double tokens = std::max(1u, app.size()), used = std::max<size_t>(1, uses.size());
    const auto lift = [&](size_t c) { return here[c] / used - everywhere[c] / tokens; };
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lift(a) > lift(b); });
    std::string text;
    for (size_t i = 0; i < std::min<size_t>(order.size(), 2); ++i)
        text += fmt::format("{}{} {:.0f} % (of all {:.0f} %)", i == 0 ? "" : ", ", CLASS_NAMES[order[i]],
                            100 * here[order[i]] / used, 100 * everywhere[order[i]] / tokens);
    if (!text.empty()) fact(app, "its tokens:", text);
}

} // namespace

void draw_expert(App& app) {
    ImGui::SameLine();
    ui::child("expert", {0, 0}, true);
    const auto& chosen = app.selection();
    const Timeline* t = app.timeline();
    if (!t || !chosen.layer || !chosen.expert) {
        ui::text(app.theme.text, "What an expert sees");
        ui::text(app.theme.dim, "Click a cell of a map to choose one.");
        ImGui::EndChild();
        return;
    }
    const uint32_t layer = *chosen.layer, expert = *chosen.expert;
    ui::text(
        app.theme.text,
        fmt::format("What expert {} of layer {} sees", expert, app.store.shape().moe_layers[layer]).c_str());
    const auto pin = app.pin_of(layer, expert);
    ImGui::SameLine();
    if (pin) ImGui::PushStyleColor(ImGuiCol_Button, ImGui::ColorConvertU32ToFloat4(ui::PIN_COLOURS[*pin]));
    if (ImGui::SmallButton(pin ? "unpin" : "pin a colour")) app.toggle_pin({layer, expert});
    if (pin) ImGui::PopStyleColor();
    if (app.source.control()) steering(app, {layer, expert});
    const std::vector<Use> uses = app.store.uses(*t, layer, expert);
    std::string partners;
    for (const auto& [other, times] : app.store.partners(*t, layer, expert, 5))
        partners += fmt::format("{}{} ({})", partners.empty() ? "" : ", ", other, times);
    fact(app, "chosen by", fmt::format("{} tokens", uses.size()));
    if (!partners.empty()) fact(app, "most often with", partners);
    classes(app, *t, uses);
    ui::child("uses", {0, 0}, false);
    for (size_t i = 0; i < std::min<size_t>(uses.size(), 200); ++i) {
        const uint32_t at = uses[i].position;
        std::string before, after;
        for (uint32_t k = at > 4 ? at - 4 : 0; k < at; ++k) before += app.glyphs(t->token(k)).text;
        for (uint32_t k = at + 1; k < std::min(at + 3, app.size()); ++k)
            after += app.glyphs(t->token(k)).text;
        if (ImGui::Selectable(fmt::format("{:.3f}##{}", uses[i].weight, i).c_str(),
                              app.selection().token == at, 0, {0, 0}))
            app.select_expert(at, layer, expert);
        ImGui::SameLine(56 * app.theme.scale);
        ui::text(app.theme.dim, before.c_str());
        ImGui::SameLine(0, 0);
        ui::text(app.theme.accent, app.glyphs(t->token(at)).text.c_str());
        ImGui::SameLine(0, 0);
        ui::text(app.theme.dim, after.c_str());
    }
    ImGui::EndChild();
    ImGui::EndChild();
}

} // namespace fathom::viewer
