#include "base/parallel.h"

#include <atomic>
#include <doctest/doctest.h>
#include <stdexcept>
#include <vector>

using namespace fathom;

TEST_CASE("every part is worked on once") {
    for (const uint64_t count : {0, 1, 7, 64, 1000})
        for (const uint64_t grain : {1, 7, 64, 5000}) {
            std::vector<std::atomic<int>> times(count);
            parallel_ranges(count, grain, [&](uint64_t first, uint64_t last) {
                CHECK(first % grain == 0);
                CHECK((last == count || last - first == grain));
                for (uint64_t i = first; i < last; ++i) ++times[i];
            });
            for (const auto& t : times) CHECK(t == 1);
        }
}

TEST_CASE("an exception of any part arrives") {
    for (const uint64_t bad : {0, 50, 99})
        CHECK_THROWS_AS(parallel_ranges(100, 1,
                                        [&](uint64_t first, uint64_t) {
                                            if (first == bad) throw std::runtime_error("part");
                                        }),
                        std::runtime_error);
}
