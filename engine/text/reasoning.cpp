// See reasoning.h.
#include "text/reasoning.h"

#include <algorithm>

namespace fathom {

namespace {

// How many bytes at the end of `text` are the beginning of `mark`.
size_t begun(std::string_view text, std::string_view mark) {
    size_t count = std::min(text.size(), mark.size() - 1);
    while (!text.ends_with(mark.substr(0, count))) --count;
    return count;
}

} // namespace

std::vector<ReasoningStream::Part> ReasoningStream::push(std::string_view text) {
    std::vector<Part> parts;
    const auto add = [&](std::string_view words) {
        if (!words.empty()) parts.push_back({inside_, std::string(words)});
    };
    held_ += text;
    std::string_view rest = held_;
    for (;;) {
        const std::string_view mark = inside_ ? "</think>" : "<think>";
        const size_t at = rest.find(mark);
        if (at == rest.npos) {
            const size_t keep = begun(rest, mark);
            add(rest.substr(0, rest.size() - keep));
            held_ = std::string(rest.substr(rest.size() - keep));
            return parts;
        }
        add(rest.substr(0, at));
        rest.remove_prefix(at + mark.size());
        inside_ = !inside_;
    }
}

std::vector<ReasoningStream::Part> ReasoningStream::finish() {
    std::vector<Part> parts;
    if (!held_.empty()) parts.push_back({inside_, std::move(held_)});
    held_.clear();
    return parts;
}

} // namespace fathom
