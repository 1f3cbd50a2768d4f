// What a viewer and an engine say to each other over a WebSocket, version for version.
//
// Text messages are JSON objects with a "kind". From the engine: "hello" (WIRE_VERSION, the run, the
// identity) first, then "state" whenever it changes, or "refused" and the end. From the viewer: Command.
// Binary messages come from the engine: a sequence number (32 bits, little-endian), then frames (frames.h);
// the viewer acknowledges them by number, and the engine sends no more than CREDIT bytes ahead of that.
#pragma once

#include "trace/control.h"
#include "trace/frames.h"

#include <string_view>

namespace fathom::trace {

constexpr uint32_t WIRE_VERSION = 1;
std::string wire_protocol();        // the name of the WebSocket's sub-protocol: "fathom.v" and the version
constexpr size_t CREDIT = 1u << 20; // bytes that may be under way to a viewer

struct Ack {
    uint32_t sequence = 0;
    bool operator==(const Ack&) const = default;
};
struct Halt {
    bool operator==(const Halt&) const = default;
};
struct Measure {
    bool operator==(const Measure&) const = default;
};
struct Pause { // nothing is sent until it is over: the tab is hidden
    bool on = false;
    bool operator==(const Pause&) const = default;
};
using Command = std::variant<Ack, Request, Halt, std::vector<Steered>, LayerWatch, Measure, Pause>;

std::string command_text(const Command& command);
// Throws Error that says what is wrong: no JSON, no such kind, a value of another type or out of range, an
// expert or layer that the model lacks.
Command parse_command(std::string_view text, const Shape& shape);

struct Hello {
    uint32_t version = WIRE_VERSION;
    std::string run; // of the engine's process: another one after it was started again
    Identity identity;
};
struct State {
    bool busy = false;
    std::string failure;
    Profile profile;
    bool operator==(const State&) const = default;
};
std::string hello_text(const Hello& hello);
std::string state_text(const State& state);
std::string refusal_text(std::string_view reason);

// The other end of it: what the engine's text messages say. Throws Error for what makes no sense, for another
// version, and with the reason for a refusal.
using Telling = std::variant<Hello, State>;
Telling parse_telling(std::string_view text);

} // namespace fathom::trace
