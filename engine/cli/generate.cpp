// Loading and generating; see generate.h.
#include "cli/generate.h"

#include "base/error.h"
#include "base/log.h"
#include "base/numbers.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>

namespace fathom::cli {

namespace {
using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}
} // namespace

std::optional<Token> LoadedModel::bos() const {
    return config().bos.empty() ? std::nullopt : std::optional(config().bos.front());
}

std::unique_ptr<Engine> load_engine(const ModelFiles& files, LoadOptions options) {
    ProgressBar bar("Loading " + printable(files.name), log::enabled(log::Level::info));
    options.progress = [&bar](uint64_t done, uint64_t total) { bar.update(done, total); };
    std::optional<ProgressBar> tuning; // made when it is needed, once for a device and its driver
    options.tuning = [&tuning](uint64_t done, uint64_t total) {
        if (!tuning) tuning.emplace("Trying kernels on this device, once", log::enabled(log::Level::info));
        tuning->update(done, total);
    };
    return std::make_unique<Engine>(files, options);
}

LoadedModel load_model(const ModelOptions& options) {
    const auto start = Clock::now();
    ModelFiles files = open_model(options.model);
    Tokenizer tokenizer = load_tokenizer(files); // before the weights: its errors should not take a minute
    LoadedModel out{std::move(files), std::move(tokenizer), nullptr};
    out.engine = load_engine(out.files, options.load());
    out.load_seconds = seconds_since(start);
    log::detail("loaded {} on {} in {:.2f} s", printable(out.files.name), out.engine->device_name(),
                out.load_seconds);
    return out;
}

SamplingParams with_known_tokens(SamplingParams params, const LoadedModel& model) {
    const uint32_t vocab = model.config().vocab_size;
    params.allowed.assign(div_up(vocab, 32), 0);
    uint32_t known = 0;
    for (Token token = 0; token < vocab; ++token) {
        if (!model.tokenizer.contains(token)) continue;
        params.allowed[token / 32] |= 1u << (token % 32);
        ++known;
    }
    if (known == vocab) params.allowed.clear();
    return params;
}

namespace {

void check_room(const Session& session, const LoadedModel& model, size_t prompt) {
    const uint32_t context = model.engine->context(), limit = model.config().max_position;
    if (session.position() + prompt < context) return;
    const std::string kept = session.position()
                                 ? fmt::format("{} and {} before it", prompt, session.position())
                                 : fmt::format("{}", prompt);
    throw Error(
        {.what = "the text does not fit the context",
         .expected = fmt::format("fewer than {} tokens", context),
         .got = kept + " tokens",
         .fix = context < limit
                    ? fmt::format("raise --context (the model's limit is {}) or shorten the text", limit)
                    : fmt::format("shorten the text: --context is at the model's limit of {}", limit)});
}

// The part of generate() after the prompt: samples and streams.
void decode(Session& session, const LoadedModel& model, const GenerateOptions& options,
            const InterruptScope& scope, const std::function<void(std::string_view)>& sink, Generated& out) {
    Utf8Stream stream;
    const auto emit = [&](std::string text) {
        if (text.empty()) return;
        out.text += text;
        sink(text);
    };
    for (;;) {
        out.end = End::interrupted;
        if (scope.interrupted()) break;
        out.end = End::max_tokens;
        if (options.max_tokens && out.tokens >= options.max_tokens) break;
        out.end = End::context_full;
        if (session.position() >= model.engine->context()) break;
        out.end = End::stop_token;
        const auto start = Clock::now();
        const Token token = session.next();
        (out.tokens == 0 ? out.first_token : out.decode) += seconds_since(start);
        ++out.tokens;
        if (options.routing) options.routing->add(session.take_records());
        const bool stop = std::find(options.stops.begin(), options.stops.end(), token) != options.stops.end();
        if (stop && !options.ignore_stops) break;
        if (!stop && !model.tokenizer.is_special(token)) emit(stream.push(model.tokenizer.bytes(token)));
    }
    emit(stream.finish());
}

} // namespace

Generated generate(Session& session, const LoadedModel& model, std::span<const Token> prompt,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& sink) {
    check_room(session, model, prompt.size());
    Generated out;
    const InterruptScope scope([&session] { session.cancel(); });
    try {
        const auto start = Clock::now();
        if (!prompt.empty()) session.feed(prompt);
        out.prefill = out.first_token = seconds_since(start);
        out.prompt_tokens = static_cast<uint32_t>(prompt.size());
        if (options.routing) options.routing->add(session.take_records());
        decode(session, model, options, scope, sink, out);
    } catch (const Cancelled&) {
        out.end = End::interrupted;
    }
    return out;
}

std::string speed_text(const Generated& generated) {
    const double seconds = generated.decode;
    if (generated.tokens < 2 || seconds <= 0) return fmt::format("{} tokens", generated.tokens);
    return fmt::format("{} tokens, {:.1f} tokens/s", generated.tokens, (generated.tokens - 1) / seconds);
}

} // namespace fathom::cli
