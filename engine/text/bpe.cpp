// Byte-pair merging; see bpe.h.
#include "text/bpe.h"

#include "base/error.h"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

namespace fathom {

namespace {

// Up to this many bytes, finding the lowest rank by scanning beats a heap.
constexpr size_t SHORT_PIECE = 32;

constexpr uint32_t NONE = Merge::NONE;

uint64_t pair_of(Token left, Token right) { return uint64_t{left} << 32 | right; }

} // namespace

ListedMerges::ListedMerges(std::span<const Entry> entries, std::string_view where)
    : slots_(std::bit_ceil(2 * entries.size() + 2)), shift_(64 - std::countr_zero(slots_.size())) {
    if (entries.size() >= NONE) throw Error({.what = "too many merges", .where = std::string(where)});
    for (size_t rank = 0; rank < entries.size(); ++rank) {
        const uint64_t pair = pair_of(entries[rank].left, entries[rank].right);
        Slot& slot = slots_[place(pair)];
        if (slot.merge.rank != NONE)
            throw Error({.what = "the same merge twice",
                         .where = fmt::format("{}[{}]", where, rank),
                         .got = fmt::format("the pair of {}[{}]", where, slot.merge.rank)});
        slot = {pair, {static_cast<uint32_t>(rank), entries[rank].merged}};
    }
}

// Where `pair` is, or the empty slot where it would be.
size_t ListedMerges::place(uint64_t pair) const {
    size_t at = (pair ^ pair >> 29) * 0x9E3779B97F4A7C15u >> shift_;
    while (slots_[at].merge.rank != NONE && slots_[at].pair != pair) at = (at + 1) & (slots_.size() - 1);
    return at;
}

Merge ListedMerges::find(Token left, Token right) const { return slots_[place(pair_of(left, right))].merge; }

RankedMerges::RankedMerges(std::vector<std::string_view> words, const TokenIndex& index)
    : words_(std::move(words)), index_(index) {
    for (const std::string_view word : words_) longest_ = std::max(longest_, word.size());
    check(longest_ <= LONGEST, "tokens of a rank file within their limit");
}

Merge RankedMerges::find(Token left, Token right) const {
    const std::string_view first = words_[left], second = words_[right];
    if (first.size() + second.size() > longest_) return {};
    std::array<char, LONGEST> joined;
    std::copy(second.begin(), second.end(), std::copy(first.begin(), first.end(), joined.begin()));
    const std::optional<Token> found = index_.find({joined.data(), first.size() + second.size()});
    return found ? Merge{*found, *found} : Merge{};
}

Bpe::Bpe(const std::array<Token, 256>& bytes, const std::array<bool, 256>& present,
         std::unique_ptr<const Merges> merges)
    : bytes_(bytes), present_(present), merges_(std::move(merges)) {}

// Sets rank and result of the pair whose left part is symbol `at`.
void Bpe::look_up(Scratch& scratch, size_t at, Token left, Token right) const {
    const Merge merge = merges_->find(left, right);
    scratch.rank[at] = merge.rank;
    scratch.merged[at] = merge.token;
}

void Bpe::encode(std::string_view piece, std::vector<Token>& out, Scratch& scratch) const {
    check(piece.size() < NONE, "a piece of less than 4 GiB");
    scratch.token.clear();
    for (const char c : piece) {
        const auto byte = static_cast<unsigned char>(c);
        if (!present_[byte])
            throw Error(
                {.what = "the tokenizer has no token for a byte of this text",
                 .expected = "well-formed UTF-8 (the vocabulary leaves out bytes that never occur in it)",
                 .got = fmt::format("byte 0x{:02X}", byte)});
        scratch.token.push_back(bytes_[byte]);
    }
    const size_t count = scratch.token.size();
    if (count > 1) {
        scratch.rank.assign(count, NONE); // the last symbol begins no pair
        scratch.merged.resize(count);
        for (size_t i = 0; i + 1 < count; ++i) look_up(scratch, i, scratch.token[i], scratch.token[i + 1]);
        count <= SHORT_PIECE ? merge_short(scratch) : merge_long(scratch);
    }
    out.insert(out.end(), scratch.token.begin(), scratch.token.end());
}

void Bpe::merge_short(Scratch& scratch) const {
    std::vector<Token>& token = scratch.token;
    for (size_t count = token.size(); count > 1; --count) {
        const auto lowest = std::min_element(scratch.rank.begin(), scratch.rank.begin() + (count - 1));
        if (*lowest == NONE) break;
        const size_t at = lowest - scratch.rank.begin();
        token[at] = scratch.merged[at];
        token.erase(token.begin() + at + 1);
        for (size_t i = at + 1; i + 1 < count; ++i) {
            scratch.rank[i] = scratch.rank[i + 1];
            scratch.merged[i] = scratch.merged[i + 1];
        }
        scratch.rank[at] = NONE;
        if (at + 1 < token.size()) look_up(scratch, at, token[at], token[at + 1]);
        if (at > 0) look_up(scratch, at - 1, token[at - 1], token[at]);
    }
}

// Symbols stay where they began, linked to their neighbours; a symbol merged into the one before it is
// unlinked. A heap entry is (rank, position) in one number, so that the order is the right one, and is stale
// when the symbol's rank is another by now (equal ranks give equal bytes, so that an equal rank is still
// right).
void Bpe::merge_long(Scratch& scratch) const {
    std::vector<uint32_t>&next = scratch.next, &previous = scratch.previous, &rank = scratch.rank;
    std::vector<Token>&token = scratch.token, &merged = scratch.merged;
    std::vector<uint64_t>& heap = scratch.heap;
    const auto count = static_cast<uint32_t>(token.size());
    next.resize(count);
    previous.resize(count);
    heap.clear();
    for (uint32_t i = 0; i < count; ++i) {
        next[i] = i + 1 < count ? i + 1 : NONE;
        previous[i] = i > 0 ? i - 1 : NONE;
        if (rank[i] != NONE) heap.push_back(uint64_t{rank[i]} << 32 | i);
    }
    std::make_heap(heap.begin(), heap.end(), std::greater<>());
    const auto renew = [&](uint32_t at) {
        rank[at] = NONE;
        if (next[at] == NONE) return;
        look_up(scratch, at, token[at], token[next[at]]);
        if (rank[at] == NONE) return;
        heap.push_back(uint64_t{rank[at]} << 32 | at);
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
    };
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end(), std::greater<>());
        const auto at = static_cast<uint32_t>(heap.back());
        const auto its_rank = static_cast<uint32_t>(heap.back() >> 32);
        heap.pop_back();
        if (rank[at] != its_rank) continue;
        const uint32_t gone = next[at];
        token[at] = merged[at];
        next[at] = next[gone];
        if (next[gone] != NONE) previous[next[gone]] = at;
        rank[gone] = NONE;
        renew(at);
        if (previous[at] != NONE) renew(previous[at]);
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != NONE; i = next[i]) token[kept++] = token[i];
    token.resize(kept);
}

} // namespace fathom
