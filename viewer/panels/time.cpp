// Where the time goes: from one token to the next, and within a token by layer and stage. Stages are timed
// launch by launch on the device, for some tokens only.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

namespace fathom::viewer {

using ui::operator+;

namespace {

std::string time_text(double seconds) {
    return seconds < 1e-3 ? fmt::format("{:.0f} us", 1e6 * seconds) : fmt::format("{:.2f} ms", 1e3 * seconds);
}

// Seconds from the token before to this one, where the model wrote both.
double gap(const Timeline& t, uint32_t position) {
    const trace::TokenRecord *now = t.record(position),
                             *before = position > 0 ? t.record(position - 1) : nullptr;
    if (!now || !before || now->next == trace::NO_TOKEN || before->next == trace::NO_TOKEN) return 0;
    return now->time > before->time ? 1e-9 * static_cast<double>(now->time - before->time) : 0;
}

ImU32 stage_colour(size_t stage) { return ui::PIN_COLOURS[stage]; }

struct Lane {
    std::string label;
    std::span<const float> times; // stages, or one time
};

std::vector<Lane> lanes_of(const trace::Shape& shape, const trace::TokenRecord& record) {
    const size_t n = trace::STAGES.size();
    const std::span<const float> times(record.times);
    std::vector<Lane> lanes;
    for (uint32_t layer = 0; layer < shape.n_layers; ++layer)
        lanes.push_back({fmt::format("{}", layer), times.subspan(layer * n, n)});
    for (size_t end = 0; end < trace::ENDS.size(); ++end)
        lanes.push_back({std::string(trace::ENDS[end]), times.subspan(shape.n_layers * n + end, 1)});
    return lanes;
}

void lane_tooltip(App& app, const Lane& lane, bool is_layer) {
    ImGui::BeginTooltip();
    tell(app, is_layer ? "layer " + lane.label : lane.label);
    double sum = 0;
    for (size_t i = 0; i < lane.times.size(); ++i) {
        sum += lane.times[i];
        if (is_layer && lane.times[i] > 0)
            tell(app, trace::STAGES[i].data(), time_text(lane.times[i]), stage_colour(i));
    }
    tell(app, "together", time_text(sum));
    ImGui::EndTooltip();
}

void draw_lanes(App& app, const std::vector<Lane>& lanes, size_t layers) {
    float most = 1e-9f;
    for (const Lane& lane : lanes) {
        float sum = 0;
        for (const float time : lane.times) sum += time;
        most = std::max(most, sum);
    }
    const float labels = ImGui::CalcTextSize("sample").x + 8 * app.theme.scale;
    const ImVec2 corner = ImGui::GetCursorScreenPos(), room = ImGui::GetContentRegionAvail();
    const float high = std::min(22 * app.theme.scale, room.y / static_cast<float>(lanes.size())),
                size = ImGui::GetFontSize(), width = room.x - labels - 70 * app.theme.scale;
    const auto every = static_cast<size_t>(std::ceil(size / high));
    ImDrawList* list = ImGui::GetWindowDrawList();
    ImGui::InvisibleButton("lanes", {room.x, high * static_cast<float>(lanes.size())});
    const bool over = ImGui::IsItemHovered();
    for (size_t i = 0; i < lanes.size(); ++i) {
        const ImVec2 at = corner + ImVec2{labels, high * static_cast<float>(i)};
        if (i % every == 0 || i >= layers)
            list->AddText({corner.x, at.y + (high - size) / 2}, app.theme.dim, lanes[i].label.c_str());
        float x = 0, sum = 0;
        for (size_t stage = 0; stage < lanes[i].times.size(); ++stage) {
            const float wide = width * lanes[i].times[stage] / most;
            list->AddRectFilled(at + ImVec2{x, 1}, at + ImVec2{x + wide, high - 1},
                                i < layers ? stage_colour(stage) : app.theme.faint);
            x += wide, sum += lanes[i].times[stage];
        }
        if (high >= size)
            list->AddText(at + ImVec2{x + 4, (high - size) / 2}, app.theme.dim, time_text(sum).c_str());
        const float mouse = ImGui::GetIO().MousePos.y;
        if (over && mouse >= at.y && mouse < at.y + high) lane_tooltip(app, lanes[i], i < layers);
    }
}

std::string csv(const trace::Shape& shape, const trace::TokenRecord& record) {
    std::string out = "layer,stage,seconds\n";
    for (size_t i = 0; i < record.times.size(); ++i) {
        const size_t layer = i / trace::STAGES.size();
        out +=
            layer < shape.n_layers
                ? fmt::format("{},{},{}\n", layer, trace::STAGES[i % trace::STAGES.size()], record.times[i])
                : fmt::format(",{},{}\n", trace::ENDS[i - shape.n_layers * trace::STAGES.size()],
                              record.times[i]);
    }
    return out;
}

// Every launch of a step as it was measured alone: time, bytes, and the share of what the memory could give.
void launch_table(App& app, const Profile& profile) {
    ui::child("launches", {0, 0}, false);
    const float at[] = {0, 230 * app.theme.scale, 310 * app.theme.scale, 400 * app.theme.scale,
                        490 * app.theme.scale};
    const auto row = [&](ImU32 colour, std::initializer_list<std::string> cells) {
        size_t column = 0;
        for (const std::string& cell : cells) {
            if (column != 0) ImGui::SameLine(at[column]);
            ui::text(colour, cell.c_str());
            ++column;
        }
    };
    row(app.theme.dim, {"launch", "alone", "moves", "at", "of the memory's"});
    for (const Launch& launch : profile.launches) {
        const double rate = launch.seconds > 0 ? launch.bytes / launch.seconds : 0;
        row(app.theme.text,
            {launch.label, time_text(launch.seconds), bytes_text(launch.bytes),
             fmt::format("{:.2f} GB/s", 1e-9 * rate),
             profile.read_rate > 0 ? fmt::format("{:.0f} %", 100 * rate / profile.read_rate) : "?"});
    }
    ImGui::EndChild();
}

std::string csv(const Profile& profile) {
    std::string out = "launch,seconds,bytes,flops\n";
    for (const Launch& launch : profile.launches)
        out += fmt::format("{},{},{},{}\n", launch.label, launch.seconds, launch.bytes, launch.flops);
    return out;
}

} // namespace

void draw_times(App& app) {
    const Timeline* t = app.timeline();
    begin_panel(app, "From token to token", "a bar for each token that was written",
                ImGui::GetContentRegionAvail().y * 0.3f, ImGuiWindowFlags_NoScrollbar);
    std::vector<std::pair<uint32_t, double>> gaps; // the last ones, oldest first
    const auto most_bars = static_cast<size_t>(ImGui::GetContentRegionAvail().x / 4);
    for (uint32_t i = app.size(); t && i-- > 1 && gaps.size() < most_bars;)
        if (const double seconds = gap(*t, i); seconds > 0) gaps.emplace_back(i, seconds);
    std::reverse(gaps.begin(), gaps.end());
    if (gaps.empty()) {
        ui::text(app.theme.dim, "Nothing was written yet.");
        return end_panel();
    }
    double most = 0;
    for (const auto& [position, seconds] : gaps) most = std::max(most, seconds);
    const ImVec2 from = ImGui::GetCursorScreenPos();
    const ImVec2 size{ImGui::GetContentRegionAvail().x,
                      ImGui::GetContentRegionAvail().y - 1.4f * ImGui::GetFontSize()};
    const float width = std::min(size.x / static_cast<float>(gaps.size()), 24 * app.theme.scale);
    const bool pressed = ImGui::InvisibleButton("gaps", size);
    const auto under = static_cast<size_t>(std::max(0.0f, (ImGui::GetIO().MousePos.x - from.x) / width));
    ImDrawList* list = ImGui::GetWindowDrawList();
    for (size_t i = 0; i < gaps.size(); ++i) {
        const float high = (size.y - 2) * static_cast<float>(gaps[i].second / most);
        const bool timed = t->record(gaps[i].first) && !t->record(gaps[i].first)->times.empty();
        list->AddRectFilled(from + ImVec2{width * float(i), size.y - high},
                            from + ImVec2{width * float(i + 1) - 1, size.y},
                            app.selection().token == gaps[i].first ? app.theme.text
                            : timed                                ? app.theme.accent
                                                                   : app.theme.faint);
    }
    if (ImGui::IsItemHovered() && under < gaps.size()) {
        const auto& [position, seconds] = gaps[under];
        app.lit = App::Range{position, position};
        ImGui::BeginTooltip();
        tell(app, app.token_label(position));
        tell(app, "after", time_text(seconds));
        ImGui::EndTooltip();
        if (pressed) app.select_token(position);
    }
    ui::text(app.theme.dim, fmt::format("highest {}; middle {}; timed stage by stage:", time_text(most),
                                        time_text(app.store.token_seconds(*t, 0.5)))
                                .c_str());
    ImGui::SameLine();
    ui::text(app.theme.accent, "these");
    end_panel();
}

void draw_stages(App& app) {
    const Timeline* t = app.timeline();
    const bool live = app.source.control() != nullptr;
    begin_panel(app, "Within a token", "", live ? ImGui::GetContentRegionAvail().y * 0.55f : 0,
                ImGuiWindowFlags_NoScrollbar);
    const uint32_t upto = app.selection().token.value_or(app.size());
    const trace::TokenRecord* record = t ? Store::timed(*t, upto) : nullptr;
    ImGui::SameLine();
    if (!record) {
        ui::text(app.theme.dim,
                 "none up to here was timed: every 64th is, while one watches a device that can");
        return end_panel();
    }
    const trace::Shape& shape = app.store.shape();
    const trace::StageSums sums = trace::stage_sums(shape, record->times);
    const double sum = std::accumulate(sums.begin(), sums.end(), 0.0);
    ui::text(app.theme.dim, fmt::format("{}: {} of launches, one after the other",
                                        app.token_label(record->position), time_text(sum))
                                .c_str());
    for (size_t i = 0; i < trace::STAGES.size(); ++i) {
        if (sums[i] == 0) continue;
        ui::text(stage_colour(i), trace::STAGES[i].data());
        ImGui::SameLine(0, 4 * app.theme.scale);
        ui::text(app.theme.dim, fmt::format("{:.0f} %", sum > 0 ? 100 * sums[i] / sum : 0).c_str());
        ImGui::SameLine(0, 14 * app.theme.scale);
    }
    ImGui::NewLine();
    draw_lanes(app, lanes_of(shape, *record), shape.n_layers);
    copy_menu(app, "lanes", [&] { return csv(shape, *record); });
    end_panel();
}

void draw_launches(App& app) {
    Control* control = app.source.control();
    if (!control) return;
    begin_panel(app, "Launch by launch", "a step that writes one token, each launch alone", 0);
    if (ImGui::SmallButton("measure every launch") && !control->busy()) control->measure();
    const ImVec2 low = ImGui::GetItemRectMin(), high = ImGui::GetItemRectMax();
    app.launch_button = ImVec2{(low.x + high.x) / 2, (low.y + high.y) / 2};
    if (const Profile profile = control->profile(); !profile.launches.empty()) {
        launch_table(app, profile);
        copy_menu(app, "launches", [&] { return csv(profile); });
    } else if (const std::string failure = control->failure(); !failure.empty()) {
        ui::text(app.theme.warning, failure.c_str());
    }
    end_panel();
}

} // namespace fathom::viewer
