#include "viewer/source.h"

#include "trace/compare.h"

#include <algorithm>

namespace fathom::viewer {

RecordingSource::RecordingSource(trace::Recording recording, trace::Recording other)
    : recording_(std::move(recording)) {
    trace::compare(trace::Recording{.identity = recording_.identity},
                   trace::Recording{.identity = other.identity}); // are they of one shape?
    uint32_t sessions = 0;
    for (const trace::TokenRecord& record : recording_.tokens)
        sessions = std::max(sessions, record.session + 1);
    for (const trace::Entry& entry : recording_.events)
        sessions = std::max(sessions, entry.event.session + 1);
    const uint64_t tokens = recording_.tokens.size();
    for (trace::TokenRecord& record : other.tokens) {
        record.session += sessions;
        recording_.tokens.push_back(std::move(record));
    }
    for (trace::Entry& entry : other.events) {
        entry.token += tokens;
        entry.event.session += sessions, entry.event.other += sessions;
        if (entry.event.kind == trace::Event::Kind::memory) continue; // of the first device
        recording_.events.push_back(std::move(entry));
    }
    recording_.texts.merge(other.texts);
    if (recording_.incomplete.empty()) recording_.incomplete = other.incomplete;
}

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
