#include "viewer/source.h"

namespace fathom::viewer {

std::vector<trace::Packet> RecordingSource::poll() {
    if (given_) return {};
    given_ = true;
    std::vector<trace::Packet> packets;
    packets.reserve(recording_.tokens.size() + recording_.events.size());
    size_t event = 0;
    for (size_t i = 0; i <= recording_.tokens.size(); ++i) {
        for (; event < recording_.events.size() && recording_.events[event].token <= i; ++event)
            packets.emplace_back(recording_.events[event].event);
        if (i < recording_.tokens.size()) packets.emplace_back(std::move(recording_.tokens[i]));
    }
    recording_.tokens.clear();
    return packets;
}

std::string RecordingSource::state() const {
    return recording_.incomplete.empty() ? "recording" : "recording, not whole: " + recording_.incomplete;
}

} // namespace fathom::viewer
