#include "viewer/panels/figures.h"

#include "viewer/ui/compat.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace fathom::viewer {

using ui::operator+;

Subject subject_of(App& app) {
    Subject s;
    s.timeline = app.timeline();
    s.store = &app.store;
    if (!s.timeline || app.size() == 0) return s;
    s.position = app.selection().token.value_or(app.size() >= 2 ? app.size() - 2 : 0);
    s.layer = app.selection().layer.value_or(0);
    s.record = s.timeline->record(s.position);
    return s;
}

void draw_norms(App& app) {
    const Subject s = subject_of(app);
    begin_panel(app, "The residual stream's length", "before each layer, and after the last",
                220 * app.theme.scale);
    const auto& norms = s.record->norms;
    float most = 1e-9f;
    for (const float norm : norms)
        if (!std::isnan(norm)) most = std::max(most, norm);
    const ImVec2 from = ImGui::GetCursorScreenPos(), room = ImGui::GetContentRegionAvail();
    const float width = room.x / float(std::max<size_t>(norms.size(), 1)), line = ImGui::GetFontSize();
    for (size_t i = 0; i < norms.size(); ++i) {
        if (std::isnan(norms[i])) continue; // not computed for a token of a prompt
        const float high = (room.y - 2 * line) * norms[i] / most, x = width * float(i);
        ImGui::GetWindowDrawList()->AddRectFilled(from + ImVec2{x + 1, room.y - line - high},
                                                  from + ImVec2{x + width - 2, room.y - line},
                                                  ui::heat(norms[i] / most), 2);
        if (width > 3 * line)
            ImGui::GetWindowDrawList()->AddText(from + ImVec2{x + 2, room.y - line}, app.theme.dim,
                                                fmt::format("{:.3g}", norms[i]).c_str());
    }
    end_panel();
}

void draw_tokens(App& app) {
    const Subject s = subject_of(app);
    begin_panel(app, "Tokens and their numbers", "around the one we follow", 0);
    const uint32_t first = s.position > 12 ? s.position - 12 : 0;
    for (uint32_t i = first; i < std::min(app.size(), first + 26); ++i) {
        const Token token = s.timeline->token(i);
        const bool ours = i == s.position;
        if (ImGui::Selectable(fmt::format("{:>6}##{}", token, i).c_str(), ours)) app.select_token(i);
        ImGui::SameLine(90 * app.theme.scale);
        ui::text(ours ? app.theme.accent : app.theme.text, app.glyphs(token).text.c_str());
        ImGui::SameLine(320 * app.theme.scale);
        ui::text(app.theme.dim, s.timeline->generated(i) ? "written by the model" : "given");
    }
    end_panel();
}

