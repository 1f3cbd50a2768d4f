// Between the engine and one that listens: bounded, and the engine never waits. What comes when the queue is
// full is dropped and counted; the listener finds a gap of that many records where they would have been.
#pragma once

#include "trace/record.h"

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace fathom::trace {

class Queue {
  public:
    static constexpr size_t LIMIT = 8192;                // packets; a record of DeepSeek-V3 takes about 9 KB
    static constexpr uint64_t MOST_BYTES = 256ull << 20; // of the records' tables
    explicit Queue(size_t limit = LIMIT, uint64_t most_bytes = MOST_BYTES)
        : limit_(limit), most_bytes_(most_bytes) {}

    void offer(const Packet& packet); // from any thread; holds the lock for no longer than a copy
    std::vector<Packet> take();       // all there is, in order
    // The same, after waiting until there is something, until close(), or for so long.
    std::vector<Packet> take_within(std::chrono::milliseconds longest);
    void close(); // wakes a listener, for good
    bool closed() const;
    uint64_t dropped() const; // records so far
    size_t size() const;      // packets that wait

  private:
    std::vector<Packet> take_locked();
    const size_t limit_;
    const uint64_t most_bytes_;
    mutable std::mutex mutex_;
    std::condition_variable arrived_;
    std::vector<Packet> waiting_;
    uint64_t bytes_ = 0;                // of what waits
    uint64_t dropped_ = 0, untold_ = 0; // untold: dropped since the last gap was put in
    bool closed_ = false;
};

} // namespace fathom::trace
