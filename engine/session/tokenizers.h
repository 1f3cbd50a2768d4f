// Tokenizers from whatever a model brings: tokenizer.json, a rank file of tiktoken (Moonlight and Kimi), or
// the vocabulary inside a GGUF file.
#pragma once

#include "checkpoint/checkpoint.h"
#include "text/tokenizer.h"

#include <filesystem>
#include <optional>

namespace fathom {

// The tokenizer of a model. Throws Error when it has none.
Tokenizer load_tokenizer(const ModelFiles& files);

struct OpenedTokenizer {
    Tokenizer tokenizer;
    std::optional<Token> bos; // what a text begins with, if the files name it
};
// The same without the model: `path` is one of these files, or a folder that holds one (its weights may be
// missing); a tokenizer_config.json beside it is read too. The empty path means the embedded model. Throws
// Error.
OpenedTokenizer open_tokenizer(const std::filesystem::path& path);

} // namespace fathom
