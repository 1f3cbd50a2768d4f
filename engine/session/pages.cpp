// See pages.h.
#include "session/pages.h"

#include "base/error.h"
#include "params.h"

#include <fmt/format.h>

namespace fathom {

PagePool::PagePool(uint32_t pages) : uses_(pages) {
    for (uint32_t page = pages; page > 0; --page) free_.push_back(page - 1); // the lowest page is taken first
}

void PagePool::require(uint32_t pages) const {
    if (pages <= free_.size()) return;
    throw Error({.what = "the latent cache is full",
                 .expected = fmt::format("{} more pages of {} tokens", pages, PAGE_TOKENS),
                 .got = fmt::format("{} of {} pages in use by the open sessions", used(), uses_.size()),
                 .fix = "close a session, or load with a larger cache (cache_tokens)"});
}

uint32_t PagePool::take() {
    require(1);
    const uint32_t page = free_.back();
    free_.pop_back();
    uses_[page] = 1;
    return page;
}

void PagePool::release(uint32_t page) {
    check(uses_[page] > 0, "only a page in use is released");
    shared_ -= uses_[page] == 2;
    if (--uses_[page] == 0) free_.push_back(page);
}

} // namespace fathom
