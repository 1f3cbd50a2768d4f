// `fathom run`: continues one text and ends. Only generated text goes to stdout.
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/files.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/recorder.h"
#include "cli/stats.h"
#include "cli/terminal.h"

#include <fmt/format.h>
#include <memory>
#include <unistd.h>

namespace fathom::cli {

namespace {

struct Options {
    ModelOptions model;
    SamplingOptions sampling;
    std::optional<std::string> prompt;
    std::filesystem::path file, stats;
    uint32_t max_tokens = 256;
    bool ignore_eos = false, routing = false, profile = false;
};

std::string without_last_newline(std::string text) {
    if (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

std::string read_prompt(const Options& options) {
    if (options.prompt && !options.file.empty()) throw UsageError("--prompt and --file exclude each other");
    if (options.prompt) return *options.prompt;
    if (!options.file.empty()) return without_last_newline(read_text(options.file));
    if (is_terminal(STDIN_FILENO))
        throw UsageError("there is no prompt: give -p TEXT or -f FILE, or pipe a text into it");
    const std::string text = without_last_newline(read_stdin());
    if (text.empty())
        throw UsageError("there is no prompt: standard input is empty (-p '' begins from nothing)");
    return text;
}

std::vector<Token> encode_prompt(const LoadedModel& model, const std::string& text) {
    std::vector<Token> tokens = model.tokenizer.encode(text);
    const auto bos = model.bos();
    if (bos && (tokens.empty() || tokens.front() != *bos)) tokens.insert(tokens.begin(), *bos);
    if (tokens.empty())
        throw Error(
            {.what = "the prompt is empty", .fix = "this model has no token to begin from: give it a text"});
    return tokens;
}

void report(const Generated& generated, const LoadedModel& model, uint64_t seed) {
    if (generated.end == End::context_full)
        log::info("stopped: the context of {} tokens is full (--context)", model.engine->context());
    log::info("{}, seed {}", speed_text(generated), seed);
}

void write_stats(const std::filesystem::path& path, const Generated& generated, const LoadedModel& model,
                 uint64_t seed) {
    AtomicFile file(path);
    file.write(stats_json({.model = model.files.name,
                           .device = model.engine->device_name(),
                           .seed = seed,
                           .load_seconds = model.load_seconds,
                           .generated = generated,
                           .dispatches_per_token = model.engine->dispatches_per_token(),
                           .memory = model.engine->memory()}));
    file.commit();
}

// Kernel by kernel, the slowest first.
void print_profile(const StepProfile& profile) {
    struct Kernel {
        std::string name;
        uint32_t launches = 0;
        double seconds = 0, bytes = 0;
    };
    std::vector<Kernel> kernels;
    double total = 0;
    for (const StepProfile::Launch& launch : profile.launches) {
        auto it = std::find_if(kernels.begin(), kernels.end(),
                               [&](const Kernel& k) { return k.name == launch.kernel; });
        if (it == kernels.end()) it = kernels.insert(kernels.end(), {launch.kernel});
        ++it->launches;
        it->seconds += launch.seconds, it->bytes += static_cast<double>(launch.bytes);
        total += launch.seconds;
    }
    if (kernels.empty()) log::warning("this device has no clock for kernels: no profile");
    std::sort(kernels.begin(), kernels.end(),
              [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
    for (const Kernel& kernel : kernels) {
        const double rate = kernel.bytes / kernel.seconds;
        fmt::print(stderr, "{:>10.1f} us {:>5.1f} %  {:>4} x {:<20} {:>8.2f} GB/s{}\n", kernel.seconds * 1e6,
                   100 * kernel.seconds / total, kernel.launches, kernel.name, 1e-9 * rate,
                   profile.read_rate > 0
                       ? fmt::format(", {:.0f} % of what the memory gives", 100 * rate / profile.read_rate)
                       : "");
    }
}

int run(const Options& options) {
    const std::string prompt = read_prompt(options);
    const LoadedModel model = load_model(options.model);
    const std::vector<Token> tokens = encode_prompt(model, prompt);
    Session session = model.engine->open();
    session.sampling() = with_known_tokens(options.sampling.resolve(), model);
    RoutingSummary routing(model.engine->trace_shape());
    Recorder recorder(model, options.model, session.sampling());
    const bool echo = is_terminal(STDOUT_FILENO) && log::enabled(log::Level::info);
    if (echo) write_out(Style::of(STDOUT_FILENO).bold(without_controls(prompt)));

    const Generated generated = generate(session, model, tokens,
                                         {.max_tokens = options.max_tokens,
                                          .ignore_stops = options.ignore_eos,
                                          .stops = model.config().eos,
                                          .routing = &routing},
                                         write_generated);
    const InterruptScope scope; // what follows is short, and files are written whole
    recorder.finish();
    if (is_terminal(STDOUT_FILENO) && (generated.text.empty() || generated.text.back() != '\n'))
        write_out("\n");
    if (options.routing)
        fmt::print(stderr, "{}", routing.table(Style::of(STDERR_FILENO), terminal_width(STDERR_FILENO)));
    if (options.profile) print_profile(model.engine->profile());
    report(generated, model, session.sampling().seed);
    if (!options.stats.empty()) write_stats(options.stats, generated, model, session.sampling().seed);
    if (generated.end == End::interrupted) fmt::print(stderr, "interrupted\n");
    return generated.end == End::interrupted || scope.interrupted() ? INTERRUPTED : OK;
}

} // namespace

Action prepare_run(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_model(app, options->model);
    add_text(app, "-p,--prompt", options->prompt, "TEXT", "The text to continue");
    add_path(app, "-f,--file", options->file, "FILE",
             "Read the text from FILE (one newline at its end is left out)");
    add_count(app, "-n,--max-tokens", options->max_tokens,
              "Stop after N tokens; 0: only at the end of text or context");
    add_sampling(app, options->sampling);
    add_flag(app, "--ignore-eos", options->ignore_eos, "Go on where the model says the text ends");
    add_context(app, options->model);
    add_loading(app, options->model);
    add_trace(app, options->model);
    add_watch(app, options->model);
    add_flag(app, "--routing", options->routing, "Show how the experts were used, on stderr");
    add_flag(app, "--profile", options->profile,
             "Show where one token's time goes, kernel by kernel, on stderr");
    add_path(app, "--stats", options->stats, "FILE.json", "Write tokens, seconds and memory to FILE");
    return [options] { return run(*options); };
}

} // namespace fathom::cli
