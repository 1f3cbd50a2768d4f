// A model that is served, to API clients and to viewers; what it refers to must outlive it.
#pragma once

#include "session/engine.h"
#include "text/chat.h"
#include "text/tokenizer.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace fathom::server {

struct Served {
    Engine& engine;
    const Tokenizer& tokenizer;
    std::function<const ChatFormat&()> format; // throws Error where it is not known
    std::string name;
    std::optional<Token> bos;
    std::vector<uint32_t> allowed; // of tokens, as SamplingParams has it
    uint32_t cache_tokens = 0;     // that the engine's cache holds
    bool keep_prefixes = true;     // a prompt that begins as another did is not read again
};

} // namespace fathom::server
