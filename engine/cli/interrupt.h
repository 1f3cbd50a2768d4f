// Ctrl-C. SIGINT is blocked in every thread and taken by one thread with sigwait, so that what it does is
// ordinary code: it may lock, cancel a session, write. Outside any InterruptScope a Ctrl-C ends the program
// at once with exit code 130; inside one it is noted and the scope's action runs. The third one inside a
// scope ends the program.
#pragma once

#include <functional>

namespace fathom::cli {

// Blocks SIGINT and starts the thread. Call once, first thing in main: threads inherit the mask.
void install_interrupts();

// While it lives, Ctrl-C runs `action` on another thread; never after the destructor has returned. Scopes
// nest; the innermost counts. The empty action only notes the Ctrl-C: for work that must not be torn, such as
// writing a file.
class InterruptScope {
  public:
    explicit InterruptScope(std::function<void()> action = {});
    ~InterruptScope();
    InterruptScope(const InterruptScope&) = delete;
    bool interrupted() const;

  private:
    friend struct InterruptState;
    InterruptScope* outer_;
    std::function<void()> action_;
    int count_ = 0;
};

} // namespace fathom::cli
