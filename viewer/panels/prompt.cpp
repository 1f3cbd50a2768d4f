// Where a person writes, and how the model is to choose.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <imgui_stdlib.h>

namespace fathom::viewer {

namespace {

void buttons_to_go_on(App& app, float width) {
    const bool rests = !app.source.control()->busy();
    const Timeline* t = app.timeline();
    if (ImGui::Button("Again", {width, 0}) && rests && t) {
        uint32_t written = 0; // by the model
        while (written < t->size() && !t->generated(written)) ++written;
        ++app.sampling.seed;
        app.generate("", written);
    }
    if (ImGui::IsItemHovered()) ImGui::SetTooltip("another answer to the same beginning");
    if (app.prompt_outside) ImGui::SameLine();
    if (ImGui::Button("Go on", {width, 0}) && rests && app.timeline())
        app.generate(app.prompt, app.timeline()->size());
}

void field(App& app) {
    Control& control = *app.source.control();
    const float button = 96 * app.theme.scale;
    const bool entered = ImGui::InputTextMultiline("##prompt", &app.prompt,
                                                   {-button - 8 * app.theme.scale, 70 * app.theme.scale},
                                                   ImGuiInputTextFlags_EnterReturnsTrue);
    ImGui::SameLine();
    ImGui::BeginGroup();
    if (control.busy()) {
        if (ImGui::Button("Stop", {button, 0})) control.stop();
    } else if (ImGui::Button("Begin", {button, 0}) || entered) {
        app.generate(app.prompt);
    }
    buttons_to_go_on(app, button);
    ImGui::EndGroup();
}

} // namespace

void draw_prompt(App& app) {
    begin_panel(app, "Write", app.prompt_outside ? "" : "Ctrl+Enter begins", 0, ImGuiWindowFlags_NoScrollbar);
    ImGui::SameLine();
    ImGui::Checkbox("chat", &app.chat);
    if (ImGui::IsItemHovered())
        ImGui::SetTooltip("what is written is a message, in the model's own chat format");
    if (app.prompt_outside) {
        ImGui::SameLine();
        buttons_to_go_on(app, 0);
    } else {
        field(app);
    }
    const float width = 92 * app.theme.scale;
    ImGui::SetNextItemWidth(width);
    ImGui::SliderFloat("temperature", &app.sampling.temperature, 0, 2, "%.2f");
    ImGui::SameLine();
    ImGui::SetNextItemWidth(width);
    ImGui::SliderFloat("top p", &app.sampling.top_p, 0.05f, 1, "%.2f");
    ImGui::SameLine();
    ImGui::SetNextItemWidth(width);
    int tokens = static_cast<int>(app.sampling.max_tokens);
    if (ImGui::SliderInt("tokens", &tokens, 1, 1000)) app.sampling.max_tokens = static_cast<uint32_t>(tokens);
    if (const std::string failure = app.source.control()->failure(); !failure.empty())
        ui::text(app.theme.warning, failure.c_str());
    end_panel();
}

} // namespace fathom::viewer
