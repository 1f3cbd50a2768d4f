// A tour for a person who knows no transformer: one step after another, each in a few sentences with the
// numbers of the model at hand, above the panel that shows it. No number is made up: what a step needs and
// the source does not tell, it says.
#include "viewer/app.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <fmt/format.h>

namespace fathom::viewer {

using ui::operator+;

namespace {

// What the steps talk about: the selected token, or the newest that went through the model.
struct Subject {
    const Timeline* timeline = nullptr;
    const trace::TokenRecord* record = nullptr; // null: nothing yet
    uint32_t position = 0, layer = 0;           // layer: among the MoE layers
    const Store* store = nullptr;
};

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

double number(const Subject& s, const char* key) { return s.store->model_number(key); }

std::string tokens(App& app, const Subject& s) {
    return fmt::format(
        "A model reads and writes tokens: pieces of text, each with a number. This one knows {:.0f} of them. "
        "The "
        "text on the left has {}; the one we follow is {}, whose number is {}. Click another to follow it.",
        number(s, "vocab_size"), app.size(), app.token_label(s.position), s.record->token);
}

std::string stream(App& app, const Subject& s) {
    const auto& norms = s.record->norms;
    if (norms.empty()) return "The norms of the residual stream were not recorded.";
    return fmt::format("A token's number is looked up in a table and becomes {:.0f} values: the residual "
                       "stream. Each of the {} "
                       "layers reads it and adds to it; nothing is ever overwritten. The bars are its length "
                       "(root mean square) "
                       "before each layer: for this token it grows from {:.3g} to {:.3g}.",
                       number(s, "dim"), app.store.shape().n_layers, norms.front(),
                       std::isnan(norms.back()) ? norms[norms.size() - 2] : norms.back());
}

std::string cache(App& app, const Subject& s) {
    if (!s.store->model_says("latent"))
        return "In a layer's attention every token looks at those before it. This model keeps a key and a "
               "value of every "
               "head for each of them.";
    const double latent = number(s, "cache_floats"), heads = number(s, "n_heads"),
                 plain = heads * (number(s, "qk_nope_head_dim") + number(s, "qk_rope_head_dim") +
                                  number(s, "v_head_dim"));
    return fmt::format("In a layer's attention every token looks at those before it, through {:.0f} heads. "
                       "Other models keep a "
                       "key and a value of every head for that: {:.0f} numbers a token and layer. This one "
                       "keeps a latent of "
                       "{:.0f} and one rotated key of {:.0f} that all heads share, and works keys and values "
                       "out of it: {:.1f} times "
                       "less, for the {} tokens here and for every one to come.",
                       heads, plain, number(s, "kv_lora_rank"), number(s, "qk_rope_head_dim"),
                       plain / std::max(1.0, latent), app.size());
}

std::string router(App& app, const Subject& s) {
    const trace::Shape& shape = app.store.shape();
    const auto chosen =
        std::span(s.record->experts).subspan(size_t{s.layer} * shape.n_active, shape.n_active);
    const auto weights =
        std::span(s.record->weights).subspan(size_t{s.layer} * shape.n_active, shape.n_active);
    std::string list;
    for (size_t k = 0; k < chosen.size(); ++k)
        list += fmt::format("{}{} ({:.3f})", k == 0 ? "" : ", ", chosen[k], weights[k]);
    return fmt::format(
        "After attention comes a feed-forward network: here {} small ones instead of a large one, the "
        "experts. A "
        "router gives each a score and sends the token to the best {}, with weights. In layer {} this token "
        "went "
        "to {}. Had the last one's key been {:.2g} lower, another expert would have been chosen.",
        shape.n_experts, shape.n_active, shape.moe_layers[s.layer], list, s.record->margin[s.layer]);
}

std::string shared(App& app, const Subject& s) {
    const trace::Shape& shape = app.store.shape();
    const double active = shape.n_active + number(s, "n_shared_experts"),
                 all = shape.n_experts + number(s, "n_shared_experts");
    return fmt::format("{:.0f} more expert{} no router chooses: every token takes {}, for what all tokens "
                       "need, so that the routed "
                       "ones can differ. A token thus uses {:.0f} of {:.0f} experts of a layer: the model "
                       "knows as much as all of "
                       "them hold, and works as little as {:.0f} % of them do.",
                       number(s, "n_shared_experts"), number(s, "n_shared_experts") == 1 ? "" : "s",
                       number(s, "n_shared_experts") == 1 ? "it" : "them", active, all, 100 * active / all);
}

std::string bias(App& app, const Subject& s) {
    const trace::Shape& shape = app.store.shape();
    uint64_t swapped = 0, choices = 0;
    for (const Timeline::Slot& slot : s.timeline->slots) {
        choices += slot.record.experts.size();
        for (const uint32_t bits : slot.record.swapped) swapped += static_cast<uint64_t>(std::popcount(bits));
    }
    std::string text =
        shape.n_groups > 1
            ? fmt::format(
                  "The experts of a layer are in {} groups, and a token may go to {} of them only: on many "
                  "machines it then travels less. ",
                  shape.n_groups, shape.n_active_groups)
            : "The experts of this model are not grouped. ";
    return text + fmt::format("A bias is added to the scores for the choice alone, not for the weights: "
                              "training raises it for "
                              "experts that are chosen too rarely. Of the {} choices in this text it made {} "
                              "({:.1f} %) that scores "
                              "alone would not have.",
                              choices, swapped, choices ? 100.0 * double(swapped) / double(choices) : 0.0);
}

std::string balance(App& app, const Subject& s) {
    const trace::Shape& shape = app.store.shape();
    const auto load = app.store.load(*s.timeline, 0, app.size());
    const Balance b = app.store.balance(
        std::span(load).subspan(size_t{s.layer} * shape.n_experts, shape.n_experts), app.size());
    return fmt::format(
        "If all tokens went to the same few experts, the others would be useless. In layer {} the load "
        "varies by "
        "{:.0f} % (standard deviation over mean); if dice chose, it would by {:.0f} %. It is as if {:.1f} of "
        "{} "
        "experts were equally busy. One short text uses some experts more: that is what they are for.",
        shape.moe_layers[s.layer], 100 * b.cv, 100 * b.chance_cv, b.effective, shape.n_experts);
}

std::string choice(App& app, const Subject& s) {
    if (s.record->candidates.empty())
        return "What follows this token was given, not chosen. Click a token of what the model wrote.";
    const trace::Candidate& best = s.record->candidates.front();
    return fmt::format("Behind the last layer the residual stream is compared with every token's own "
                       "direction: a score for each "
                       "of {:.0f}, which become probabilities. After this token \"{}\" was the likeliest, "
                       "with {:.3f}; the dice "
                       "fell on \"{}\". A temperature of 0 always takes the likeliest. Then it begins again, "
                       "one token longer.",
                       number(s, "vocab_size"), app.candidate_label(best.token),
                       std::exp(double(best.logprob)), app.candidate_label(s.record->next));
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

struct Step {
    const char* title;
    std::string (*text)(App&, const Subject&);
    void (*panel)(App&); // that shows it
    bool routes;         // needs the tables of a MoE layer
};
constexpr Step STEPS[] = {{"Tokens", tokens, draw_tokens, false},
                          {"The residual stream", stream, draw_norms, false},
                          {"Attention and its latent cache", cache, draw_cache, false},
                          {"The router", router, draw_choice, true},
                          {"Shared experts", shared, draw_grid, true},
                          {"Groups and bias", bias, draw_choice, true},
                          {"Load balance", balance, draw_load, true},
                          {"From scores to the next token", choice, draw_alternatives, false}};
constexpr int N_STEPS = static_cast<int>(std::size(STEPS));

} // namespace

void draw_learn(App& app) {
    app.lesson = std::clamp(app.lesson, 0, N_STEPS - 1);
    const Step& step = STEPS[app.lesson];
    const Subject s = subject_of(app);
    begin_panel(app, fmt::format("{} of {}: {}", app.lesson + 1, N_STEPS, step.title).c_str(), "",
                210 * app.theme.scale);
    const bool told = s.record && (!step.routes || !s.record->experts.empty());
    ImGui::Dummy({1, 4 * app.theme.scale});
    if (told)
        ImGui::TextWrapped("%s", step.text(app, s).c_str());
    else
        ImGui::TextWrapped("%s", s.record ? "This token's routing was not recorded."
                                          : "Let the model write something first, on the left.");
    ImGui::SetCursorPosY(ImGui::GetWindowHeight() - 40 * app.theme.scale);
    if (ImGui::Button("Back", {90 * app.theme.scale, 0}) && app.lesson > 0) --app.lesson;
    ImGui::SameLine();
    if (ImGui::Button("Next", {90 * app.theme.scale, 0}) && app.lesson + 1 < N_STEPS) ++app.lesson;
    end_panel();
    if (told) step.panel(app);
}

} // namespace fathom::viewer
