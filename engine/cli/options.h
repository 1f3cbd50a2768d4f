// Options that several commands share, their checks, and small parsers. A bad value is a usage error (exit
// code 2).
#pragma once

#include "base/token.h"
#include "session/engine.h"

#include <CLI/CLI.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::cli {

// Adds -v and --quiet, which set the log's level while the command line is parsed.
void add_verbosity(CLI::App& app);

struct ModelOptions {
    std::filesystem::path model; // empty: the embedded one
    std::string device;
    uint32_t context = 0;
};
void add_model(CLI::App& app, ModelOptions& options); // the positional MODEL
void add_device(CLI::App& app, ModelOptions& options);
void add_context(CLI::App& app, ModelOptions& options);

struct SamplingOptions {
    SamplingParams params{.temperature = 0.7f, .top_p = 0.95f};
    bool greedy = false;
    std::optional<uint64_t> seed;
    // The parameters in force: a random seed when none was given.
    SamplingParams resolve() const;
};
void add_sampling(CLI::App& app, SamplingOptions& options);

// "1,2,3" (blanks allowed) to ids. Throws CLI::ValidationError naming the part that is no id.
std::vector<Token> parse_tokens(std::string_view text);
// A number within [low, high]; nullopt for anything else, trailing characters and NaN included.
std::optional<double> parse_number(std::string_view text, double low, double high);
CLI::Validator number_between(double low, double high);

} // namespace fathom::cli
