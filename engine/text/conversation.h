// A conversation as the chat formats take it, and its JSON: the shape of an OpenAI request,
//   {"messages": [{"role": ..., "content": ...}, ...], "tools": [...], "add_generation_prompt": true,
//    "thinking": true}
// of which only "messages" is required.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct ToolCall {
    std::string id, type, name; // results name their call by its id
    std::string arguments;      // the text of a JSON object, as the model wrote it
};

struct ChatMessage {
    enum class Role { system, user, assistant, tool, developer, latest_reminder } role;
    std::optional<std::string> content; // absent: null
    std::string reasoning;              // what an assistant thought before the content
    std::vector<ToolCall> tool_calls;
    std::string tool_call_id; // of a tool's result
    std::string task;         // V4: what the user's message is for, such as "action" or "title"
    bool prefix = false;      // V3.1: the answer to be continued

    const std::string& text() const; // the content; Error when there is none
};

// A tool as JSON in the layout of Python's json.dumps, which the formats print.
struct ToolDefinition {
    std::string whole;    // {"type": "function", "function": {...}}
    std::string function; // the inner object
};

struct Conversation {
    std::vector<ChatMessage> messages;
    std::vector<ToolDefinition> tools;
    bool generate = false;        // end where the assistant's answer begins
    std::optional<bool> thinking; // whether to think before answering; absent: what the format does
};

const char* role_name(ChatMessage::Role role);

// `where` is the path, for messages. Keys that are not understood, and values of the wrong type, are Errors
// that name the place.
Conversation parse_conversation(std::string_view json, std::string_view where);

// An argument of a tool call: strings as they are, other values as JSON.
struct ToolArgument {
    std::string name, value;
    bool is_string;
};
// Throws Error unless the call's arguments are a JSON object.
std::vector<ToolArgument> parse_arguments(const ToolCall& call);

// A string as JSON, in quotes.
std::string json_quoted(std::string_view text);

} // namespace fathom
