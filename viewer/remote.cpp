#include "viewer/remote.h"

#include <cstring>
#include <fmt/format.h>
#include <stdexcept>
#include <utility>

namespace fathom::viewer {

std::string RemoteSource::text(Token token) const {
    const auto it = decoder_.texts.find(token);
    return it == decoder_.texts.end() ? "" : it->second;
}

std::vector<trace::Packet> RemoteSource::poll() {
    std::vector<trace::Packet> packets;
    for (Link::Piece& piece : link_->poll()) try {
            switch (piece.kind) {
            case Link::Piece::Kind::opened:
                problem_.clear();
                break;
            case Link::Piece::Kind::text:
                hear(piece.bytes, packets);
                break;
            case Link::Piece::Kind::binary:
                if (connected_) unpack(piece.bytes, packets);
                break;
            case Link::Piece::Kind::closed:
                connected_ = asked_ = false;
                if (problem_.empty()) problem_ = piece.bytes;
                break;
            }
        } catch (const std::exception& error) { // whatever a message holds
            problem_ = error.what();
        }
    return packets;
}

void RemoteSource::hear(const std::string& text, std::vector<trace::Packet>& packets) {
    trace::Telling telling = trace::parse_telling(text);
    if (auto* state = std::get_if<trace::State>(&telling)) {
        told_ = std::move(*state);
        asked_ = false;
        return;
    }
    identity_ = std::move(std::get<trace::Hello>(telling).identity); // all is told anew from here on
    decoder_ = {};
    decoder_.identity = identity_;
    packets.clear();
    told_ = {};
    asked_ = false;
    connected_ = true;
    ++generation_;
    if (hidden_) send(trace::Pause{true});
    if (const auto request = std::exchange(later_, {})) generate(*request);
}

void RemoteSource::unpack(const std::string& bytes, std::vector<trace::Packet>& packets) {
    std::span<const std::byte> rest = std::as_bytes(std::span(bytes));
    uint32_t sequence = 0;
    if (rest.size() < sizeof(sequence)) throw std::out_of_range("a message without a number");
    std::memcpy(&sequence, rest.data(), sizeof(sequence));
    rest = rest.subspan(sizeof(sequence));
    send(trace::Ack{sequence});
    while (!rest.empty())
        decoder_.take(trace::take_frame(rest),
                      [&](trace::Packet&& packet) { packets.push_back(std::move(packet)); });
}

std::string RemoteSource::state() const {
    if (connected_) return problem_.empty() ? "live" : "live, but " + problem_;
    return fmt::format("connecting to {}{}", link_->address(), problem_.empty() ? "" : ": " + problem_);
}

std::string RemoteSource::failure() const { return told_.failure; }

void RemoteSource::generate(const Request& request) {
    if (!connected_) {
        later_ = request;
        return;
    }
    asked_ = true;
    send(request);
}

void RemoteSource::measure() {
    asked_ = connected_;
    send(trace::Measure{});
}

void RemoteSource::hide(bool hidden) {
    if (hidden == hidden_) return;
    hidden_ = hidden;
    if (connected_) send(trace::Pause{hidden});
}

} // namespace fathom::viewer
