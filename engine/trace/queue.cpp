#include "trace/queue.h"

#include <utility>

namespace fathom::trace {

namespace {
void add_gap(std::vector<Packet>& packets, uint64_t count) {
    std::get<Event>(packets.emplace_back(std::in_place_type<Event>)) = {.kind = Event::Kind::gap,
                                                                        .count = count};
}
} // namespace

void Queue::offer(const Packet& packet) {
    {
        const std::lock_guard lock(mutex_);
        if (closed_) return;
        const auto* record = std::get_if<TokenRecord>(&packet);
        const uint64_t bytes = record ? bytes_of(*record) : 0;
        if (waiting_.size() >= limit_ || bytes_ + bytes > most_bytes_) {
            ++dropped_, ++untold_;
            return;
        }
        if (untold_ != 0) add_gap(waiting_, std::exchange(untold_, 0));
        waiting_.push_back(packet);
        bytes_ += bytes;
    }
    arrived_.notify_one();
}

std::vector<Packet> Queue::take_locked() {
    std::vector<Packet> taken = std::exchange(waiting_, {});
    bytes_ = 0;
    if (untold_ != 0) add_gap(taken, std::exchange(untold_, 0));
    return taken;
}

std::vector<Packet> Queue::take() {
    const std::lock_guard lock(mutex_);
    return take_locked();
}

std::vector<Packet> Queue::take_within(std::chrono::milliseconds longest) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, longest, [&] { return closed_ || !waiting_.empty(); });
    return take_locked();
}

void Queue::close() {
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
    }
    arrived_.notify_all();
}

bool Queue::closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
}
uint64_t Queue::dropped() const {
    const std::lock_guard lock(mutex_);
    return dropped_;
}
size_t Queue::size() const {
    const std::lock_guard lock(mutex_);
    return waiting_.size();
}

} // namespace fathom::trace
