// Formatting of errors; see error.h.
#include "base/error.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom {

namespace {

std::string message(const ErrorParts& parts) {
    std::string text = parts.what;
    if (!parts.where.empty()) text += ": " + parts.where;
    if (!parts.expected.empty()) text += "\n  expected: " + parts.expected;
    if (!parts.got.empty()) text += "\n  got: " + parts.got;
    if (!parts.fix.empty()) text += "\n  fix: " + parts.fix;
    return text;
}

// Length in bytes of the well-formed UTF-8 sequence at the front of `text`, 0 if there is none.
size_t utf8_length(std::string_view text) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned lead = byte(0);
    const size_t length = lead < 0x80                   ? 1
                          : lead >= 0xC2 && lead < 0xE0 ? 2
                          : lead >= 0xE0 && lead < 0xF0 ? 3
                          : lead >= 0xF0 && lead < 0xF5 ? 4
                                                        : 0;
    if (length == 0 || length > text.size()) return 0;
    for (size_t i = 1; i < length; ++i)
        if ((byte(i) & 0xC0) != 0x80) return 0;
    if (length == 3 && ((lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) >= 0xA0))) return 0;
    if (length == 4 && ((lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) >= 0x90))) return 0;
    return length;
}

} // namespace

Error::Error(ErrorParts parts) : std::runtime_error(message(parts)), parts_(std::move(parts)) {}

void check(bool condition, std::string_view promise, const char* file, int line) {
    if (!condition) throw std::logic_error(fmt::format("{}:{}: broken promise: {}", file, line, promise));
}

std::string printable(std::string_view text, size_t limit) {
    std::string out;
    for (size_t i = 0; i < text.size();) {
        if (out.size() >= limit) return out + "...";
        const auto byte = static_cast<unsigned char>(text[i]);
        const size_t length = utf8_length(text.substr(i));
        const bool c1_control = length == 2 && byte == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0;
        if (length == 0 || byte < 0x20 || byte == 0x7F || c1_control || byte == '"' || byte == '\\') {
            for (size_t k = 0; k < std::max<size_t>(length, 1); ++k)
                out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i + k]));
        } else {
            out.append(text, i, length);
        }
        i += std::max<size_t>(length, 1);
    }
    return out;
}

} // namespace fathom
