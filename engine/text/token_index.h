// Text to token: open addressing, since the nodes of a std::unordered_map cost half the loading time. The
// texts are views of what the caller keeps.
#pragma once

#include "base/token.h"

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

namespace fathom {

class TokenIndex {
  public:
    bool emplace(std::string_view text, Token id) { // false: there already
        if (2 * (count_ + 1) > slots_.size()) grow();
        const size_t hash = std::hash<std::string_view>()(text);
        Slot& slot = slots_[place(text, hash)];
        if (slot.text) return false;
        slot = {text.data(), static_cast<uint32_t>(text.size()), static_cast<uint32_t>(hash >> 32), id};
        ++count_;
        return true;
    }
    std::optional<Token> find(std::string_view text) const {
        const Slot& slot = slots_[place(text, std::hash<std::string_view>()(text))];
        return slot.text ? std::optional(slot.id) : std::nullopt;
    }

  private:
    struct Slot {
        const char* text = nullptr; // null: empty
        uint32_t length = 0;
        uint32_t tag = 0; // of the hash: tells nearly all other texts apart without a look at them
        Token id = 0;
    };
    size_t place(std::string_view text, size_t hash) const {
        for (size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
            const Slot& slot = slots_[at];
            if (!slot.text || (slot.tag == hash >> 32 && std::string_view(slot.text, slot.length) == text))
                return at;
        }
    }
    void grow() {
        std::vector<Slot> old(4 * slots_.size());
        old.swap(slots_);
        for (const Slot& slot : old) {
            const std::string_view text(slot.text, slot.length);
            if (slot.text) slots_[place(text, std::hash<std::string_view>()(text))] = slot;
        }
    }

    std::vector<Slot> slots_ = std::vector<Slot>(16); // a power of two, at most half of them full
    size_t count_ = 0;
};

} // namespace fathom
