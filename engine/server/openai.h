// The OpenAI API as JSON: what a request asks for, and how answers and errors look. Nothing here knows
// sockets or models. Followed: the API reference of chat completions and completions, and what llama.cpp's
// server and the openai client libraries make of it.
#pragma once

#include "session/engine.h"
#include "text/conversation.h"
#include "text/grammar.h"

#include <nlohmann/json.hpp>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace fathom::server {

// An error in OpenAI's shape, with the HTTP status that belongs to it.
struct ApiError : std::runtime_error {
    unsigned status;
    std::string type, param; // "invalid_request_error"; the key at fault, or ""
    ApiError(unsigned http_status, std::string kind, const std::string& message, std::string key = "")
        : std::runtime_error(message), status(http_status), type(std::move(kind)), param(std::move(key)) {}
    nlohmann::json body() const;
};
ApiError bad_request(const std::string& message, const std::string& key);

// What a completion asks for; a chat's conversation, or a text.
struct CompletionRequest {
    bool chat = false;
    Conversation conversation; // chat
    std::string prompt;        // else
    std::vector<Token> prompt_tokens;
    SamplingParams sampling;
    uint32_t max_tokens = 0; // 0: to the end of the context
    uint32_t n = 1;
    std::vector<std::string> stop;
    uint32_t top_logprobs = 0;
    bool logprobs = false, stream = false, stream_usage = false, echo = false;
    std::shared_ptr<const Grammar> grammar; // that the answer is kept to; none: it is free
    bool calls = false;                     // calls of tools are read out of the answer
    // A call must come: of any tool, or of the one that is named. The grammar for it is the chat format's.
    std::optional<std::string> must_call;
    bool cache_prompt = true; // take what is kept of an earlier prompt, and keep this one
};

// Throws ApiError (400) for what is malformed, out of range or not supported, by key. Keys that are not known
// are let pass, as other servers do.
CompletionRequest parse_completion(const std::string& body, bool chat);

struct Usage {
    uint32_t prompt = 0, cached = 0, completion = 0; // cached: of the prompt, not read again
};

// One token of an answer with those that it was chosen from.
struct TokenLogprob {
    std::string text; // its bytes
    float logprob = 0;
    std::vector<std::pair<std::string, float>> top;
};

struct Choice {
    std::string text, reasoning;
    std::vector<TokenLogprob> logprobs;
    std::vector<ToolCall> calls;
    std::string finish_reason; // "stop", "length", "tool_calls"; "" while it goes on
};

// Says of answers what they have in common.
struct Header {
    std::string id, model;
    int64_t created = 0;
    bool chat = false, logprobs = false;
};
nlohmann::json answer(const Header& header, const std::vector<Choice>& choices, const Usage& usage);
// A piece of a stream, as the data of one event: what `choice` has more of.
nlohmann::json piece(const Header& header, size_t index, const Choice& choice, bool first);
nlohmann::json usage_piece(const Header& header, const Usage& usage);
std::string dump(const nlohmann::json& json); // broken UTF-8 becomes U+FFFD

} // namespace fathom::server
