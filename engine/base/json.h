// JSON from files that may be hostile: nlohmann-json with what it lets through closed off. Duplicate keys (it
// keeps the last), nesting deeper than 64, and NUL bytes (it takes them for the end of the text) are errors.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace fathom {

// Parses one JSON text; `where` is its path, for messages. Throws Error.
nlohmann::json parse_json(std::string_view text, std::string_view where);

// An exception of nlohmann-json as a short printable line: the place and the reason without its error codes.
std::string json_reason(const char* message);

// A value for a message: strings without quotes, long values cut.
std::string json_text(const nlohmann::json& value);

} // namespace fathom
