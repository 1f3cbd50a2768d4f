// A loaded model as a source for the viewer: what its engine tells, and one that writes when asked.
#pragma once

#include "cli/generate.h"
#include "server/author.h"
#include "trace/queue.h"
#include "viewer/source.h"

namespace fathom::cli {

server::Served served(const LoadedModel& model); // must not outlive it

class LiveSource final : public viewer::Source {
  public:
    explicit LiveSource(const LoadedModel& model);
    ~LiveSource() override;

    const trace::Identity& identity() const override { return identity_; }
    std::string text(Token token) const override;
    std::vector<trace::Packet> poll() override { return queue_.take(); }
    viewer::Control* control() override { return &author_; }
    std::string state() const override { return "live"; }

  private:
    const LoadedModel& model_;
    const trace::Identity identity_;
    trace::Queue queue_{65536};
    server::Author author_;
};

} // namespace fathom::cli
