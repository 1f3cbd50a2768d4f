// Options that several commands share, their checks, and small parsers. A bad value is a usage error (exit
// code 2).
#pragma once

#include "base/token.h"
#include "session/engine.h"

#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace fathom::cli {

// The command line asks for something that makes no sense.
struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Adds -v and --quiet, which set the log's level while the command line is parsed.
void add_verbosity(CLI::App& app);

// `name` as CLI11 takes it ("-o,--output"); `type` stands for the value in the help.
void add_text(CLI::App& app, const char* name, std::optional<std::string>& value, const char* type,
              const char* about);
void add_texts(CLI::App& app, const char* name, std::vector<std::string>& values, const char* type,
               const char* about);
void add_path(CLI::App& app, const char* name, std::filesystem::path& value, const char* type,
              const char* about);
void add_count(CLI::App& app, const char* name, uint32_t& value,
               const char* about); // 0 and up; shows its default
void add_flag(CLI::App& app, const char* name, bool& value, const char* about);

// A weight format by its name; the help lists them after `about`.
void add_format(CLI::App& app, const char* name, std::string& format, const char* about);

struct ModelOptions {
    std::filesystem::path model; // empty: the embedded one
    std::filesystem::path trace; // see recorder.h
    std::vector<uint32_t> watch; // layers; see recorder.h
    uint32_t watch_width = 256;
    std::string device, quantize, tier = "auto", cache_type = "f32";
    uint32_t context = 0, cache_tokens = 0, spare_contexts = 0; // the latter two: see LoadOptions
    bool experts_on_host = false;
    LoadOptions load() const; // these, and else defaults
};
void add_model(CLI::App& app, ModelOptions& options); // the positional MODEL
// A positional that must be given, where the embedded model has the name EMBEDDED (and then an empty path).
constexpr const char* EMBEDDED = "fathom-tiny";
std::filesystem::path model_named(std::string_view text); // a path, EMBEDDED or ORG/NAME
void add_named_model(CLI::App& app, const char* name, std::filesystem::path& model, const char* about);
void add_loading(CLI::App& app,
                 ModelOptions& options); // --device, --quantize, --experts, --tier, --cache-type
void add_context(CLI::App& app, ModelOptions& options);

struct SamplingOptions {
    SamplingParams params{.temperature = 0.7f, .top_p = 0.95f};
    bool greedy = false;
    std::optional<uint64_t> seed;
    // The parameters in force: a random seed when none was given.
    SamplingParams resolve() const;
};
void add_sampling(CLI::App& app, SamplingOptions& options);

// "1,2,3" (blanks allowed) to ids. Throws UsageError naming `option` and the part that is no id.
std::vector<Token> parse_tokens(std::string_view text, std::string_view option);
// A number within [low, high]; nullopt for anything else, trailing characters and NaN included.
std::optional<double> parse_number(std::string_view text, double low, double high);

} // namespace fathom::cli
