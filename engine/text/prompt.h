// A prompt under construction: marks, each one token, and text between them. As a string everything is
// spelled out; as tokens a mark is its id and text is plain throughout, so that no message forges a mark.
#pragma once

#include "text/tokenizer.h"

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

class Prompt {
  public:
    Prompt& mark(std::string_view name);
    Prompt& text(std::string_view words); // joined to the text before it, so that tokens may cross the seam
    // Text of the format's own in which <think> and </think> are marks, and where the tokenizer has them
    // ｜DSML｜ (V4's has, that of V3.2 spells it) and GLM's tags of calls and results.
    Prompt& fixed(std::string_view words);

    std::string str() const;
    // Throws Error when the tokenizer lacks a mark.
    std::vector<Token> encode(const Tokenizer& tokenizer) const;

  private:
    enum class Kind { text, mark, mark_or_text };
    struct Piece {
        Kind kind;
        std::string text;
    };
    std::vector<Piece> pieces_;
};

// The token of a mark; Error when the tokenizer has none.
Token find_mark(const Tokenizer& tokenizer, std::string_view name);

} // namespace fathom
