// Windows, statistics and the loop over pieces; see measure.h.
#include "cli/measure.h"

#include "base/error.h"
#include "base/file.h"
#include "cli/files.h"
#include "cli/terminal.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <unistd.h>

namespace fathom::cli {

namespace {

constexpr size_t ENOUGH_WINDOWS = 10; // for an error from the windows' means

double standard_error(double sum, double squares, double n) {
    const double mean = sum / n, variance = (squares - n * mean * mean) / (n - 1);
    return n > 1 ? std::sqrt(std::max(variance, 0.0) / n) : 0;
}

} // namespace

void add_measure(CLI::App& app, MeasureOptions& options) {
    app.add_option("FILE", options.text, "The text to measure on")->type_name("")->required();
    add_count(app, "--window", options.window, "Tokens of a window; the second half of each is scored");
    add_count(app, "--windows", options.windows, "Measure on the first N windows; 0: on all of the text");
    add_path(app, "--json", options.json, "FILE.json", "Write the figures to FILE, too");
}

std::vector<Window> windows_of(const MeasureOptions& options, const LoadedModel& model) {
    if (options.window < 4) throw UsageError("--window: at least 4 tokens");
    if (options.window > model.engine->context())
        throw Error({.what = "a window does not fit the context",
                     .where = "--window",
                     .expected = fmt::format("at most {} tokens", model.engine->context()),
                     .got = fmt::format("{}", options.window),
                     .fix = "choose a smaller --window or a larger --context"});
    std::vector<Token> tokens = model.tokenizer.encode(read_text(options.text), Added::none);
    const auto bos = model.bos();
    if (bos) tokens.insert(tokens.begin(), *bos);
    if (tokens.size() < 2)
        throw Error({.what = "the text is too short to measure on",
                     .where = printable(options.text.string(), 4096),
                     .expected = "at least two tokens",
                     .got = fmt::format("{}", tokens.size())});
    std::vector<Window> windows;
    for (size_t at = 0; at + options.window <= tokens.size(); at += options.window) {
        if (options.windows != 0 && windows.size() == options.windows) break;
        const auto first = tokens.begin() + static_cast<ptrdiff_t>(at);
        windows.push_back({{first, first + options.window}, options.window / 2 + 1});
        if (bos) windows.back().tokens.front() = *bos;
    }
    if (windows.empty()) windows.push_back({std::move(tokens), 1});
    return windows;
}

void Sample::add(double value) {
    values_.push_back(value);
    windows_.back().sum += value;
    ++windows_.back().count;
}

double Sample::mean() const {
    double sum = 0;
    for (const double value : values_) sum += value;
    return sum / static_cast<double>(values_.size());
}

double Sample::error() const {
    double sum = 0, squares = 0;
    const bool by_window = windows_.size() >= ENOUGH_WINDOWS;
    const auto add = [&](double value) { sum += value, squares += value * value; };
    if (by_window)
        for (const Sum& window : windows_) add(window.sum / static_cast<double>(window.count));
    else
        for (const double value : values_) add(value);
    return standard_error(sum, squares, static_cast<double>(by_window ? windows_.size() : values_.size()));
}

double Sample::quantile(double q) const {
    std::vector<double> sorted = values_;
    const auto rank = static_cast<size_t>(std::ceil(q * static_cast<double>(sorted.size())));
    const auto at = sorted.begin() + static_cast<ptrdiff_t>(std::max<size_t>(rank, 1) - 1);
    std::nth_element(sorted.begin(), at, sorted.end());
    return *at;
}

void check_finite(double value) {
    if (std::isfinite(value)) return;
    throw Error({.what = "the model's predictions are not finite",
                 .expected = "finite logits",
                 .got = fmt::format("{}", value),
                 .fix = "its weights hold numbers that are not, or too large; fetch it again"});
}

RowFigures figures_of(std::span<const float> logits) {
    const auto best = std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double(logit) - *best);
    check_finite(*best + std::log(sum));
    return {*best + std::log(sum), static_cast<Token>(best - logits.begin())};
}

void show_window(size_t w, size_t n) {
    if (!is_terminal(STDERR_FILENO)) return;
    if (w < n)
        fmt::print(stderr, "\r\033[Kwindow {} of {}", w + 1, n);
    else
        fmt::print(stderr, "\r\033[K");
}

void write_json(const std::filesystem::path& path, const nlohmann::ordered_json& value) {
    if (path.empty()) return;
    AtomicFile file(path);
    file.write(value.dump(2) + "\n");
    file.commit();
}

} // namespace fathom::cli
