// Byte-level BPE from a Hugging Face tokenizer.json: text to tokens and back, byte-exact both ways. Splits run through
// PCRE2 (UTF and UCP on, one piece at a time as the whole subject); merging is near-linear in the length of a piece.
// Anything in the file that is not understood is an Error, never skipped.
#pragma once

#include "base/token.h"

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

class Tokenizer {
  public:
    // Parses the text of a tokenizer.json; `where` is its path, for messages.
    static Tokenizer from_json(std::string_view json, std::string_view where);
    Tokenizer(Tokenizer&&) noexcept;
    Tokenizer& operator=(Tokenizer&&) noexcept;
    ~Tokenizer();

    // Tokens of `text`, without BOS. Added tokens in the text become single tokens; with `special` false those marked
    // special (BOS, EOS, ...) are treated as plain text, for what a user typed. Invalid UTF-8 is encoded byte by byte.
    std::vector<Token> encode(std::string_view text, bool special = true) const;

    // The bytes one token stands for (special tokens: their name). Throws Error for an id that does not exist.
    std::string_view bytes(Token token) const;
    std::string decode(std::span<const Token> tokens) const; // the concatenation; may not be valid UTF-8

    size_t size() const;                                     // largest id + 1
    bool is_special(Token token) const;                      // marked special in added_tokens
    std::optional<Token> find(std::string_view token) const; // an added token or vocabulary entry by its content

  private:
    struct Impl;
    explicit Tokenizer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// Turns a stream of token bytes into printable text: an incomplete UTF-8 sequence at the end is held back until the
// rest comes, invalid bytes become U+FFFD (one for each maximal ill-formed part, as Unicode recommends).
class Utf8Stream {
  public:
    std::string push(std::string_view bytes); // text that is complete now
    std::string finish();                     // U+FFFD for what is left, or nothing

  private:
    std::string held_;
};

} // namespace fathom
