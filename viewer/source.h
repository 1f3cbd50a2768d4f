// Where a viewer's packets come from, and what can be asked of a source that is alive. Nothing here blocks.
#pragma once

#include "trace/control.h"
#include "viewer/store.h"

#include <optional>

namespace fathom::viewer {

using trace::Control;
using trace::Launch;
using trace::Pin;
using trace::Profile;
using trace::Request;
using trace::Sampling;
using trace::Steered;

class Source {
  public:
    virtual ~Source() = default;
    virtual const trace::Identity& identity() const = 0;
    virtual std::string text(Token token) const = 0;
    virtual std::vector<trace::Packet> poll() = 0; // what has come since the last call
    virtual Control* control() { return nullptr; } // null: nothing can be asked of it
    virtual std::string state() const = 0;         // for the header: "live", "recording, cut off at ..."
    // Grows when all that was told before holds no more, and everything comes anew: another engine answers.
    virtual uint64_t generation() const { return 0; }
};

// A recording as a source: all of it comes with the first poll.
class RecordingSource final : public Source {
  public:
    explicit RecordingSource(trace::Recording recording) : recording_(std::move(recording)) {}
    // Two at once: the sessions of the second are numbered behind those of the first. Throws Error where they
    // are of models of different shape.
    RecordingSource(trace::Recording recording, trace::Recording other);
    const trace::Identity& identity() const override { return recording_.identity; }
    std::string text(Token token) const override { return recording_.text(token); }
    std::vector<trace::Packet> poll() override;
    std::string state() const override;

  private:
    trace::Recording recording_;
    bool given_ = false;
};

} // namespace fathom::viewer
