// What the latent cache saves: bytes now and for each token, beside plain attention over as many tokens.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom::viewer {

using ui::operator+;

namespace {

// The newest record of the session shown.
const trace::TokenRecord* newest(const App& app) {
    const Timeline* t = app.timeline();
    for (uint32_t i = app.size(); t && i-- > 0;)
        if (const trace::TokenRecord* record = t->record(i)) return record;
    return nullptr;
}

} // namespace

void draw_cache(App& app) {
    begin_panel(app, "The latent cache", "what MLA saves, with 2-byte numbers",
                app.preset == Preset::memory ? 230 * app.theme.scale : 0);
    if (!app.store.model_says("latent")) {
        ui::text(app.theme.dim, "This model has plain attention: every head keeps its keys and values.");
        return end_panel();
    }
    const auto number = [&](const char* key) { return app.store.model_number(key); };
    const double layers = app.store.shape().n_layers, heads = number("n_heads"),
                 key = number("qk_nope_head_dim") + number("qk_rope_head_dim"), value = number("v_head_dim"),
                 latent = number("cache_floats"), tokens = app.size();
    struct Row {
        const char* name;
        double floats;
    };
    const Row rows[] = {{"this model (MLA)", latent},
                        {"one key and value for all heads (MQA)", key + value},
                        {"for each eight heads (GQA)", std::max(1.0, heads / 8) * (key + value)},
                        {"for each head (MHA)", heads * (key + value)}};
    const double most = std::max_element(std::begin(rows), std::end(rows), [](const Row& a, const Row& b) {
                            return a.floats < b.floats;
                        })->floats;
    const float bar = ImGui::GetContentRegionAvail().x * 0.35f;
    for (const Row& row : rows) {
        const double a_token = 2 * row.floats * layers;
        const ImVec2 at = ImGui::GetCursorScreenPos();
        const float width = std::max(2.0f, bar * static_cast<float>(row.floats / most));
        ImGui::GetWindowDrawList()->AddRectFilled(at + ImVec2{0, 3}, at + ImVec2{width, ImGui::GetFontSize()},
                                                  &row == rows ? app.theme.accent : app.theme.faint, 2);
        ImGui::Dummy({bar, ImGui::GetFontSize()});
        ImGui::SameLine();
        ui::text(app.theme.text, fmt::format("{}: {} a token, {} now", row.name, bytes_text(a_token),
                                             bytes_text(a_token * tokens))
                                     .c_str());
    }
    if (const trace::TokenRecord* last = newest(app)) {
        fact(app, "held on the device now", bytes_text(double(last->cache_bytes)));
        if (last->shared_bytes != 0) {
            ImGui::SameLine(0, 14 * app.theme.scale);
            fact(app, "of that shared by branches", bytes_text(double(last->shared_bytes)));
        }
    }
    const double context = number("context");
    fact(app, "tokens", fmt::format("{} of {}", app.size(), context));
    ImGui::SameLine(0, 14 * app.theme.scale);
    fact(app, "room for", fmt::format("{:.0f} more", std::max(0.0, context - app.size())));
    ImGui::SameLine(0, 14 * app.theme.scale);
    fact(app, "smaller than MHA by", fmt::format("{:.1f} times", rows[3].floats / std::max(1.0, latent)));
    end_panel();
}

} // namespace fathom::viewer
