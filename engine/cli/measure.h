// Measuring a model on a text: what perplexity and compare share. The convention is llama.cpp's, so that
// numbers can be compared: the text is cut into windows that do not overlap, each begins with the model's BOS
// in the place of its first token, and the second half of a window is scored, so that every scored token has
// at least half a window before it. A text shorter than one window is one window, scored from its second
// token on.
#pragma once

#include "cli/generate.h"

#include <nlohmann/json.hpp>

#include <span>
#include <vector>

namespace fathom::cli {

struct MeasureOptions {
    std::filesystem::path text, json;   // json: empty for none
    uint32_t window = 512, windows = 0; // tokens of a window; windows at most, 0: all of the text
};
void add_measure(CLI::App& app, MeasureOptions& options); // FILE and its options; MODEL comes before

struct Window {
    std::vector<Token> tokens;
    uint32_t first_scored = 1; // index of the first token that is scored
};
// Throws Error when the file has fewer than two tokens, or a window does not fit the context.
std::vector<Window> windows_of(const MeasureOptions& options, const LoadedModel& model);

// Mean, standard error and order statistics of what was measured at each scored token. Tokens of one window
// are not independent: the error is that of the windows' means where there are at least ten, else of the
// tokens.
class Sample {
  public:
    void begin_window() { windows_.push_back({}); }
    void add(double value);
    size_t size() const { return values_.size(); }
    double mean() const;
    double error() const;
    double quantile(double q) const; // 0 to 1; of the sorted values, the nearest rank

  private:
    struct Sum {
        double sum = 0;
        size_t count = 0;
    };
    std::vector<double> values_;
    std::vector<Sum> windows_;
};

// log p of each token under a row of logits: the log of the softmax's denominator, and the most probable
// token.
struct RowFigures {
    double log_sum = 0; // log of the sum of exp(logit)
    Token best = 0;
};
RowFigures figures_of(std::span<const float> logits); // Error where they are not finite
void check_finite(double value);                      // what a model computed from its weights; throws Error

// On a terminal, which window is being measured; with w == n the line is wiped away.
void show_window(size_t w, size_t n);
void write_json(const std::filesystem::path& path, const nlohmann::ordered_json& value);

} // namespace fathom::cli