void draw_rope(App& app) {
    const Subject s = subject_of(app);
    begin_panel(app, "Each pair's angle",
                "of the token we follow, and of another; the wedge is their distance", 0);
    const std::vector<double> rope = app.store.model_numbers("rope");
    if (rope.empty()) return end_panel();
    const uint32_t other = app.hovered.value_or(s.position > 0 ? s.position - 1 : 0);
    fact(app, "we follow", app.token_label(s.position), app.theme.accent);
    ImGui::SameLine(0, 14 * app.theme.scale);
    fact(app, "the other", app.token_label(other), app.theme.warning);
    ImGui::SameLine(0, 14 * app.theme.scale);
    fact(app, "distance", fmt::format("{}", int64_t{s.position} - int64_t{other}));
    const size_t shown = std::min<size_t>(rope.size(), 16); // of many, evenly
    const ImVec2 from = ImGui::GetCursorScreenPos(), room = ImGui::GetContentRegionAvail();
    const float line = ImGui::GetFontSize();
    size_t columns = 1;
    float cell = 0;
    for (size_t c = 1; c <= shown; ++c) {
        const float side = std::min(room.x / float(c), room.y / float((shown + c - 1) / c) - line - 6);
        if (side > cell) cell = side, columns = c;
    }
    ImDrawList* list = ImGui::GetWindowDrawList();
    for (size_t i = 0; i < shown; ++i) {
        const size_t pair = i * rope.size() / shown;
        const float radius = cell / 2 - 6;
        const ImVec2 centre = from + ImVec2{cell * (float(i % columns) + 0.5f),
                                            (cell + line + 6) * float(i / columns) + cell / 2};
        const double ours = double(s.position) * rope[pair], theirs = double(other) * rope[pair];
        const auto tip = [&](double angle) {
            return centre + ImVec2{radius * float(std::cos(angle)), -radius * float(std::sin(angle))};
        };
        list->AddCircle(centre, radius, app.theme.faint, 48);
        const double between = std::remainder(ours - theirs, 2 * 3.14159265358979);
        list->PathLineTo(centre);
        for (int k = 0; k <= 24; ++k) list->PathLineTo(tip(theirs + between * k / 24));
        list->PathFillConvex(ui::heat(float(std::abs(between) / 3.15), 0.5f));
        list->AddLine(centre, tip(theirs), app.theme.warning, 2);
        list->AddLine(centre, tip(ours), app.theme.accent, 2);
        list->AddText(centre + ImVec2{-radius, radius + 2}, app.theme.dim,
                      fmt::format("pair {}: {:.0f}\u00B0", pair, between * 57.29577951308232).c_str());
    }
    ImGui::Dummy(room);
    end_panel();
}

namespace {

struct Box {
    std::string name, size;
    float x, y, w;     // of the panel, 0 to 1
    bool kept = false; // in the cache
};

} // namespace

void draw_flow(App& app) {
    begin_panel(app, "From the residual stream to attention", "framed: what the cache keeps of a token", 0,
                ImGuiWindowFlags_NoScrollbar);
    const auto n = [&](const char* key) { return app.store.model_number(key); };
    const double heads = n("n_heads"), nope = n("qk_nope_head_dim"), rope = n("qk_rope_head_dim"),
                 value = n("v_head_dim"), latent = n("kv_lora_rank"), dim = n("dim");
    const bool mla = app.store.model_says("latent");
    std::vector<Box> boxes{{"residual stream", fmt::format("{:.0f}", dim), 0.34f, 0.02f, 0.32f},
                           {"queries of all heads",
                            fmt::format("{:.0f} x ({:.0f} + {:.0f})", heads, nope, rope), 0.02f, 0.26f,
                            0.4f}};
    if (mla) {
        boxes.push_back({"latent", fmt::format("{:.0f}", latent), 0.5f, 0.26f, 0.22f, true});
        boxes.push_back({"rotated key", fmt::format("{:.0f}", rope), 0.76f, 0.26f, 0.22f, true});
        boxes.push_back({"queries in the latent's space",
                         fmt::format("{:.0f} x ({:.0f} + {:.0f})", heads, latent, rope), 0.02f, 0.5f, 0.4f});
    } else {
        boxes.push_back({"keys of all heads", fmt::format("{:.0f} x {:.0f}", heads, nope + rope), 0.5f, 0.26f,
                         0.22f, true});
        boxes.push_back(
            {"values of all heads", fmt::format("{:.0f} x {:.0f}", heads, value), 0.76f, 0.26f, 0.22f, true});
        boxes.push_back({"queries, turned by their position",
                         fmt::format("{:.0f} x {:.0f}", heads, nope + rope), 0.02f, 0.5f, 0.4f});
    }
    boxes.push_back(
        {"scores and shares", fmt::format("{:.0f} x {} tokens", heads, app.size()), 0.34f, 0.74f, 0.32f});
    const std::pair<int, int> arrows[] = {{0, 1}, {0, 2}, {0, 3}, {1, 4}, {4, 5}, {2, 5}, {3, 5}};
    const ImVec2 from = ImGui::GetCursorScreenPos(), room = ImGui::GetContentRegionAvail();
    const float line = ImGui::GetFontSize(), high = std::min(2.6f * line, room.y * 0.18f);
    ImDrawList* list = ImGui::GetWindowDrawList();
    const auto corner = [&](const Box& b) { return from + ImVec2{b.x * room.x, b.y * room.y}; };
    for (const auto& [a, b] : arrows) {
        const ImVec2 start = corner(boxes[size_t(a)]) + ImVec2{boxes[size_t(a)].w * room.x / 2, high},
                     end = corner(boxes[size_t(b)]) + ImVec2{boxes[size_t(b)].w * room.x / 2, 0};
        list->AddLine(start, end, app.theme.faint, 1.5f);
        list->AddTriangleFilled(end, end + ImVec2{-4, -7}, end + ImVec2{4, -7}, app.theme.faint);
    }
    for (const Box& b : boxes) {
        const ImVec2 at = corner(b), to = at + ImVec2{b.w * room.x, high};
        list->AddRectFilled(at, to, app.theme.line, 4);
        if (b.kept) ui::rect(list, at, to, app.theme.accent, 2, 4);
        list->PushClipRect(at, to, true);
        list->AddText(at + ImVec2{8, 2}, app.theme.text, b.name.c_str());
        list->AddText(at + ImVec2{8, 2 + line}, app.theme.accent, b.size.c_str());
        list->PopClipRect();
    }
    ImGui::Dummy(room);
    end_panel();
}

