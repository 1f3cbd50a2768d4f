// The signal thread; see interrupt.h.
#include "cli/interrupt.h"

#include "cli/command.h"

#include <csignal>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <utility>

namespace fathom::cli {

struct InterruptState {
    std::mutex mutex;
    InterruptScope* innermost = nullptr;

    void on_signal() {
        const std::lock_guard lock(mutex);
        if (!innermost || ++innermost->count_ > 2) {
            // The destructors do not run on purpose: a driver may be in the middle of a long call.
            [[maybe_unused]] const auto written = ::write(STDERR_FILENO, "\ninterrupted\n", 13);
            _exit(INTERRUPTED);
        }
        if (innermost->action_) innermost->action_(); // again: the first may have come before the work began
    }
};

namespace {
InterruptState& state() {
    static auto* instance = new InterruptState; // never destroyed: the thread outlives main
    return *instance;
}
} // namespace

void install_interrupts() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    state();
    std::thread([set] {
        for (;;) {
            int signal = 0;
            if (sigwait(&set, &signal) == 0) state().on_signal();
        }
    }).detach();
}

InterruptScope::InterruptScope(std::function<void()> action) : action_(std::move(action)) {
    const std::lock_guard lock(state().mutex);
    outer_ = std::exchange(state().innermost, this);
}

InterruptScope::~InterruptScope() {
    const std::lock_guard lock(state().mutex);
    state().innermost = outer_;
}

bool InterruptScope::interrupted() const {
    const std::lock_guard lock(state().mutex);
    return count_ > 0;
}

} // namespace fathom::cli
