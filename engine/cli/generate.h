// A loaded model that people talk to, and the loop that turns a prompt into streamed text: shared by the
// story, run and chat.
#pragma once

#include "cli/options.h"
#include "cli/routing_summary.h"
#include "session/engine.h"
#include "session/tokenizers.h"

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::cli {

// Members in order of construction: the engine may look into the files' mapping while it lives.
struct LoadedModel {
    ModelFiles files;
    Tokenizer tokenizer;
    std::unique_ptr<Engine> engine;
    double load_seconds = 0;

    const ModelConfig& config() const { return engine->config(); }
    std::optional<Token> bos() const; // the token a text begins with, if the model has one
};

// Opens, checks and loads; shows a bar when that takes over a second.
LoadedModel load_model(const ModelOptions& options);
std::unique_ptr<Engine> load_engine(const ModelFiles& files, LoadOptions options);

// `params` with the ids masked that the tokenizer has no text for (vocabularies are padded).
SamplingParams with_known_tokens(SamplingParams params, const LoadedModel& model);

enum class End : uint8_t { stop_token, max_tokens, context_full, interrupted };

struct GenerateOptions {
    uint32_t max_tokens = 0; // 0: until a stop token or the end of the context
    bool ignore_stops = false;
    std::span<const Token> stops;
    RoutingSummary* routing = nullptr; // receives the routing of every token processed
};

struct Generated {
    std::string text; // what the sink received, in all
    uint32_t prompt_tokens = 0, tokens = 0;
    End end = End::max_tokens;
    double prefill = 0, first_token = 0, decode = 0; // seconds; the second includes the first
};

// Feeds `prompt`, then samples until one of `options` says stop, the context is full or Ctrl-C is pressed;
// `sink` gets text as soon as it is whole characters. Special tokens are not text. A prompt that leaves no
// room is an Error that names --context. After a Ctrl-C during the prompt the session is as before.
Generated generate(Session& session, const LoadedModel& model, std::span<const Token> prompt,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& sink);

std::string speed_text(const Generated& generated); // "212 tokens, 98.1 tokens/s"

} // namespace fathom::cli
