// UTF-8 and the stream that never prints half a character; see utf8.h and tokenizer.h.
#include "text/utf8.h"

#include "text/tokenizer.h"

namespace fathom {

namespace {

constexpr std::string_view REPLACEMENT = "\xEF\xBF\xBD"; // U+FFFD

unsigned byte_at(std::string_view text, size_t i) { return static_cast<unsigned char>(text[i]); }

} // namespace

Utf8Front utf8_front(std::string_view text) {
    const unsigned lead = byte_at(text, 0);
    if (lead < 0x80) return {1, true, false};
    if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
    const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    // Overlong forms, surrogates and code points past the end all show in the second byte.
    const unsigned lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < length; ++i) {
        if (i == text.size()) return {i, false, true};
        const unsigned byte = byte_at(text, i);
        if (i == 1 ? byte < lowest || byte > highest : (byte & 0xC0) != 0x80) return {i, false, false};
    }
    return {length, true, false};
}

size_t utf8_valid_prefix(std::string_view text) {
    size_t at = 0;
    while (at < text.size()) {
        const Utf8Front front = utf8_front(text.substr(at));
        if (!front.valid) break;
        at += front.length;
    }
    return at;
}

char32_t utf8_decode(std::string_view text, size_t length) {
    if (length == 1) return byte_at(text, 0);
    char32_t code_point = byte_at(text, 0) & (0x7F >> length);
    for (size_t i = 1; i < length; ++i) code_point = code_point << 6 | (byte_at(text, i) & 0x3F);
    return code_point;
}

std::string Utf8Stream::push(std::string_view bytes) {
    held_ += bytes;
    std::string out;
    size_t at = 0;
    while (at < held_.size()) {
        const Utf8Front front = utf8_front(std::string_view(held_).substr(at));
        if (front.cut) break;
        if (front.valid)
            out.append(held_, at, front.length);
        else
            out += REPLACEMENT;
        at += front.length;
    }
    held_.erase(0, at);
    return out;
}

std::string Utf8Stream::finish() {
    // What is held is the beginning of one character, so it is one ill-formed part.
    const bool left = !held_.empty();
    held_.clear();
    return std::string(left ? REPLACEMENT : "");
}

} // namespace fathom
