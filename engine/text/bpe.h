// Byte-pair merging: within one piece, the pair of neighbours with the lowest rank is merged, the leftmost
// among equals, until no pair has a rank. Near-linear: short pieces by scanning, long ones with a heap over a
// linked list, same result.
#pragma once

#include "base/token.h"

#include <array>
#include <span>
#include <string_view>
#include <vector>

namespace fathom {

class Bpe {
  public:
    static constexpr uint32_t NONE = UINT32_MAX;

    struct Merge {
        Token left, right, merged;
    };
    // `bytes`: the token of each byte, and which exist; `merges`: in order of rank. Throws Error naming
    // `where` for a pair that comes twice, or too many merges.
    Bpe(const std::array<Token, 256>& bytes, const std::array<bool, 256>& present,
        std::span<const Merge> merges, std::string_view where);

    // Working memory of encode; made once for each encoded text.
    struct Scratch {
        std::vector<uint32_t> next, previous, rank;
        std::vector<Token> token, merged;
        std::vector<uint64_t> heap;
    };
    // Appends the tokens of `piece` (at most 4 GiB). Throws Error for a byte that has no token.
    void encode(std::string_view piece, std::vector<Token>& out, Scratch& scratch) const;

  private:
    struct Slot { // of an open-addressing table; empty when rank is NONE
        uint64_t pair = 0;
        uint32_t rank = NONE;
        Token merged = 0;
    };
    const Slot& find(Token left, Token right) const;
    void look_up(Scratch& scratch, size_t at, Token left, Token right) const;
    void merge_short(Scratch& scratch) const;
    void merge_long(Scratch& scratch) const;

    std::array<Token, 256> bytes_;
    std::array<bool, 256> present_;
    std::vector<Slot> slots_; // a power of two, at most half of them full
    int shift_;
};

} // namespace fathom
