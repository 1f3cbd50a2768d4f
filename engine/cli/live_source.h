// A loaded model as a source for the viewer: what its engine tells, and a thread that writes on when asked.
#pragma once

#include "cli/generate.h"
#include "trace/queue.h"
#include "viewer/source.h"

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

namespace fathom::cli {

class LiveSource final : public viewer::Source, public viewer::Control {
  public:
    explicit LiveSource(const LoadedModel& model);
    ~LiveSource() override;

    const trace::Identity& identity() const override { return identity_; }
    std::string text(Token token) const override;
    std::vector<trace::Packet> poll() override { return queue_.take(); }
    viewer::Control* control() override { return this; }
    std::string state() const override { return "live"; }

    void generate(const viewer::Request& request) override;
    void stop() override;
    void steer(const std::vector<viewer::Steered>& experts) override;
    void watch(const trace::LayerWatch& watch) override;
    void measure() override;
    viewer::Profile profile() const override;
    bool busy() const override { return busy_; }
    std::string failure() const override;

  private:
    void run();
    void serve(const viewer::Request& request);
    void grant(); // what was asked of experts and attention
    std::vector<Token> turn(const Session& session, const std::string& text) const; // of a conversation
    void write(Session& session, const viewer::Request& request);
    Session& session_for(const viewer::Request& request); // with what the request keeps of it

    const LoadedModel& model_;
    const trace::Identity identity_;
    trace::Queue queue_{65536};
    std::map<uint32_t, Session> sessions_; // by number; of the thread alone
    mutable std::mutex mutex_;
    std::condition_variable asked_;
    std::optional<viewer::Request> request_;
    std::optional<std::vector<viewer::Steered>> steered_; // asked for, and not in force yet
    std::optional<trace::LayerWatch> watch_;              // the same
    std::vector<viewer::Steered> in_force_;               // of the thread alone
    bool measure_ = false;                                // asked for
    viewer::Profile profile_;
    std::string failure_;
    bool ending_ = false;
    std::atomic<bool> stopped_ = false, busy_ = false;
    std::thread thread_;
};

} // namespace fathom::cli
