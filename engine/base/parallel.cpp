#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace fathom {

void parallel_ranges(uint64_t count, uint64_t grain, const std::function<void(uint64_t, uint64_t)>& work) {
    const uint64_t parts = (count + grain - 1) / grain;
    std::atomic<uint64_t> next = 0;
    std::exception_ptr failure;
    std::mutex failure_mutex;
    const auto run = [&] {
        try {
            for (uint64_t part = next++; part < parts; part = next++)
                work(part * grain, std::min(count, (part + 1) * grain));
        } catch (...) {
            const std::lock_guard lock(failure_mutex);
            if (!failure) failure = std::current_exception();
            next = parts; // the others stop at their next part
        }
    };
    const uint64_t threads =
        std::min<uint64_t>({parts, 8, std::max(1u, std::thread::hardware_concurrency())});
    {
        std::vector<std::jthread> others; // joined at the end of this scope
        for (uint64_t i = 1; i < threads; ++i) others.emplace_back(run);
        run();
    }
    if (failure) std::rethrow_exception(failure);
}

} // namespace fathom
