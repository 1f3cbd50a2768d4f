#include "text/grammar.h"

#include <algorithm>

namespace fathom {

Grammar::Rule Grammar::add_rule() {
    rules_.emplace_back();
    return static_cast<Rule>(rules_.size() - 1);
}

Grammar::Element Grammar::byte(unsigned char only) { return range(only, only); }

Grammar::Element Grammar::range(unsigned char first, unsigned char last) {
    Element element;
    for (unsigned b = first; b <= last; ++b) element.bytes.set(b);
    return element;
}

Grammar::Element Grammar::any_of(std::string_view bytes) {
    Element element;
    for (const char c : bytes) element.bytes.set(static_cast<unsigned char>(c));
    return element;
}

void Grammar::append(Sequence& to, std::string_view literal) {
    for (const char c : literal) to.push_back(byte(static_cast<unsigned char>(c)));
}

SortedVocabulary::SortedVocabulary(const Tokenizer& tokenizer) : vocab_size_(tokenizer.size()) {
    for (Token token = 0; token < tokenizer.size(); ++token)
        if (tokenizer.contains(token) && !tokenizer.bytes(token).empty())
            entries_.push_back({tokenizer.bytes(token), token, tokenizer.is_added(token), 0});
    std::sort(entries_.begin(), entries_.end(),
              [](const Entry& a, const Entry& b) { return a.bytes < b.bytes; });
    for (size_t i = 1; i < entries_.size(); ++i) {
        const std::string_view a = entries_[i - 1].bytes, b = entries_[i].bytes;
        while (entries_[i].shared < std::min(a.size(), b.size()) &&
               a[entries_[i].shared] == b[entries_[i].shared])
            ++entries_[i].shared;
    }
}

GrammarState::GrammarState(std::shared_ptr<const Grammar> grammar) : grammar_(std::move(grammar)) {
    Settled out;
    for (uint32_t a = 0; a < grammar_->alternatives(0).size(); ++a) settle(frame({0, a, 0, UNKNOWN}), out);
    now_ = intern(std::move(out.tops), out.ends);
}

uint32_t GrammarState::frame(const Frame& wanted) {
    const auto [it, added] = frame_numbers_.try_emplace(wanted, static_cast<uint32_t>(frames_.size()));
    if (added) frames_.push_back(wanted);
    return it->second;
}

// Goes on from a frame to where the next byte is: up where a rule is at its end, down where one is called.
void GrammarState::settle(uint32_t top, Settled& out) {
    if (!out.seen.insert(top).second) return;
    const Frame f = frames_[top];
    const Grammar::Sequence& sequence = grammar_->alternatives(f.rule)[f.alternative];
    if (f.element == sequence.size()) {
        if (f.below == UNKNOWN)
            out.ends = true;
        else
            settle(f.below, out);
        return;
    }
    const Grammar::Element& element = sequence[f.element];
    if (!element.rule) {
        out.tops.push_back(top);
        return;
    }
    const bool last = f.element + 1 == sequence.size(); // nothing to come back to: stacks stay shallow
    const uint32_t below = last ? f.below : frame({f.rule, f.alternative, f.element + 1, f.below});
    for (uint32_t a = 0; a < grammar_->alternatives(*element.rule).size(); ++a)
        settle(frame({*element.rule, a, 0, below}), out);
}

uint32_t GrammarState::intern(std::vector<uint32_t> tops, bool ends) {
    std::sort(tops.begin(), tops.end());
    tops.erase(std::unique(tops.begin(), tops.end()), tops.end());
    const auto [it, added] = state_numbers_.try_emplace({tops, ends}, static_cast<uint32_t>(states_.size()));
    if (added) {
        State& state = states_.emplace_back();
        state.tops = std::move(tops);
        state.ends = ends;
        state.next.fill(UNKNOWN);
    }
    return it->second;
}

uint32_t GrammarState::step(uint32_t from, unsigned char byte) {
    if (states_[from].next[byte] != UNKNOWN) return states_[from].next[byte];
    Settled out;
    const std::vector<uint32_t> before = states_[from].tops;
    for (const uint32_t top : before) {
        const Frame f = frames_[top];
        if (!grammar_->alternatives(f.rule)[f.alternative][f.element].bytes[byte]) continue;
        settle(frame({f.rule, f.alternative, f.element + 1, f.below}), out);
    }
    const uint32_t next = out.tops.empty() && !out.ends ? DEAD : intern(std::move(out.tops), out.ends);
    return states_[from].next[byte] = next;
}

bool GrammarState::accept(std::string_view bytes) {
    uint32_t state = now_;
    for (const char c : bytes) {
        state = step(state, static_cast<unsigned char>(c));
        if (state == DEAD) return false;
    }
    now_ = state;
    return true;
}

const std::vector<uint32_t>& GrammarState::mask(const SortedVocabulary& vocabulary) {
    if (!states_[now_].mask.empty()) return states_[now_].mask;
    std::vector<uint32_t> mask((vocabulary.vocab_size() + 31) / 32);
    std::vector<uint32_t> path{now_}; // path[n]: the state after n bytes, as far as there is one
    for (const SortedVocabulary::Entry& entry : vocabulary.entries()) {
        if (path.size() <= entry.shared) continue; // dead within what it begins with as the one before
        path.resize(entry.shared + 1);
        while (path.size() <= entry.bytes.size()) {
            const uint32_t next = step(path.back(), static_cast<unsigned char>(entry.bytes[path.size() - 1]));
            if (next == DEAD) break;
            path.push_back(next);
        }
        if (entry.added && !grammar_->marks) continue;
        if (path.size() == entry.bytes.size() + 1) mask[entry.token / 32] |= 1u << entry.token % 32;
    }
    return states_[now_].mask = std::move(mask);
}

} // namespace fathom
