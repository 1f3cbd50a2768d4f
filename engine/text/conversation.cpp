// Conversations from JSON. Parsed twice: strictly, to refuse what is hostile, and then with the order of the
// keys, which a tool's definition must keep.
#include "text/conversation.h"

#include "base/error.h"
#include "base/json.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <initializer_list>
#include <nlohmann/json.hpp>

namespace fathom {

namespace {

using Json = nlohmann::ordered_json;
using Role = ChatMessage::Role;

constexpr std::array<const char*, 6> ROLES = {"system", "user",      "assistant",
                                              "tool",   "developer", "latest_reminder"};
constexpr size_t MOST_KEYS = 1000; // of one object; ordered_json searches them one by one

void check_sizes(const nlohmann::json& value, std::string_view where) {
    if (value.is_object() && value.size() > MOST_KEYS)
        throw Error({.what = "a JSON object is too large",
                     .where = std::string(where),
                     .expected = fmt::format("at most {} keys", MOST_KEYS),
                     .got = fmt::format("{}", value.size())});
    if (value.is_structured())
        for (const nlohmann::json& element : value) check_sizes(element, where);
}

Json parse_ordered(std::string_view text, std::string_view where) {
    try {
        check_sizes(parse_json(text, where), where);
    } catch (const Error& error) {
        ErrorParts parts = error.parts();
        parts.fix.clear(); // it is for files of a checkpoint
        throw Error(std::move(parts));
    }
    return Json::parse(text.begin(), text.end());
}

// As Python's json.dumps(value, ensure_ascii=False) lays it out.
std::string python_json(const Json& value) {
    if (!value.is_structured()) return value.dump();
    std::string out(1, value.is_object() ? '{' : '[');
    bool first = true;
    for (const auto& [key, element] : value.items()) {
        if (!first) out += ", ";
        first = false;
        if (value.is_object()) out += json_quoted(key) + ": ";
        out += python_json(element);
    }
    return out + (value.is_object() ? '}' : ']');
}

[[noreturn]] void refuse(const std::string& place, const std::string& expected, const Json& got) {
    throw Error({.what = "a conversation has a value of the wrong type",
                 .where = place,
                 .expected = expected,
                 .got = json_text(nlohmann::json(got))});
}

// An object of the conversation and the path that leads to it.
class Object {
  public:
    Object(const Json& value, std::string place, std::initializer_list<const char*> known)
        : value_(value), place_(std::move(place)) {
        if (!value.is_object()) refuse(place_, "an object", value);
        for (const auto& [key, ignored] : value.items())
            if (std::find(known.begin(), known.end(), key) == known.end())
                throw Error({.what = "a conversation has a key that is not understood",
                             .where = at(printable(key)),
                             .expected = fmt::format("only {}", fmt::join(known, ", "))});
    }
    std::string at(std::string_view key) const { return fmt::format("{}: {}", place_, key); }
    // The value of `key`, or nothing where it is absent or null.
    const Json* find(const char* key) const {
        const auto found = value_.find(key);
        return found == value_.end() || found->is_null() ? nullptr : &*found;
    }
    const Json& get(const char* key) const {
        if (const Json* found = find(key)) return *found;
        throw Error({.what = "a conversation lacks a value", .where = place_, .expected = key});
    }
    const std::string& text(const Json& value, const char* key) const {
        if (!value.is_string()) refuse(at(key), "a string", value);
        return value.get_ref<const std::string&>();
    }
    const std::string& text(const char* key) const { return text(get(key), key); }
    std::string text_or(const char* key, const char* otherwise) const {
        const Json* found = find(key);
        return found ? text(*found, key) : otherwise;
    }
    std::optional<bool> flag(const char* key) const {
        const Json* found = find(key);
        if (!found) return {};
        if (!found->is_boolean()) refuse(at(key), "true or false", *found);
        return found->get<bool>();
    }
    // Calls each(element, its place) for the list of `key`.
    template <class Each> void list(const char* key, const Each& each) const {
        const Json& values = get(key);
        if (!values.is_array()) refuse(at(key), "a list", values);
        for (size_t i = 0; i < values.size(); ++i) each(values[i], at(fmt::format("{}[{}]", key, i)));
    }

