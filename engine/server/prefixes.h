// Sessions that were written to their end, kept for prompts that begin as they do: such a prompt is not read
// again. The one that was of no use for the longest goes first.
#pragma once

#include "session/engine.h"

#include <list>
#include <span>

namespace fathom::server {

constexpr uint64_t CACHE_PAGE = 64; // the cache is given out in pages of so many tokens
constexpr uint64_t in_pages(uint64_t tokens) { return (tokens + CACHE_PAGE - 1) / CACHE_PAGE * CACHE_PAGE; }

// Not safe for several threads at once.
class Prefixes {
  public:
    static constexpr size_t MOST = 14;           // sessions
    static constexpr uint32_t LEAST_SHARED = 16; // tokens: for fewer it is not worth it

    struct Found {
        const Session* session = nullptr; // nothing begins so; else there until it is forgotten
        uint32_t tokens = 0;              // that both begin with, fewer than the prompt has
    };
    Found find(std::span<const Token> prompt);
    void keep(Session session);
    bool forget_oldest(); // false: there is none
    void clear() { kept_.clear(), tokens_ = 0; }
    uint64_t tokens() const { return tokens_; } // of cache that they hold at most
    size_t size() const { return kept_.size(); }

  private:
    using Kept = std::list<Session>; // last used first
    void erase(Kept::iterator it);
    Kept kept_;
    uint64_t tokens_ = 0;
};

} // namespace fathom::server
