// `fathom compare`: two models, or one in two formats, on the same text: how far apart their predictions are,
// and whether they send tokens to the same experts.
#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/measure.h"
#include "cli/terminal.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <utility>

namespace fathom::cli {

namespace {

constexpr size_t PIECE = 32; // tokens whose logits are held at once

struct Options {
    ModelOptions a, b;
    MeasureOptions measure;
};

// How alike the choices of two routers are, in one MoE layer.
struct LayerAgreement {
    uint32_t layer = 0;                   // of the model
    Sample overlap, same_set, same_first; // shares of the chosen experts; of tokens
};

struct Figures {
    Sample divergence;          // KL(A || B), nats
    Sample same_best;           // 1 where the most probable token is the same
    Sample loss_a, loss_b, gap; // -log p of the token that follows, and the difference of the two
    std::vector<LayerAgreement> layers;

    void begin_window() {
        for (Sample* s : {&divergence, &same_best, &loss_a, &loss_b, &gap}) s->begin_window();
        for (LayerAgreement& l : layers)
            for (Sample* s : {&l.overlap, &l.same_set, &l.same_first}) s->begin_window();
    }
};

bool same_routers(const ModelConfig& a, const ModelConfig& b) {
    const auto moe_layers = [](const ModelConfig& c) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < c.n_layers; ++i) n += c.is_moe(i);
        return n;
    };
    return moe_layers(a) == moe_layers(b) && a.n_routed_experts == b.n_routed_experts &&
           a.n_active_experts == b.n_active_experts;
}

void add_prediction(Figures& figures, std::span<const float> a, std::span<const float> b, Token next) {
    const RowFigures of_a = figures_of(a), of_b = figures_of(b);
    double divergence = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double log_a = a[i] - of_a.log_sum, log_b = b[i] - of_b.log_sum;
        divergence += std::exp(log_a) * (log_a - log_b);
    }
    figures.divergence.add(std::max(divergence, 0.0)); // rounding may leave it just below
    figures.same_best.add(of_a.best == of_b.best);
    const double loss_a = of_a.log_sum - a[next], loss_b = of_b.log_sum - b[next];
    figures.loss_a.add(loss_a);
    figures.loss_b.add(loss_b);
    figures.gap.add(loss_b - loss_a);
}

// The last record of each position: a session goes over its last token again.
std::map<uint32_t, trace::TokenRecord> routing_of(Session& session) {
    std::map<uint32_t, trace::TokenRecord> records;
    for (trace::TokenRecord& record : session.take_records()) {
        const uint32_t position = record.position;
        records.insert_or_assign(position, std::move(record));
    }
    return records;
}

void add_routing(Figures& figures, const trace::TokenRecord& a, const trace::TokenRecord& b,
                 uint32_t n_active) {
    for (size_t layer = 0; layer < figures.layers.size(); ++layer) {
        const auto chosen = [&](const trace::TokenRecord& record) {
            const auto first = record.experts.begin() + static_cast<ptrdiff_t>(layer * n_active);
            return std::vector<uint16_t>(first, first + n_active);
        };
        std::vector<uint16_t> of_a = chosen(a), of_b = chosen(b), common;
        LayerAgreement& agreement = figures.layers[layer];
        agreement.same_first.add(of_a.front() == of_b.front());
        std::sort(of_a.begin(), of_a.end());
        std::sort(of_b.begin(), of_b.end());
        std::set_intersection(of_a.begin(), of_a.end(), of_b.begin(), of_b.end(), std::back_inserter(common));
        agreement.overlap.add(static_cast<double>(common.size()) / n_active);
        agreement.same_set.add(common.size() == n_active);
    }
}

// Both models over one window, and what they make of it, in pieces, so that few logits are held at once.
void measure_window(Figures& figures, const Window& window, Session& a, Session& b,
                    const LoadedModel& model) {
    const uint32_t vocab_size = model.config().vocab_size;
    figures.begin_window();
    a.rewind(0);
    b.rewind(0);
    const std::span tokens(window.tokens);
    for (size_t first = 0; first < tokens.size(); first += PIECE) {
        const auto piece = tokens.subspan(first, std::min(PIECE, tokens.size() - first));
        const std::vector<float> of_a = a.logits(piece), of_b = b.logits(piece);
        for (size_t i = 0; i < piece.size(); ++i) {
            const size_t next = first + i + 1;
            if (next < window.first_scored || next >= tokens.size()) continue;
            add_prediction(figures, std::span(of_a).subspan(i * vocab_size, vocab_size),
                           std::span(of_b).subspan(i * vocab_size, vocab_size), tokens[next]);
        }
    }
    const auto routing_a = routing_of(a), routing_b = routing_of(b);
    if (figures.layers.empty()) return;
    for (const auto& [position, record] : routing_a)
        if (const auto other = routing_b.find(position); other != routing_b.end())
            add_routing(figures, record, other->second, model.config().n_active_experts);
}

