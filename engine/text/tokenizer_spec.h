// What a tokenizer is, apart from the file it came from: the vocabulary in the byte-level alphabet, merges,
// added tokens and splits. Checked for form by its reader; Tokenizer checks that the parts agree with each
// other.
#pragma once

#include "base/token.h"
#include "text/split.h"

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct TokenizerSpec {
    struct Word {
        std::string text; // in the byte-level alphabet (GPT-2's: a printable character for each byte)
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
    std::vector<Word> vocab;
    std::vector<Merge> merges; // in order of rank
    std::vector<Added> added;
    std::vector<SplitRule> splits;
    bool ignore_merges =
        false; // a piece that is a vocabulary entry is that token, whatever merging would give
};

// Reads the text of a tokenizer.json; `where` is its path, for messages. Throws Error for anything not
// understood.
TokenizerSpec read_tokenizer_json(std::string_view json, std::string_view where);

} // namespace fathom