void draw_row_numbers(App& app) {
    const App::Attended a = app.attended();
    begin_panel(app, "Worked in numbers", "the tokens that get most", 0);
    if (!a.rows) {
        if (app.source.control() && ImGui::Button("Watch this model's middle layer"))
            app.watch(app.store.shape().n_layers / 2);
        return end_panel();
    }
    const std::vector<float> shares = attention_of(*a.rows, a.head.value_or(0));
    if (!a.head)
        ui::text(app.theme.dim, fmt::format("head {} stands for all here", a.rows->first_head).c_str());
    std::vector<uint32_t> order(shares.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](uint32_t x, uint32_t y) { return shares[x] > shares[y]; });
    const size_t listed = std::min<size_t>(order.size(), 12);
    const float largest = std::max(shares[order.front()], 1e-30f);
    double sum = 0;
    const float at[] = {0, 200 * app.theme.scale, 370 * app.theme.scale, 510 * app.theme.scale};
    const char* heads[] = {"token", "score, less the best", "e to that power", "share"};
    for (int c = 0; c < 4; ++c) {
        if (c != 0) ImGui::SameLine(at[c]);
        ui::text(app.theme.dim, heads[c]);
    }
    const auto row = [&](const std::string& what, double share, ImU32 colour) {
        ui::text(colour, what.c_str());
        ImGui::SameLine(at[2]);
        ui::text(app.theme.text, fmt::format("{:.4f}", share / largest).c_str());
        ImGui::SameLine(at[3]);
        ui::text(app.theme.accent, fmt::format("{:.4f}", share).c_str());
    };
    for (size_t i = 0; i < listed; ++i) {
        const uint32_t first = order[i] * a.rows->pool;
        const float share = shares[order[i]];
        row(app.token_label(first) + (a.rows->pool > 1 ? " and on" : ""), share, app.theme.text);
        ImGui::SameLine(at[1]);
        ui::text(app.theme.text, fmt::format("{:.3f}", std::log(double(share) / largest)).c_str());
        sum += share;
    }
    if (listed < order.size()) row(fmt::format("{} others", order.size() - listed), 1 - sum, app.theme.dim);
    ui::text(app.theme.dim,
             fmt::format("the sum of the powers is {:.4f}; each power divided by it is a share",
                         1 / double(largest))
                 .c_str());
    end_panel();
}

} // namespace fathom::viewer