  private:
    const Json& value_;
    std::string place_;
};

ToolCall read_call(const Json& value, const std::string& place) {
    const Object call(value, place, {"id", "type", "function"});
    const Object function(call.get("function"), call.at("function"), {"name", "arguments"});
    return {.id = call.text_or("id", ""),
            .type = call.text_or("type", "function"),
            .name = function.text("name"),
            .arguments = function.text("arguments")};
}

Role read_role(const Object& message) {
    const std::string& name = message.text("role");
    const auto found = std::find(ROLES.begin(), ROLES.end(), name);
    if (found == ROLES.end())
        throw Error({.what = "a conversation has a role that is not known",
                     .where = message.at("role"),
                     .expected = fmt::format("one of {}", fmt::join(ROLES, ", ")),
                     .got = printable(name)});
    return static_cast<Role>(found - ROLES.begin());
}

ChatMessage read_message(const Json& value, const std::string& place) {
    const Object object(
        value, place,
        {"role", "content", "reasoning_content", "tool_calls", "tool_call_id", "task", "prefix"});
    ChatMessage message{.role = read_role(object)};
    if (const Json* content = object.find("content")) message.content = object.text(*content, "content");
    message.reasoning = object.text_or("reasoning_content", "");
    message.tool_call_id = object.text_or("tool_call_id", "");
    message.task = object.text_or("task", "");
    message.prefix = object.flag("prefix").value_or(false);
    if (object.find("tool_calls"))
        object.list("tool_calls", [&](const Json& call, const std::string& at) {
            message.tool_calls.push_back(read_call(call, at));
        });
    const bool calls = !message.tool_calls.empty();
    if (message.role != Role::assistant && (calls || message.prefix || !message.reasoning.empty()))
        throw Error({.what = "only an assistant thinks, calls tools and continues an answer",
                     .where = place,
                     .got = role_name(message.role)});
    if (!message.content && !calls)
        throw Error({.what = "a conversation lacks a value", .where = place, .expected = "content"});
    return message;
}

ToolDefinition read_tool(const Json& value, const std::string& place) {
    const Object tool(value, place, {"type", "function"});
    tool.text("type");
    const Json& function = tool.get("function");
    if (!function.is_object()) refuse(tool.at("function"), "an object", function);
    return {.whole = python_json(value), .function = python_json(function)};
}

} // namespace

const char* role_name(ChatMessage::Role role) { return ROLES[static_cast<size_t>(role)]; }

const std::string& ChatMessage::text() const {
    if (!content)
        throw Error({.what = "a message needs content in this chat format",
                     .expected = "a string",
                     .got = fmt::format("null, of the role {}", role_name(role))});
    return *content;
}

Conversation parse_conversation(std::string_view text, std::string_view where) {
    const Json json = parse_ordered(text, where);
    const Object object(json, std::string(where), {"messages", "tools", "add_generation_prompt", "thinking"});
    Conversation conversation;
    object.list("messages", [&](const Json& message, const std::string& place) {
        conversation.messages.push_back(read_message(message, place));
    });
    if (object.find("tools"))
        object.list("tools", [&](const Json& tool, const std::string& place) {
            conversation.tools.push_back(read_tool(tool, place));
        });
    conversation.generate = object.flag("add_generation_prompt").value_or(false);
    conversation.thinking = object.flag("thinking");
    return conversation;
}

std::vector<ToolArgument> parse_arguments(const ToolCall& call) {
    const std::string where = "the arguments of a call of " + printable(call.name);
    const Json json = parse_ordered(call.arguments, where);
    if (!json.is_object()) refuse(where, "an object", json);
    std::vector<ToolArgument> arguments;
    for (const auto& [key, value] : json.items())
        arguments.push_back({.name = key,
                             .value = value.is_string() ? value.get<std::string>() : python_json(value),
                             .is_string = value.is_string()});
    return arguments;
}

std::string json_quoted(std::string_view text) { return Json(text).dump(); }

} // namespace fathom
