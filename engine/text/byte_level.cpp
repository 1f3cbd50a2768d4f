// The byte-level alphabet; see byte_level.h.
#include "text/byte_level.h"

#include "text/utf8.h"

#include <array>

namespace fathom {

namespace {

struct Alphabet {
    std::array<char16_t, 256> letters;
    std::array<int, 0x144> bytes; // of a letter, -1 if it is none

    constexpr Alphabet() : letters(), bytes() {
        bytes.fill(-1);
        char16_t next = 0x100;
        for (int byte = 0; byte < 256; ++byte) {
            const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
            letters[byte] = itself ? static_cast<char16_t>(byte) : next++;
            bytes[letters[byte]] = byte;
        }
    }
};
constexpr Alphabet alphabet;

} // namespace

bool append_bytes(std::string& out, std::string_view word) {
    const size_t before = out.size();
    while (!word.empty()) {
        const Utf8Front front = utf8_front(word);
        const char32_t letter = front.valid ? utf8_decode(word, front.length) : char32_t{0};
        if (letter >= alphabet.bytes.size() || alphabet.bytes[letter] < 0) {
            out.resize(before);
            return false;
        }
        out += static_cast<char>(alphabet.bytes[letter]);
        word.remove_prefix(front.length);
    }
    return true;
}

void append_letters(std::string& out, std::string_view bytes) {
    for (const char byte : bytes) {
        const char16_t letter = alphabet.letters[static_cast<unsigned char>(byte)];
        if (letter >= 0x80) out += static_cast<char>(0xC0 | letter >> 6);
        out += static_cast<char>(letter < 0x80 ? letter : 0x80 | (letter & 0x3F));
    }
}

} // namespace fathom
