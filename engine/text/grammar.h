// What a text may be, byte by byte: a context-free grammar, followed while the text grows, so that a model
// can be kept to it. Grammars of JSON are made by json_grammar.h.
#pragma once

#include "text/tokenizer.h"

#include <array>
#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fathom {

// Rules of alternatives of sequences, none of which may begin with its own rule. Rule 0 is the whole text.
class Grammar {
  public:
    using Rule = uint32_t;
    struct Element {
        std::bitset<256> bytes; // one of these, where `rule` is absent
        std::optional<Rule> rule;
    };
    using Sequence = std::vector<Element>;

    Rule add_rule();
    void add(Rule rule, Sequence alternative) { rules_[rule].push_back(std::move(alternative)); }
    const std::vector<Sequence>& alternatives(Rule rule) const { return rules_[rule]; }
    size_t size() const { return rules_.size(); }
    bool marks = false; // added tokens may stand for their names, too

    static Element byte(unsigned char only);
    static Element range(unsigned char first, unsigned char last);
    static Element any_of(std::string_view bytes);
    static Element of(Rule rule) { return {{}, rule}; }
    static void append(Sequence& to, std::string_view literal);

  private:
    std::vector<std::vector<Sequence>> rules_;
};

// A tokenizer's tokens in the order of their bytes, for masks.
class SortedVocabulary {
  public:
    explicit SortedVocabulary(const Tokenizer& tokenizer);
    struct Entry {
        std::string_view bytes;
        Token token;
        bool added;
        uint32_t shared; // bytes that it begins with as the one before it
    };
    std::span<const Entry> entries() const { return entries_; }
    size_t vocab_size() const { return vocab_size_; }

  private:
    std::vector<Entry> entries_;
    size_t vocab_size_ = 0;
};

// Where a text is in its grammar. Works out each state once: what is asked often costs a look.
class GrammarState {
  public:
    explicit GrammarState(std::shared_ptr<const Grammar> grammar);
    // Whether the text may go on so; the state is as before where it may not.
    bool accept(std::string_view bytes);
    bool may_end() const { return states_[now_].ends; }
    bool must_end() const { return states_[now_].tops.empty(); }
    // Bit t % 32 of word t / 32: whether token t may be next. Nothing of tokens that end a text.
    const std::vector<uint32_t>& mask(const SortedVocabulary& vocabulary);

  private:
    static constexpr uint32_t UNKNOWN = ~0u, DEAD = ~0u - 1;
    // A position within a rule, above those that called it: a stack that shares its lower part.
    struct Frame {
        Grammar::Rule rule;
        uint32_t alternative, element, below; // below: number of a frame, or UNKNOWN
        auto operator<=>(const Frame&) const = default;
    };
    struct State {
        std::vector<uint32_t> tops; // frames that stand before bytes
        bool ends = false;
        std::array<uint32_t, 256> next;
        std::vector<uint32_t> mask; // empty: not asked yet
    };
    uint32_t frame(const Frame& frame);
    struct Settled {
        std::vector<uint32_t> tops;
        bool ends = false;
        std::set<uint32_t> seen; // frames: many ways may lead to one, and a rule to itself
    };
    void settle(uint32_t top, Settled& out);
    uint32_t intern(std::vector<uint32_t> tops, bool ends);
    uint32_t step(uint32_t state, unsigned char byte);

    std::shared_ptr<const Grammar> grammar_;
    std::vector<Frame> frames_;
    std::map<Frame, uint32_t> frame_numbers_;
    std::vector<State> states_;
    std::map<std::pair<std::vector<uint32_t>, bool>, uint32_t> state_numbers_;
    uint32_t now_ = 0;
};

} // namespace fathom
