// Barriers from declared reads and writes; see plan.h.
#include "model/plan.h"

#include <algorithm>

namespace fathom {

namespace {
bool overlap(const std::vector<View>& a, const std::vector<View>& b) {
    return std::any_of(a.begin(), a.end(), [&](const View& x) {
        return std::any_of(b.begin(), b.end(), [&](const View& y) {
            return x.address < y.address + y.bytes && y.address < x.address + x.bytes;
        });
    });
}
} // namespace

void Plan::finish() {
    size_t first = 0; // the first op since the last barrier
    for (size_t i = 0; i < ops_.size(); ++i) {
        ops_[i].barrier = false;
        for (size_t k = first; k < i && !ops_[i].barrier; ++k)
            ops_[i].barrier = overlap(ops_[i].reads, ops_[k].writes) ||
                              overlap(ops_[i].writes, ops_[k].reads) ||
                              overlap(ops_[i].writes, ops_[k].writes);
        if (ops_[i].barrier) first = i;
    }
}

} // namespace fathom
