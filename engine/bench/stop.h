// How a person ends a run: from any thread, between samples or within a long prompt. What was measured
// counts.
#pragma once

#include "session/engine.h"

#include <atomic>
#include <mutex>

namespace fathom::bench {

// Thrown where work ends early.
struct Stopped {};

class Stop {
  public:
    void request() {
        requested_ = true;
        const std::lock_guard lock(mutex_);
        if (working_) working_->cancel();
    }
    bool requested() const { return requested_; }
    void check() const { // throws Stopped
        if (requested_) throw Stopped();
    }

    // While it lives, request() cancels this session, whose calls then throw Cancelled.
    class Working {
      public:
        Working(Stop& stop, Session& session) : stop_(stop) { stop_.set(&session); }
        ~Working() { stop_.set(nullptr); }
        Working(const Working&) = delete;

      private:
        Stop& stop_;
    };

  private:
    void set(Session* session) {
        const std::lock_guard lock(mutex_);
        working_ = session;
    }
    std::atomic<bool> requested_ = false;
    std::mutex mutex_;
    Session* working_ = nullptr;
};

} // namespace fathom::bench
