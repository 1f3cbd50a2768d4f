// An engine elsewhere as a source: what comes over a WebSocket (trace/wire.h), and what is asked goes back
// the same way. The socket itself is a host's: the browser's own, or Boost.Beast's on the desktop.
#pragma once

#include "trace/wire.h"
#include "viewer/source.h"

#include <memory>

namespace fathom::viewer {

// A connection that is made again whenever it breaks. Nothing here blocks.
class Link {
  public:
    struct Piece {
        enum class Kind : uint8_t { opened, text, binary, closed } kind;
        std::string bytes; // closed: the reason, or ""
    };
    virtual ~Link() = default;
    virtual std::vector<Piece> poll() = 0;   // what has come since the last call
    virtual void send(std::string text) = 0; // lost where there is no connection
    virtual const std::string& address() const = 0;
};

class RemoteSource final : public Source, public Control {
  public:
    explicit RemoteSource(std::unique_ptr<Link> link) : link_(std::move(link)) {}

    const trace::Identity& identity() const override { return identity_; } // nothing until it is known
    std::string text(Token token) const override;
    std::vector<trace::Packet> poll() override;
    Control* control() override { return this; }
    std::string state() const override;
    uint64_t generation() const override { return generation_; }
    void hide(bool hidden); // nobody looks: nothing is to be sent meanwhile

    void generate(const Request& request) override;
    void stop() override { send(trace::Halt{}); }
    void steer(const std::vector<Steered>& experts) override { send(experts); }
    void watch(const trace::LayerWatch& watch) override { send(watch); }
    void measure() override;
    Profile profile() const override { return told_.profile; }
    bool busy() const override { return connected_ && (told_.busy || asked_); }
    std::string failure() const override;

  private:
    void send(const trace::Command& command) { link_->send(trace::command_text(command)); }
    void hear(const std::string& text, std::vector<trace::Packet>& packets);
    void unpack(const std::string& bytes, std::vector<trace::Packet>& packets);

    std::unique_ptr<Link> link_;
    trace::Identity identity_{.shape = {}, .facts = nlohmann::json::object()};
    trace::Decoder decoder_;
    trace::State told_;
    std::string problem_; // of the connection
    uint64_t generation_ = 0;
    bool connected_ = false, hidden_ = false;
    std::optional<Request> later_; // asked for before there was a connection
    bool asked_ = false; // and the engine has not said since that it is at work
};

} // namespace fathom::viewer
