// The strict JSON parser of json.h. It is iterative (as is nlohmann's), so nesting cannot exhaust the stack.
#include "base/json.h"

#include "base/error.h"

#include <fmt/format.h>
#include <unordered_set>

namespace fathom {

namespace {
constexpr int deepest = 64;
}

std::string json_reason(const char* message) {
    std::string_view text = message;
    if (const size_t end = text.find("] "); text.starts_with('[') && end != text.npos)
        text.remove_prefix(end + 2);
    return printable(text, 200);
}

std::string json_text(const nlohmann::json& value) {
    using nlohmann::json;
    if (value.is_string()) return printable(value.get_ref<const std::string&>());
    if (value.is_object()) return fmt::format("an object of {} keys", value.size());
    if (value.is_array() && value.size() > 8) return fmt::format("a list of {} values", value.size());
    if (value.is_array()) {
        std::string text;
        for (const json& element : value) text += (text.empty() ? "" : ", ") + json_text(element);
        return "[" + text + "]";
    }
    return printable(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

nlohmann::json parse_json(std::string_view text, std::string_view where) {
    using nlohmann::json;
    const auto broken = [&](std::string expected, std::string got) {
        return Error({.what = "broken JSON",
                      .where = std::string(where),
                      .expected = std::move(expected),
                      .got = std::move(got),
                      .fix = "fetch the file again"});
    };
    if (text.find('\0') != text.npos) throw broken("JSON text", "a NUL byte");
    std::vector<std::unordered_set<std::string>> keys; // of the objects that are open
    const auto watch = [&](int depth, json::parse_event_t event, json& value) {
        if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) {
            if (depth >= deepest) throw broken(fmt::format("at most {} levels", deepest), "deeper nesting");
        }
        if (event == json::parse_event_t::object_start) keys.emplace_back();
        if (event == json::parse_event_t::object_end) keys.pop_back();
        if (event == json::parse_event_t::key &&
            !keys.back().insert(value.get_ref<const std::string&>()).second)
            throw broken("each key once", "the key " + json_text(value) + " twice");
        return true;
    };
    try {
        return json::parse(text.begin(), text.end(), watch);
    } catch (const json::exception& reason) {
        throw broken("JSON text", json_reason(reason.what()));
    }
}

} // namespace fathom
