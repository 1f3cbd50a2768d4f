// What a viewer can ask of an engine that is alive. A leaf, like record.h: the engine's side and the viewer's
// share it, and wire.h carries it from one to the other.
#pragma once

#include "trace/record.h"

#include <optional>

namespace fathom::trace {

struct Sampling {
    float temperature = 0.7f, top_p = 0.95f;
    uint32_t top_k = 0, max_tokens = 200;
    uint64_t seed = 1;
    bool operator==(const Sampling&) const = default;
};

// To write on: from the beginning, or from the first `keep` tokens of a session, which then is a new one
// unless it ends there. `text` and `forced` come next, then what the model chooses.
struct Request {
    std::optional<uint32_t> session;
    uint32_t keep = 0;
    std::string text;
    std::optional<Token> forced;
    Sampling sampling;
    bool chat = false; // the text is what a user says to a model that was trained to answer
    bool again =
        false; // what is kept is read once more, by a new session, so that all of it is recorded anew
    bool twice = false; // by two new sessions: by one as the model is, then by the other as it is steered
    bool operator==(const Request&) const = default;
};

// An expert by its layer, among those that route.
struct Pin {
    uint32_t layer, expert;
    bool operator==(const Pin&) const = default;
};

// What is done to an expert: added to the key that it is chosen by, multiplied with its weight.
struct Steered {
    static constexpr float SILENT = -1e9f, FORCED = 1e9f; // keys below and above every other
    Pin expert;
    float key = 0, factor = 1;
    bool operator==(const Steered&) const = default;
};

// A launch of a step that writes one token, as it was measured alone.
struct Launch {
    std::string label;
    double seconds = 0, bytes = 0, flops = 0;
    bool operator==(const Launch&) const = default;
};
struct Profile {
    std::vector<Launch> launches; // none: nothing was measured yet
    double read_rate = 0;         // bytes a second that the device's memory gives; 0: not known
    bool operator==(const Profile&) const = default;
};

class Control {
  public:
    virtual ~Control() = default;
    virtual void generate(const Request& request) = 0; // replaces what is under way
    virtual void stop() = 0;
    virtual void steer(const std::vector<Steered>& experts) = 0; // from the next token on; others are free
    virtual void watch(const LayerWatch& watch) = 0;             // the same
    virtual void measure() = 0; // the launches of a step, when it rests; profile() has them then
    virtual Profile profile() const = 0;
    virtual bool busy() const = 0;
    virtual std::string failure() const = 0; // of the last request; empty: none
};

} // namespace fathom::trace
