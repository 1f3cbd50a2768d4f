// Shared options; see options.h.
#include "cli/options.h"

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/weight_format.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <limits>
#include <random>

namespace fathom::cli {

namespace {

CLI::Validator number_between(double low, double high) {
    return CLI::Validator(
        [low, high](std::string& text) {
            if (parse_number(text, low, high)) return std::string();
            return fmt::format("'{}' is not a number from {:g} to {:g}", text, low, high);
        },
        "");
}

std::string names_of_formats() {
    std::string names;
    for (const Format format : FORMATS) names += (names.empty() ? "" : ", ") + std::string(name_of(format));
    return names;
}

std::string check_format(const std::string& name) {
    try {
        format_named(name);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

constexpr double largest_count = std::numeric_limits<uint32_t>::max();

} // namespace

void add_text(CLI::App& app, const char* name, std::optional<std::string>& value, const char* type,
              const char* about) {
    app.add_option(name, value, about)->type_name(type);
}
void add_texts(CLI::App& app, const char* name, std::vector<std::string>& values, const char* type,
               const char* about) {
    app.add_option(name, values, about)->type_name(type);
}
void add_path(CLI::App& app, const char* name, std::filesystem::path& value, const char* type,
              const char* about) {
    app.add_option(name, value, about)->type_name(type);
}
void add_count(CLI::App& app, const char* name, uint32_t& value, const char* about) {
    app.add_option(name, value, about)
        ->type_name("N")
        ->check(number_between(0, largest_count))
        ->capture_default_str();
}
void add_flag(CLI::App& app, const char* name, bool& value, const char* about) {
    app.add_flag(name, value, about);
}

void add_verbosity(CLI::App& app) {
    auto* quiet = app.add_flag_callback(
        "-q,--quiet", [] { log::set_level(log::Level::warning); },
        "Say nothing but errors and what was asked for");
    app.add_flag_callback(
           "-v,--verbose", [] { log::set_level(log::Level::detail); },
           "Say more: device, driver quirks, plans")
        ->excludes(quiet);
}

void add_model(CLI::App& app, ModelOptions& options) {
    app.add_option_function<std::string>(
           "MODEL", [&options](const std::string& text) { options.model = text; },
           "Folder with config.json, safetensors and tokenizer.json, a GGUF file, or the name of a "
           "downloaded "
           "model (ORG/NAME); without it the embedded model")
        ->type_name("");
}

std::filesystem::path model_named(std::string_view text) {
    return text == EMBEDDED ? std::filesystem::path() : std::filesystem::path(text);
}

void add_named_model(CLI::App& app, const char* name, std::filesystem::path& model, const char* about) {
    app.add_option_function<std::string>(
           name, [&model](const std::string& text) { model = model_named(text); },
           fmt::format("{}; '{}' is the embedded model", about, EMBEDDED))
        ->type_name("")
        ->required();
}

void add_format(CLI::App& app, const char* name, std::string& format, const char* about) {
    app.add_option(name, format, std::string(about) + ": " + names_of_formats())
        ->type_name("FORMAT")
        ->check(check_format);
}

void add_loading(CLI::App& app, ModelOptions& options) {
    app.add_option("--device", options.device,
                   "GPU by index, by part of its name, or 'cpu'; see 'fathom devices'")
        ->type_name("DEVICE");
    add_format(app, "--quantize", options.quantize, "Quantise the weights to this format while loading");
    app.add_option_function<std::string>(
           "--experts", [&options](const std::string& where) { options.experts_on_host = where == "host"; },
           "Where the routed experts lie: on the device, or in the host's memory, which is slower")
        ->type_name("device|host")
        ->check(CLI::IsMember({"device", "host"}));
    app.add_option(
           "--cache-type", options.cache_type,
           "Numbers in the cache; f16 takes half the memory of f32, q8 (bytes) about a quarter")
        ->type_name("f32|f16|q8")
        ->check(CLI::IsMember({"f32", "f16", "q8"}));
    app.add_option(
           "--tier", options.tier,
           "Kernels of the matrix products: the fastest that are right on this device (auto; 'tune' tries "
           "them anew), or all of one kind where it can be; see 'fathom devices -v'")
        ->type_name("TIER")
        ->check(CLI::IsMember({"auto", "tune", "base", "int8", "tiled", "half", "matrix"}));
}

LoadOptions ModelOptions::load() const {
    LoadOptions out;
    out.device = device;
    out.context = context;
    out.cache_tokens = cache_tokens;
    out.spare_contexts = spare_contexts;
    out.experts_on_host = experts_on_host;
    out.quantize = quantize;
    out.tier = tier;
    out.cache_format = cache_type;
    out.trace = trace != "off";
    return out;
}

void add_context(CLI::App& app, ModelOptions& options) {
    app.add_option("--context", options.context,
                   "Longest text in tokens; default: the model's limit, at most 4096")
        ->type_name("N")
        ->check(number_between(1, largest_count));
}

void add_sampling(CLI::App& app, SamplingOptions& options) {
    const auto number = [&app](const char* name, auto& value, const char* type, double low, double high,
                               const char* about) {
        return app.add_option(name, value, about)
            ->type_name(type)
            ->check(number_between(low, high))
            ->capture_default_str();
    };
    SamplingParams& p = options.params;
    auto* temperature =
        number("--temp", p.temperature, "X", 0, 100, "Temperature; 0 always takes the most probable token");
    app.add_flag("--greedy", options.greedy, "The same as --temp 0")->excludes(temperature);
    number("--top-k", p.top_k, "N", 0, largest_count, "Choose among the N most probable tokens; 0: all");
    number("--top-p", p.top_p, "X", 0.0001, 1,
           "Choose among the most probable tokens that make up this share");
    number("--min-p", p.min_p, "X", 0, 1, "Drop tokens less probable than this share of the most probable");
    number("--repeat-penalty", p.repetition_penalty, "X", 0.01, 100,
           "Divide the logits of tokens already present");
    number("--presence-penalty", p.presence_penalty, "X", -100, 100,
           "Subtract from the logits of tokens already present");
    number("--frequency-penalty", p.frequency_penalty, "X", -100, 100,
           "The same, for each time a token is present");
    app.add_option("--seed", options.seed,
                   "Same seed, same device, same text; default: another one each time")
        ->type_name("N");
}

SamplingParams SamplingOptions::resolve() const {
    SamplingParams out = params;
    if (greedy) out.temperature = 0;
    out.seed = seed ? *seed : std::random_device{}(); // 32 bits: short enough to be typed again
    return out;
}

std::vector<Token> parse_tokens(std::string_view text, std::string_view option) {
    std::vector<Token> out;
    for (size_t start = 0; start <= text.size();) {
        const size_t comma = std::min(text.find(',', start), text.size());
        std::string_view part = text.substr(start, comma - start);
        const size_t first = std::min(part.find_first_not_of(" \t\n"), part.size());
        part = part.substr(first, part.find_last_not_of(" \t\n") + 1 - first);
        Token token = 0;
        const auto parsed = std::from_chars(part.data(), part.data() + part.size(), token);
        if (parsed.ec != std::errc{} || parsed.ptr != part.data() + part.size())
            throw UsageError(fmt::format("{}: '{}' is not a token id", option, part));
        out.push_back(token);
        start = comma + 1;
    }
    return out;
}

std::optional<double> parse_number(std::string_view text, double low, double high) {
    double value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    if (parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size()) return std::nullopt;
    if (!(value >= low && value <= high)) return std::nullopt;
    return value;
}

} // namespace fathom::cli