void check_comparable(const LoadedModel& a, const LoadedModel& b) {
    if (a.config().vocab_size == b.config().vocab_size) return;
    throw Error({.what = "the two models have other vocabularies",
                 .where = fmt::format("{} and {}", a.files.name, b.files.name),
                 .expected = fmt::format("{} tokens, as the first", a.config().vocab_size),
                 .got = fmt::format("{}", b.config().vocab_size),
                 .fix = "compare two formats of one model"});
}

void print_figures(const Figures& f, const LoadedModel& a, const LoadedModel& b) {
    const auto share = [](const Sample& s) {
        return fmt::format("{:.2f} +- {:.2f} %", 100 * s.mean(), 100 * s.error());
    };
    std::string out = fmt::format(
        "A  {}, perplexity {:.4f}\nB  {}, perplexity {:.4f}, log of the ratio {:+.5f} +- {:.5f}\n",
        a.files.name, std::exp(f.loss_a.mean()), b.files.name, std::exp(f.loss_b.mean()), f.gap.mean(),
        f.gap.error());
    out += fmt::format("KL(A || B)   mean {:.6f} +- {:.6f}, median {:.6f}, 99 % {:.6f}, largest {:.6f} nat\n",
                       f.divergence.mean(), f.divergence.error(), f.divergence.quantile(0.5),
                       f.divergence.quantile(0.99), f.divergence.quantile(1));
    out += fmt::format("same best token   {} of {}\n", share(f.same_best), f.same_best.size());
    if (f.layers.empty())
        out += "routing   not compared: the two have other experts, or none\n";
    else
        out += "routing, by MoE layer   same experts   same set   same first expert\n";
    for (size_t layer = 0; layer < f.layers.size(); ++layer)
        out += fmt::format("{:>21}   {:>10.2f} %  {:>7.2f} %  {:>16.2f} %\n", f.layers[layer].layer,
                           100 * f.layers[layer].overlap.mean(), 100 * f.layers[layer].same_set.mean(),
                           100 * f.layers[layer].same_first.mean());
    write_out(out);
}

nlohmann::ordered_json json_of(const Figures& f, const LoadedModel& a, const LoadedModel& b) {
    nlohmann::ordered_json layers = nlohmann::ordered_json::array();
    for (const LayerAgreement& layer : f.layers)
        layers.push_back({{"layer", layer.layer},
                          {"overlap", layer.overlap.mean()},
                          {"same_set", layer.same_set.mean()},
                          {"same_first", layer.same_first.mean()}});
    return {{"a", a.files.name},
            {"b", b.files.name},
            {"perplexity_a", std::exp(f.loss_a.mean())},
            {"perplexity_b", std::exp(f.loss_b.mean())},
            {"log_ratio", {{"mean", f.gap.mean()}, {"standard_error", f.gap.error()}}},
            {"kl",
             {{"mean", f.divergence.mean()},
              {"standard_error", f.divergence.error()},
              {"median", f.divergence.quantile(0.5)},
              {"p99", f.divergence.quantile(0.99)},
              {"max", f.divergence.quantile(1)}}},
            {"same_best", {{"mean", f.same_best.mean()}, {"standard_error", f.same_best.error()}}},
            {"scored_tokens", f.divergence.size()},
            {"moe_layers", layers}};
}

int compare(const Options& options) {
    const LoadedModel a = load_model(options.a), b = load_model(options.b);
    check_comparable(a, b);
    const std::vector<Window> windows = windows_of(options.measure, a);
    if (options.measure.window > b.engine->context())
        throw UsageError("--window: does not fit the second model's context");
    Figures figures;
    if (same_routers(a.config(), b.config()))
        for (uint32_t i = 0; i < a.config().n_layers; ++i)
            if (a.config().is_moe(i)) figures.layers.push_back({.layer = i});
    Session of_a = a.engine->open(), of_b = b.engine->open();
    const InterruptScope scope([&] {
        of_a.cancel();
        of_b.cancel();
    });
    for (size_t w = 0; w < windows.size(); ++w) {
        show_window(w, windows.size());
        measure_window(figures, windows[w], of_a, of_b, a);
        if (scope.interrupted()) throw Cancelled();
    }
    show_window(windows.size(), windows.size());
    print_figures(figures, a, b);
    write_json(options.measure.json, json_of(figures, a, b));
    return scope.interrupted() ? INTERRUPTED : OK;
}

} // namespace

Action prepare_compare(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_named_model(app, "A", options->a.model, "A model");
    add_named_model(app, "B", options->b.model,
                    "Another, or another format of it; --quantize is for this one");
    add_measure(app, options->measure);
    add_context(app, options->a);
    add_loading(app, options->a);
    return [options] {
        options->b.device = options->a.device;
        options->b.quantize = std::exchange(options->a.quantize, "");
        options->b.context = options->a.context;
        options->b.experts_on_host = options->a.experts_on_host;
        return compare(*options);
    };
}

} // namespace fathom::cli
