// UTF-8 as Unicode defines it (table 3-7): no surrogates, nothing overlong, nothing past U+10FFFF.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fathom {

// What stands at the front of a text that is not empty.
struct Utf8Front {
    size_t length; // of the character; if ill-formed, of its maximal ill-formed part (1 to 3 bytes)
    bool valid;    // a whole, well-formed character
    bool cut;      // not valid, but more bytes after the end of the text could complete it
};
Utf8Front utf8_front(std::string_view text);

// The length in bytes of the longest well-formed beginning of `text`.
size_t utf8_valid_prefix(std::string_view text);

// The code point of a valid front of `length` bytes.
char32_t utf8_decode(std::string_view text, size_t length);

} // namespace fathom
