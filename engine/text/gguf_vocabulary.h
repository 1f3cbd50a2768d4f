// The vocabulary inside a GGUF file, as its keys tokenizer.ggml.* hold it. Whoever reads the file fills this
// in; Tokenizer::from_gguf makes a tokenizer of it. Everything is a view of the file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct GgufVocabulary {
    std::string where;                    // the file, for messages
    std::string_view model;               // tokenizer.ggml.model
    std::string_view pre;                 // .pre
    std::vector<std::string_view> tokens; // .tokens; a token's id is its place
    std::vector<int32_t> types;           // .token_type, one for each token
    std::vector<std::string_view> merges; // .merges: "LEFT RIGHT" in order of rank
};

} // namespace fathom
