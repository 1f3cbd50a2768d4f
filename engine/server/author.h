// Who writes for viewers: a thread that does what is asked of a live engine (trace/control.h), one request
// after the other. What comes of it is told by the engine's records.
#pragma once

#include "server/served.h"
#include "trace/control.h"

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

namespace fathom::server {

class Author final : public trace::Control {
  public:
    // Its sessions, kept to branch from, take at most so many tokens of the cache; 0: no matter how many.
    // `on_steered` is called when the model has become another one, from the author's thread.
    explicit Author(Served model, uint64_t cache_tokens = 0, std::function<void()> on_steered = {});
    ~Author() override;

    void generate(const trace::Request& request) override;
    void stop() override;
    void steer(const std::vector<trace::Steered>& experts) override;
    void watch(const trace::LayerWatch& watch) override;
    void measure() override;
    trace::Profile profile() const override;
    bool busy() const override { return busy_; }
    std::string failure() const override;

  private:
    void run();
    void serve(const trace::Request& request);
    void apply(const Steering& steering);
    void grant(); // what was asked of experts and attention
    std::vector<Token> turn(const Session& session, const std::string& text) const; // of a conversation
    void write(Session& session, const trace::Request& request);
    Session& session_for(const trace::Request& request); // with what the request keeps of it
    void make_room(const Session& stays, uint64_t more);

    const Served model_;
    const trace::Shape shape_;
    const uint64_t cache_tokens_;
    const std::function<void()> on_steered_;
    std::map<uint32_t, Session> sessions_; // by number; of the thread alone
    mutable std::mutex mutex_;
    std::condition_variable asked_;
    std::optional<trace::Request> request_;
    std::optional<std::vector<trace::Steered>> steered_; // asked for, and not in force yet
    std::optional<trace::LayerWatch> watch_;             // the same
    std::vector<trace::Steered> in_force_;               // of the thread alone
    bool measure_ = false;                               // asked for
    trace::Profile profile_;
    std::string failure_;
    bool ending_ = false;
    std::atomic<bool> stopped_ = false, busy_ = false;
    std::thread thread_;
};

} // namespace fathom::server
