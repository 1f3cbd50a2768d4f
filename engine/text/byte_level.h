// GPT-2's byte-level alphabet, in which tokenizer.json and GGUF write vocabularies: printable characters of
// Latin-1 stand for the byte of their number, the 68 other bytes are U+0100 onwards in ascending order.
#pragma once

#include <string>
#include <string_view>

namespace fathom {

// Appends the bytes that `word` stands for; false, and nothing appended, when it is not UTF-8 or has a
// character outside the alphabet.
bool append_bytes(std::string& out, std::string_view word);

// Appends the word that stands for `bytes`.
void append_letters(std::string& out, std::string_view bytes);

} // namespace fathom
