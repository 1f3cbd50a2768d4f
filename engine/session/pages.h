// Pages of the latent cache: who uses which. A page holds PAGE_TOKENS positions of one sequence; sequences
// that share a past share its full pages, and a page is copied when one of its users is about to write into
// it.
#pragma once

#include <cstdint>
#include <vector>

namespace fathom {

class PagePool {
  public:
    explicit PagePool(uint32_t pages);
    void require(uint32_t pages) const; // throws Error unless so many are free
    uint32_t take();                    // a free page, now used once. Throws Error when the cache is full
    void share(uint32_t page) { shared_ += ++uses_[page] == 2; }
    void release(uint32_t page);
    bool is_shared(uint32_t page) const { return uses_[page] > 1; }
    uint32_t available() const { return static_cast<uint32_t>(free_.size()); }
    uint32_t used() const { return static_cast<uint32_t>(uses_.size() - free_.size()); }
    uint32_t shared() const { return shared_; } // pages that several sequences use

  private:
    std::vector<uint32_t> free_, uses_;
    uint32_t shared_ = 0;
};

} // namespace fathom
