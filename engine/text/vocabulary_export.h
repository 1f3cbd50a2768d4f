// A tokenizer as the keys of a GGUF file hold it: the reverse of gguf_vocabulary.h.
#pragma once

#include "text/tokenizer_spec.h"

#include <cstdint>

namespace fathom {

struct ExportedVocabulary {
    std::string pre;                 // how texts are cut before merging, by llama.cpp's name for it
    std::vector<std::string> tokens; // by id, as many as the model has
    std::vector<int32_t> types;      // of each
    std::vector<std::string> merges; // "LEFT RIGHT" in order of rank
};

// For a model with `size` ids; those without a token are marked unused. Where ranks of tokens stand for
// merges, each token's last merge is found by merging its bytes. Throws Error when the tokenizer has
// something that GGUF cannot say: an id beyond the model, or splits that none of the family's tokenizers has.
ExportedVocabulary export_vocabulary(const TokenizerSpec& spec, uint32_t size);

} // namespace fathom
