// GLM-4.7 and GLM-4.7-Flash, after their published template: marks open a turn and nothing ends one, so that
// the next question's mark is what stops an answer. Reasoning is kept of the answers after the last question;
// texts of answers are stripped.
#include "text/chat_formats.h"

#include "text/utf8.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom::chat_formats {

namespace {

using Role = ChatMessage::Role;

constexpr const char* TOOLS = "\n# Tools\n\n"
                              "You may call one or more functions to assist with the user query.\n\n"
                              "You are provided with function signatures within <tools></tools> XML tags:\n"
                              "<tools>\n";
constexpr const char* TOOLS_END =
    "</tools>\n\n"
    "For each function call, output the function name and arguments within the following XML format:\n"
    "<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value>"
    "<arg_key>{arg-key-2}</arg_key><arg_value>{arg-value-2}</arg_value>...</tool_call>";

// White space as Python's str.strip() takes it.
bool is_space(char32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

std::string_view strip(std::string_view text) {
    size_t begin = text.size(), end = 0;
    for (size_t at = 0; at < text.size();) {
        const Utf8Front front = utf8_front(text.substr(at));
        const bool space = front.valid && is_space(utf8_decode(text.substr(at), front.length));
        if (!space) {
            begin = std::min(begin, at);
            end = at + front.length;
        }
        at += front.length;
    }
    return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

std::string_view without_newlines(std::string_view text, bool front, bool back) {
    while (front && text.starts_with('\n')) text.remove_prefix(1);
    while (back && text.ends_with('\n')) text.remove_suffix(1);
    return text;
}

void answer(const ChatMessage& message, bool keeps_reasoning, Prompt& prompt) {
    std::string_view content =
        message.content ? std::string_view(*message.content) : std::string_view("None");
    std::string_view reasoning = message.reasoning;
    // What an answer thought may still stand in its text.
    const std::string_view mark = END_THINK;
    if (const size_t end = content.find(mark); reasoning.empty() && end != content.npos) {
        reasoning = without_newlines(content.substr(0, end), false, true);
        if (const size_t begin = reasoning.rfind(THINK); begin != reasoning.npos)
            reasoning.remove_prefix(begin + std::string_view(THINK).size());
        reasoning = without_newlines(reasoning, true, false);
        content = without_newlines(content.substr(content.rfind(mark) + mark.size()), true, false);
    }
    prompt.mark("<|assistant|>");
    if (keeps_reasoning && !reasoning.empty()) prompt.mark(THINK).text(strip(reasoning));
    prompt.mark(END_THINK).text(strip(content));
    for (const ToolCall& call : message.tool_calls) {
        prompt.fixed("<tool_call>").text(call.name);
        for (const ToolArgument& argument : parse_arguments(call)) {
            prompt.fixed("<arg_key>").text(argument.name).fixed("</arg_key><arg_value>");
            prompt.text(argument.value).fixed("</arg_value>");
        }
        prompt.fixed("</tool_call>");
    }
}

} // namespace

void write_glm(const Conversation& conversation, Prompt& prompt) {
    const auto& messages = conversation.messages;
    size_t after_last_user = 0;
    for (size_t i = 0; i < messages.size(); ++i)
        if (messages[i].role == Role::user) after_last_user = i + 1;
    prompt.mark("[gMASK]").mark("<sop>");
    if (!conversation.tools.empty()) {
        prompt.mark("<|system|>").fixed(TOOLS);
        for (const ToolDefinition& tool : conversation.tools) prompt.text(tool.whole).text("\n");
        prompt.fixed(TOOLS_END);
    }
    for (size_t i = 0; i < messages.size(); ++i) {
        const ChatMessage& message = messages[i];
        if (message.role == Role::user) {
            prompt.mark("<|user|>").text(message.text());
        } else if (message.role == Role::system) {
            prompt.mark("<|system|>").text(message.text());
        } else if (message.role == Role::tool) {
            if (i == 0 || messages[i - 1].role != Role::tool) prompt.mark("<|observation|>");
            prompt.fixed("<tool_response>").text(message.text()).fixed("</tool_response>");
        } else {
            answer(message, i >= after_last_user, prompt);
        }
    }
    if (conversation.generate)
        prompt.mark("<|assistant|>").mark(conversation.thinking.value_or(true) ? THINK : END_THINK);
}

} // namespace fathom::chat_formats
