// What a tokenizer is, apart from the file it came from: the vocabulary in the byte-level alphabet, merges,
// added tokens and splits. Checked for form by its reader; Tokenizer checks that the parts agree with each
// other.
#pragma once

#include "base/token.h"
#include "text/gguf_vocabulary.h"
#include "text/split.h"

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct TokenizerSpec {
    struct Word {
        std::string text; // in the byte-level alphabet (see byte_level.h)
        Token id;
    };
    struct Merge {
        std::string left, right;
    };
    struct Added {
        std::string text; // as it stands in a text
        Token id;
        bool special, normalized;
    };
    std::string where; // file, for messages
    std::string vocab_key = "model.vocab", merges_key = "model.merges", added_key = "added_tokens";
    std::vector<Word> vocab;
    std::vector<Merge> merges; // in order of rank
    bool ranked = false;       // no list of merges: they follow from the ids, which are 0, 1, ... in `vocab`
    std::vector<Added> added;
    bool added_in_order = false; // the ids of added tokens must be those that Hugging Face would give them
    std::vector<SplitRule> splits;
    bool ignore_merges = false; // a piece that is an entry is that token, whatever merging would give
};

// Bytes of one added token, at most: bounds the work of finding them.
constexpr size_t LONGEST_ADDED = 1024;

// The readers. `where` is the path of the file, for messages. All throw Error for anything not understood.
TokenizerSpec read_tokenizer_json(std::string_view json, std::string_view where);
// `config`: the text of tokenizer_config.json, or empty; see Tokenizer::from_tiktoken.
TokenizerSpec read_tiktoken(std::string_view ranks, std::string_view where, std::string_view config,
                            std::string_view config_where);
TokenizerSpec read_gguf_vocabulary(const GgufVocabulary& vocabulary);

} // namespace fathom
