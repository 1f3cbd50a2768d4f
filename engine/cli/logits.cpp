// `fathom logits`: the numbers behind a text, as a safetensors file for other programs to compare with.
#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

#include <algorithm>
#include <fmt/format.h>
#include <fnmatch.h>
#include <memory>

namespace fathom::cli {

namespace {

struct Options {
    ModelOptions model;
    std::optional<std::string> tokens;
    std::filesystem::path output;
    std::vector<std::string> taps;
    bool reference = false;
};

void check_tokens(std::span<const Token> tokens, const ModelConfig& config, uint32_t context) {
    for (const Token token : tokens)
        if (token >= config.vocab_size)
            throw Error({.what = "there is no such token",
                         .where = "--tokens",
                         .expected = fmt::format("ids from 0 to {}", config.vocab_size - 1),
                         .got = fmt::format("{}", token)});
    if (tokens.size() > context)
        throw Error({.what = "the tokens do not fit the context",
                     .expected = fmt::format("at most {} tokens", context),
                     .got = fmt::format("{} tokens", tokens.size()),
                     .fix = fmt::format("raise --context (the model's limit is {})", config.max_position)});
}

// A pattern that matched nothing is a slip of the keyboard.
void check_taps(std::span<const std::string> patterns, std::span<const Tap> taps) {
    for (const std::string& pattern : patterns) {
        const auto matched = [&](const Tap& tap) {
            return ::fnmatch(pattern.c_str(), tap.name.c_str(), FNM_NOESCAPE) == 0;
        };
        if (std::none_of(taps.begin(), taps.end(), matched))
            throw Error({.what = "no intermediate tensor has this name",
                         .where = "--tap",
                         .got = printable(pattern),
                         .fix = "--tap '*' keeps them all, under their names"});
    }
}

TensorView view(std::string name, uint64_t rows, uint64_t cols, std::span<const float> values) {
    return {
        .name = std::move(name), .dtype = DType::f32, .shape = {rows, cols}, .data = std::as_bytes(values)};
}

int logits(const Options& options) {
    if (!options.tokens) throw UsageError("--tokens is required");
    if (options.output.empty()) throw UsageError("--output is required");
    const std::vector<Token> tokens = parse_tokens(*options.tokens, "--tokens");
    const ModelFiles files = open_model(options.model.model);
    LoadOptions load = options.model.load();
    load.reference = options.reference;
    load.taps = options.taps;
    const auto engine = load_engine(files, load);
    check_tokens(tokens, engine->config(), engine->context());
    Session session = engine->open();
    std::vector<float> values;
    {
        const InterruptScope scope([&session] { session.cancel(); });
        values = session.logits(tokens);
    }
    std::vector<TensorView> tensors = {view("logits", tokens.size(), engine->config().vocab_size, values)};
    check_taps(options.taps, session.taps());
    for (const Tap& tap : session.taps())
        if (tap.name != "logits") tensors.push_back(view(tap.name, tap.rows, tap.cols, tap.values));
    const InterruptScope scope; // the file is written whole or not at all
    write_safetensors(options.output, tensors);
    for (const TensorView& tensor : tensors)
        log::info("{}: {} {}", options.output.string(), tensor.name, shape_text(tensor.shape));
    return scope.interrupted() ? INTERRUPTED : OK;
}

} // namespace

Action prepare_logits(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_model(app, options->model);
    add_text(app, "--tokens", options->tokens, "IDS", "Token ids, with commas between them (required)");
    add_path(app, "-o,--output", options->output, "FILE.safetensors",
             "The file to write (required): F32, 'logits' (positions, vocabulary) and the taps");
    add_texts(app, "--tap", options->taps, "NAME",
              "Keep these intermediate tensors too; * stands for anything");
    add_context(app, options->model);
    add_loading(app, options->model);
    add_flag(app, "--reference", options->reference,
             "Use the slow CPU reference in double precision, not the device");
    return [options] { return logits(*options); };
}

} // namespace fathom::cli
