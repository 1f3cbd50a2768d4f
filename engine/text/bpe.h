// Byte-pair merging: within one piece, the pair of neighbours with the lowest rank is merged, the leftmost
// among equals, until no pair has a rank. Near-linear: short pieces by scanning, long ones with a heap over a
// linked list, same result.
#pragma once

#include "base/token.h"
#include "text/token_index.h"

#include <array>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace fathom {

// What two neighbours merge into, and how soon: the lowest rank goes first. Equal ranks give equal bytes.
struct Merge {
    static constexpr uint32_t NONE = UINT32_MAX;
    uint32_t rank = NONE; // NONE: they do not merge
    Token token = 0;
};

class Merges {
  public:
    virtual ~Merges() = default;
    virtual Merge find(Token left, Token right) const = 0;
};

// Merges from a list in order of rank, as in tokenizer.json and GGUF.
class ListedMerges final : public Merges {
  public:
    struct Entry {
        Token left, right, merged;
    };
    // Throws Error naming `where` for a pair that comes twice, or too many merges.
    ListedMerges(std::span<const Entry> entries, std::string_view where);
    Merge find(Token left, Token right) const override;

  private:
    struct Slot { // of an open-addressing table; empty when the rank is NONE
        uint64_t pair = 0;
        Merge merge;
    };
    size_t place(uint64_t pair) const;

    std::vector<Slot> slots_; // a power of two, at most half of them full
    int shift_;
};

// Merges of a rank file (tiktoken): any two tokens whose joined bytes are a token merge into it, and its id
// is their rank.
class RankedMerges final : public Merges {
  public:
    static constexpr size_t LONGEST = 1024; // bytes of a token: bounds the work for one pair

    // `words`: the bytes of token 0, 1, ..., each at most LONGEST; `index`: the same backwards. Both, and
    // what they view, outlive the merges.
    RankedMerges(std::vector<std::string_view> words, const TokenIndex& index);
    Merge find(Token left, Token right) const override;

  private:
    std::vector<std::string_view> words_;
    const TokenIndex& index_;
    size_t longest_ = 0;
};

class Bpe {
  public:
    // `bytes`: the token of each byte, and which exist.
    Bpe(const std::array<Token, 256>& bytes, const std::array<bool, 256>& present,
        std::unique_ptr<const Merges> merges);

    // Working memory of encode; made once for each encoded text.
    struct Scratch {
        std::vector<uint32_t> next, previous, rank;
        std::vector<Token> token, merged;
        std::vector<uint64_t> heap;
    };
    // Appends the tokens of `piece` (at most 4 GiB). Throws Error for a byte that has no token.
    void encode(std::string_view piece, std::vector<Token>& out, Scratch& scratch) const;

  private:
    void look_up(Scratch& scratch, size_t at, Token left, Token right) const;
    void merge_short(Scratch& scratch) const;
    void merge_long(Scratch& scratch) const;

    std::array<Token, 256> bytes_;
    std::array<bool, 256> present_;
    std::unique_ptr<const Merges> merges_;
};

} // namespace fathom
