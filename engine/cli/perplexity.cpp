// `fathom perplexity`: how well a model predicts a text.
#include "base/log.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/measure.h"
#include "cli/terminal.h"

#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <numbers>

namespace fathom::cli {

namespace {

struct Options {
    ModelOptions model;
    MeasureOptions measure;
};

int perplexity(const Options& options) {
    const LoadedModel model = load_model(options.model);
    const std::vector<Window> windows = windows_of(options.measure, model);
    Session session = model.engine->open();
    const InterruptScope scope([&session] { session.cancel(); });
    const auto start = std::chrono::steady_clock::now();
    Sample loss; // -log p of each scored token
    uint64_t bytes = 0, tokens = 0;
    for (size_t w = 0; w < windows.size(); ++w) {
        const Window& window = windows[w];
        show_window(w, windows.size());
        session.rewind(0);
        const std::vector<float> scores = session.score(window.tokens);
        loss.begin_window();
        for (size_t i = window.first_scored; i < scores.size(); ++i) {
            check_finite(scores[i]);
            loss.add(-double(scores[i]));
            bytes += model.tokenizer.bytes(window.tokens[i]).size();
        }
        tokens += window.tokens.size();
        if (scope.interrupted()) throw Cancelled();
    }
    show_window(windows.size(), windows.size());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double value = std::exp(loss.mean()), error = value * loss.error();
    const double bits = loss.mean() * static_cast<double>(loss.size()) / std::numbers::ln2;
    const double bits_per_byte = bits / static_cast<double>(bytes);
    write_out(fmt::format("perplexity {:.4f} +- {:.4f}   {:.4f} bits a byte, over {} tokens in {} windows\n",
                          value, error, bits_per_byte, loss.size(), windows.size()));
    log::info("{:.1f} tokens/s on {}", static_cast<double>(tokens) / seconds, model.engine->device_name());
    write_json(options.measure.json, {{"model", model.files.name},
                                      {"device", model.engine->device_name()},
                                      {"perplexity", value},
                                      {"standard_error", error},
                                      {"loss", loss.mean()},
                                      {"bits_per_byte", bits_per_byte},
                                      {"scored_tokens", loss.size()},
                                      {"window", windows.front().tokens.size()},
                                      {"windows", windows.size()},
                                      {"tokens_per_second", static_cast<double>(tokens) / seconds}});
    return scope.interrupted() ? INTERRUPTED : OK;
}

} // namespace

Action prepare_perplexity(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_named_model(app, "MODEL", options->model.model, "The model");
    add_measure(app, options->measure);
    add_context(app, options->model);
    add_loading(app, options->model);
    return [options] { return perplexity(*options); };
}

} // namespace fathom::cli
