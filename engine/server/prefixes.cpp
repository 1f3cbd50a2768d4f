#include "server/prefixes.h"

#include <algorithm>
#include <utility>

namespace fathom::server {

namespace {

uint32_t shared(std::span<const Token> a, std::span<const Token> b) {
    return static_cast<uint32_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

} // namespace

Prefixes::Found Prefixes::find(std::span<const Token> prompt) {
    Found best;
    auto found = kept_.end();
    for (auto it = kept_.begin(); it != kept_.end(); ++it) {
        const uint32_t n = std::min(shared(prompt, it->tokens()), static_cast<uint32_t>(prompt.size()) - 1);
        if (n > best.tokens) best = {&*it, n}, found = it;
    }
    if (best.tokens < LEAST_SHARED) return {};
    kept_.splice(kept_.begin(), kept_, found);
    return best;
}

void Prefixes::keep(Session session) {
    if (session.position() < LEAST_SHARED) return;
    // whatever is the beginning of this one is of no more use
    for (auto it = kept_.begin(); it != kept_.end();) {
        const auto old = it++;
        if (shared(old->tokens(), session.tokens()) == old->position()) erase(old);
    }
    while (kept_.size() >= MOST) erase(std::prev(kept_.end()));
    tokens_ += in_pages(session.position());
    kept_.push_front(std::move(session));
}

bool Prefixes::forget_oldest() {
    if (kept_.empty()) return false;
    erase(std::prev(kept_.end()));
    return true;
}

void Prefixes::erase(Kept::iterator it) {
    tokens_ -= in_pages(it->position());
    kept_.erase(it);
}

} // namespace fathom::server
