// Byte-level BPE from whichever file a model brings: text to tokens and back, byte-exact both ways. Splits
// run through PCRE2 (UTF and UCP on, one piece at a time as the whole subject); merging is near-linear in the
// length of a piece. Anything in a file that is not understood is an Error, never skipped.
#pragma once

#include "base/token.h"

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// Which added tokens encode() sees in a text; the others are plain text to it. Letters are always seen: the
// tokenizers of 2023 have ü, ö, ú and ten more as added tokens, since the byte that the byte-level alphabet
// gives such a character (0xFC for ü) occurs in no UTF-8 and their vocabularies left it out.
enum class Added {
    none,     // no names: for what a person typed, where a role's token must not be forged
    ordinary, // those not marked special
    all,
};

struct GgufVocabulary; // gguf_vocabulary.h

class Tokenizer {
  public:
    // Parses the text of a tokenizer.json; `where` is its path, for messages.
    static Tokenizer from_json(std::string_view json, std::string_view where);
    // Parses the text of a rank file (tiktoken.model of Moonlight and Kimi; their splits). `config` is the
    // text of the tokenizer_config.json beside it, which names special tokens; without it ("") there are
    // none.
    static Tokenizer from_tiktoken(std::string_view ranks, std::string_view where, std::string_view config,
                                   std::string_view config_where);
    static Tokenizer from_gguf(const GgufVocabulary& vocabulary);
    Tokenizer(Tokenizer&&) noexcept;
    Tokenizer& operator=(Tokenizer&&) noexcept;
    ~Tokenizer();

    // Tokens of `text`, without BOS: first the added tokens in it (leftmost, longest), then BPE on what lies
    // between. Invalid UTF-8 is encoded byte by byte. Safe from any thread. Throws Error when a byte has no
    // token, a regex of the file exceeds its match limit on this text, or the text is over 2 GiB.
    std::vector<Token> encode(std::string_view text, Added added = Added::all) const;

    // The bytes one token stands for (added tokens: their name). Throws Error for an id that does not exist;
    // a model may produce one where its vocabulary is padded past the tokenizer's.
    std::string_view bytes(Token token) const;
    std::string decode(std::span<const Token> tokens) const; // the concatenation; may not be valid UTF-8

    bool contains(Token token) const;
    size_t size() const;                // largest id + 1; ids may have holes
    bool is_added(Token token) const;   // has a name, rather than bytes that occur in texts
    bool is_special(Token token) const; // added, and marked special by its file
    // An added token by its name, or a vocabulary entry by the bytes it stands for (" the", not "Ġthe").
    std::optional<Token> find(std::string_view token) const;

  private:
    struct Impl;
    explicit Tokenizer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// Turns a stream of token bytes into printable text: an incomplete UTF-8 sequence at the end is held back
// until the rest comes, invalid bytes become U+FFFD (one for each maximal ill-formed part, as Unicode
// recommends).
class Utf8Stream {
  public:
    std::string push(std::string_view bytes); // text that is complete now
    std::string finish();                     // U+FFFD for what is left, or nothing

  private:
    std::string held_;
};

} // namespace fathom
