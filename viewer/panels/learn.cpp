// A tour for a person who knows no transformer: one step after another, each in a few sentences with the
// numbers of the model at hand, above the panel that shows it. No number is made up: what a step needs and
// the source does not tell, it says.
#include "viewer/panels/figures.h"
#include "viewer/ui/compat.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <fmt/format.h>

namespace fathom::viewer {

using ui::operator+;

namespace {

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

std::string position(App& app, const Subject& s) {
    const std::vector<double> rope = s.store->model_numbers("rope");
    if (rope.empty()) return "This recording does not tell how the model turns positions into angles.";
    const double slowest = *std::min_element(rope.begin(), rope.end());
    return fmt::format(
        "Attention alone does not know where a token stands. So {} numbers of each query and key are taken "
        "in "
        "pairs, and each pair is turned by the position times an angle of its own (RoPE): the first by "
        "{:.3g} "
        "for each position, the last by {:.2g}, a full turn every {:.0f} tokens. Only the angle between two "
        "tokens matters for how well they match: that is their distance. Below, {} and the token under the "
        "mouse, or the one before it.",
        2 * rope.size(), rope.front(), slowest, 6.28318530718 / std::max(1e-12, slowest),
        app.token_label(s.position));
}

std::string queries(App&, const Subject& s) {
    if (!s.store->model_says("latent"))
        return fmt::format("Each of {:.0f} heads makes a query of the token, and a key and a value for those "
                           "that come after. A query is compared with the keys of all tokens so far.",
                           number(s, "n_heads"));
    return fmt::format(
        "Each of {:.0f} heads asks a question: a query of {:.0f} numbers, made of the {:.0f} of the residual "
        "stream. What it is compared with is not a key for each head but one latent of {:.0f} numbers, a "
        "compressed copy of the token. A head's part of the query is moved into the latent's space "
        "(absorbed), "
        "so that keys need never be written out. {:.0f} more numbers carry the position, the same for all "
        "heads.",
        number(s, "n_heads"), number(s, "qk_nope_head_dim") + number(s, "qk_rope_head_dim"), number(s, "dim"),
        number(s, "kv_lora_rank"), number(s, "qk_rope_head_dim"));
}

std::string attention(App& app, const Subject&) {
    const App::Attended a = app.attended();
    if (!a.rows)
        return app.source.control()
                   ? "A query is compared with every token so far: scores, which become shares of its "
                     "attention. "
                     "To see them the model must be watched while it reads: press the button below."
                   : "A query is compared with every token so far: scores, which become shares of its "
                     "attention. "
                     "This recording does not tell them for this token (fathom run --watch LAYERS does).";
    return fmt::format(
        "The query of {} is compared with {} tokens: a score each. e to the power of a score, divided by the "
        "sum "
        "of all, is the share of attention that a token gets; the shares add up to 1. What the head takes "
        "along "
        "is the mix of the tokens' values in these shares. Below are the numbers of head {} in layer {}.",
        app.token_label(a.position), a.position + 1, a.rows->first_head + a.head.value_or(0), a.block);
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

struct Step {
    const char* title;
    std::string (*text)(App&, const Subject&);
    void (*panel)(App&); // that shows it
    bool routes;         // needs the tables of a MoE layer
};
constexpr Step STEPS[] = {{"Tokens", tokens, draw_tokens, false},
                          {"The residual stream", stream, draw_norms, false},
                          {"Positions as angles", position, draw_rope, false},
                          {"Queries and the latent", queries, draw_flow, false},
                          {"The latent cache", cache, draw_cache, false},
                          {"One row of attention", attention, draw_row_numbers, false},
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
