// The live engine for viewers elsewhere: what it tells goes to every viewer that is connected, and what one
// of them asks is done. Nobody waits for a viewer: one that is too slow loses the oldest records, and is told
// how many; one that comes late first gets what is still kept.
#pragma once

#include "server/websocket.h"
#include "trace/queue.h"
#include "trace/wire.h"

#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace fathom::server {

class Live {
  public:
    static constexpr size_t KEPT = 64u << 20;         // bytes of messages, for who comes late
    static constexpr size_t MOST_WAITING = 16u << 20; // bytes of messages for one viewer
    // `control` must outlive it. `identity` and `text_of` as in a recording.
    Live(trace::Control& control, trace::Identity identity, trace::TextOf text_of);
    ~Live();
    Live(const Live&) = delete;

    trace::Queue& queue() { return queue_; } // what it hears the engine by

    // A viewer has come: what it says goes to the handler that is returned.
    SocketHandler join(std::shared_ptr<Socket> socket, std::string_view protocol);
    struct Counts {
        uint32_t viewers = 0;
        uint64_t lost = 0; // records that were dropped for slow viewers
    };
    Counts counts() const;

  private:
    struct Message {
        std::vector<std::byte> texts, frames; // the texts are never dropped
        uint32_t records = 0;
        size_t size() const { return texts.size() + frames.size(); }
    };
    struct Viewer;
    void run();
    void take(const std::vector<trace::Packet>& packets);
    void tell_state();
    void hear(const std::shared_ptr<Viewer>& viewer, std::string_view text);
    void act(const trace::Command& command, Viewer& viewer);
    void offer(Viewer& viewer, const std::shared_ptr<const Message>& message);
    void send(Viewer& viewer); // what its credit allows
    std::vector<std::byte> frame_of(const trace::Event& event) const;

    trace::Control& control_;
    const trace::Identity identity_;
    const std::string hello_;
    trace::Queue queue_;
    mutable std::mutex mutex_;                                         // of all that follows
    std::vector<std::pair<trace::Kind, std::vector<std::byte>>> made_; // by the encoder, for one message
    uint32_t made_records_ = 0;
    trace::Encoder encoder_;
    std::deque<std::shared_ptr<const Message>> kept_;
    size_t kept_bytes_ = 0;
    uint64_t forgotten_ = 0;                               // records of what is not kept any more
    std::map<std::string, std::vector<std::byte>> memory_; // newest event of each owner, as a frame
    std::list<std::shared_ptr<Viewer>> viewers_;
    trace::State state_;
    uint64_t lost_ = 0;
    std::thread thread_;
};

} // namespace fathom::server
