// V3.2 and V4, after their published encoders: tools are declared by an English text in the system message
// and called in DSML, and a turn opens with <think> or </think>. A turn before the user's last message keeps
// no reasoning (V4: unless there are tools). Tools stand in the first message, which then is a system or
// developer message; without one an empty system message holds them.
#include "text/chat_formats.h"

#include "base/error.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace fathom::chat_formats {

namespace {

using Role = ChatMessage::Role;

constexpr const char* TOOLS_V3_2 =
    "## Tools\n"
    "\n"
    "You have access to a set of tools you can use to answer the user's question.\n"
    "You can invoke functions by writing a \"<｜DSML｜function_calls>\" block like the following as "
    "part of your reply to the user:\n"
    "<｜DSML｜function_calls>\n"
    "<｜DSML｜invoke name=\"$FUNCTION_NAME\">\n"
    "<｜DSML｜parameter name=\"$PARAMETER_NAME\" "
    "string=\"true|false\">$PARAMETER_VALUE</｜DSML｜parameter>\n"
    "...\n"
    "</｜DSML｜invoke>\n"
    "<｜DSML｜invoke name=\"$FUNCTION_NAME2\">\n"
    "...\n"
    "</｜DSML｜invoke>\n"
    "</｜DSML｜function_calls>\n"
    "\n"
    "String and scalar parameters should be specified as is without any escaping or quotes, while "
    "lists and objects should use JSON format. The \"string\" attribute should be set to \"true\" "
    "for string type parameters and \"false\" for other types (numbers, booleans, arrays, objects).\n"
    "\n"
    "If the thinking_mode is enabled, then after function results you should strongly consider "
    "outputting a thinking block. Here is an example:\n"
    "\n"
    "<｜DSML｜function_calls>\n"
    "...\n"
    "</｜DSML｜function_calls>\n"
    "\n"
    "<function_results>\n"
    "...\n"
    "</function_results>\n"
    "\n"
    "<think>...thinking about results</think>\n"
    "\n"
    "Here are the functions available in JSONSchema format:\n"
    "<functions>\n";
constexpr const char* TOOLS_V3_2_END = "\n</functions>\n";

constexpr const char* TOOLS_V4 =
    "## Tools\n"
    "\n"
    "You have access to a set of tools to help answer the user's question. You can invoke tools by "
    "writing a \"<｜DSML｜tool_calls>\" block like the following:\n"
    "\n"
    "<｜DSML｜tool_calls>\n"
    "<｜DSML｜invoke name=\"$TOOL_NAME\">\n"
    "<｜DSML｜parameter name=\"$PARAMETER_NAME\" "
    "string=\"true|false\">$PARAMETER_VALUE</｜DSML｜parameter>\n"
    "...\n"
    "</｜DSML｜invoke>\n"
    "<｜DSML｜invoke name=\"$TOOL_NAME2\">\n"
    "...\n"
    "</｜DSML｜invoke>\n"
    "</｜DSML｜tool_calls>\n"
    "\n"
    "String parameters should be specified as is and set `string=\"true\"`. For all other types "
    "(numbers, booleans, arrays, objects), pass the value in JSON format and set `string=\"false\"`.\n"
    "\n"
    "If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning "
    "inside <think>...</think> BEFORE any tool calls or final response.\n"
    "\n"
    "Otherwise, output directly after </think> with tool calls or final response.\n"
    "\n"
    "### Available Tool Schemas\n"
    "\n";
constexpr const char* TOOLS_V4_END =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n";

void write_tools(const Conversation& conversation, const char* begin, const char* end, Prompt& prompt) {
    if (conversation.tools.empty()) return;
    prompt.text("\n\n").fixed(begin);
    for (size_t i = 0; i < conversation.tools.size(); ++i)
        prompt.text(i == 0 ? "" : "\n").text(conversation.tools[i].function);
    prompt.text(end);
}

void write_calls(const ChatMessage& message, const char* block, Prompt& prompt) {
    if (message.tool_calls.empty()) return;
    prompt.fixed(fmt::format("\n\n<｜DSML｜{}>\n", block));
    for (const ToolCall& call : message.tool_calls) {
        prompt.fixed("<｜DSML｜invoke name=\"").text(call.name).text("\">\n");
        const std::vector<ToolArgument> arguments = parse_arguments(call);
        for (size_t i = 0; i < arguments.size(); ++i) {
            const ToolArgument& argument = arguments[i];
            prompt.fixed(i == 0 ? "<｜DSML｜parameter name=\"" : "\n<｜DSML｜parameter name=\"");
            prompt.text(argument.name)
                .text(argument.is_string ? "\" string=\"true\">" : "\" string=\"false\">");
            prompt.text(argument.value).fixed("</｜DSML｜parameter>");
        }
        prompt.fixed("\n</｜DSML｜invoke>\n");
    }
    prompt.fixed(fmt::format("</｜DSML｜{}>", block));
}

bool asks(const ChatMessage& message) {
    return message.role == Role::user || message.role == Role::developer;
}

// The index of the last message for which `matches`, or -1.
template <class Matches> long last_of(const std::vector<ChatMessage>& messages, const Matches& matches) {
    const auto found = std::find_if(messages.rbegin(), messages.rend(), matches);
    return messages.rend() - found - 1;
}

// The conversation with a first message that can hold the tools.
Conversation with_holder(const Conversation& conversation) {
    Conversation out = conversation;
    const bool holds = !out.messages.empty() && (out.messages.front().role == Role::system ||
                                                 out.messages.front().role == Role::developer);
    if (!out.tools.empty() && !holds)
        out.messages.insert(out.messages.begin(), {.role = Role::system, .content = ""});
    return out;
}

Error misplaced(std::string what, std::string expected) {
    return Error({.what = std::move(what), .expected = std::move(expected)});
}

struct WriterV3_2 {
    const Conversation& conversation;
    Prompt& prompt;
    bool thinking = conversation.thinking.value_or(false);
    long last_user = last_of(conversation.messages, asks);

    void open(long index) { prompt.mark(thinking && index >= last_user ? THINK : END_THINK); }

    void question(const ChatMessage& message, long index) {
        prompt.mark(USER);
        if (message.role == Role::developer) {
            if (index == 0) tools();
            prompt.text("\n\n# The user's message is: ");
        }
        prompt.text(message.text());
        const bool last = index + 1 == static_cast<long>(conversation.messages.size());
        if (last && !conversation.generate) return;
        prompt.mark(ASSISTANT);
        open(index);
    }

    void result(const ChatMessage& message, long index) {
        long caller = index - 1;
        while (caller >= 0 && conversation.messages[caller].role == Role::tool) --caller;
        const long calls =
            caller < 0 ? 0 : static_cast<long>(conversation.messages[caller].tool_calls.size());
        if (index - caller > calls)
            throw misplaced("a tool's result answers no call",
                            fmt::format("messages[{}] to follow an assistant's call", index));
        if (index - caller == 1) prompt.text("\n\n<function_results>");
        prompt.text("\n<result>").text(message.text()).text("</result>");
        if (index - caller < calls) return;
        prompt.text("\n</function_results>\n\n");
        open(index);
    }

    void answer(const ChatMessage& message, long index) {
        if (thinking && index > last_user) prompt.text(message.reasoning).mark(END_THINK);
        prompt.text(message.content.value_or(""));
        write_calls(message, "function_calls", prompt);
        prompt.mark(EOS);
    }

    void tools() { write_tools(conversation, TOOLS_V3_2, TOOLS_V3_2_END, prompt); }

    void write() {
        prompt.mark(BOS);
        for (long index = 0; const ChatMessage& message : conversation.messages) {
            if (!message.task.empty() || message.role == Role::latest_reminder)
                throw misplaced("V3.2 has neither tasks nor reminders", "no task; another role");
            if (message.role == Role::system) {
                prompt.text(message.text());
                if (index == 0) tools();
            } else if (asks(message)) {
                question(message, index);
            } else {
                message.role == Role::tool ? result(message, index) : answer(message, index);
            }
            ++index;
        }
    }
};

constexpr std::array TASKS = {"action", "query", "authority", "domain", "title", "read_url"};

// V4: tools' results and users' messages that follow one another are one turn of the user.
struct WriterV4 {
    const Conversation& conversation;
    Prompt& prompt;
    bool thinking = conversation.thinking.value_or(false);
    long last_user = last_of(conversation.messages, [](const ChatMessage& message) {
        return asks(message) || message.role == Role::tool;
    });
    bool after_task = false;

    bool thinks(long index) const { return thinking && (!conversation.tools.empty() || index >= last_user); }

    void open(long index) { prompt.mark(ASSISTANT).mark(thinks(index) ? THINK : END_THINK); }

    // Whether the message at `index` goes on with the user's turn of the one before it.
    bool goes_on(long index) const {
        const auto joins = [&](const ChatMessage& message) {
            return message.role == Role::user || message.role == Role::tool;
        };
        const auto& messages = conversation.messages;
        return index > 0 && index < static_cast<long>(messages.size()) && joins(messages[index]) &&
               joins(messages[index - 1]) && messages[index - 1].task.empty();
    }

    void question(const ChatMessage& message, long index) {
        if (goes_on(index))
            prompt.text("\n\n");
        else
            prompt.mark(USER);
        if (message.role == Role::developer && index == 0) tools();
        if (message.role == Role::tool)
            prompt.text("<tool_result>").text(message.text()).text("</tool_result>");
        else
            prompt.text(message.text());
        if (!goes_on(index + 1)) end_question(message, index);
    }

    // The start of the answer, when one follows or is wanted.
    void end_question(const ChatMessage& message, long index) {
        const auto& messages = conversation.messages;
        const bool last = index + 1 == static_cast<long>(messages.size());
        if (last ? !conversation.generate : messages[index + 1].role != Role::assistant) return;
        if (message.task.empty() || message.task == "action") open(index);
        if (message.task.empty()) return;
        if (std::find(TASKS.begin(), TASKS.end(), message.task) == TASKS.end())
            throw Error({.what = "there is no such task",
                         .where = fmt::format("messages[{}]", index),
                         .expected = fmt::format("one of {}", fmt::join(TASKS, ", ")),
                         .got = printable(message.task)});
        prompt.mark("<｜" + message.task + "｜>");
        after_task = true;
    }

    void answer(const ChatMessage& message, long index) {
        if (thinks(index) && index > 0 && !after_task) prompt.text(message.reasoning).mark(END_THINK);
        after_task = false;
        prompt.text(message.content.value_or(""));
        write_calls(message, "tool_calls", prompt);
        prompt.mark(EOS);
    }

    void tools() { write_tools(conversation, TOOLS_V4, TOOLS_V4_END, prompt); }

    void write() {
        prompt.mark(BOS);
        for (long index = 0; const ChatMessage& message : conversation.messages) {
            if (message.role == Role::system) {
                prompt.text(message.text());
                if (index == 0) tools();
            } else if (message.role == Role::latest_reminder) {
                prompt.mark("<｜latest_reminder｜>").text(message.text());
            } else {
                message.role == Role::assistant ? answer(message, index) : question(message, index);
            }
            ++index;
        }
    }
};

} // namespace

void write_v3_2(const Conversation& conversation, Prompt& prompt) {
    const Conversation whole = with_holder(conversation);
    WriterV3_2{.conversation = whole, .prompt = prompt}.write();
}

void write_v4(const Conversation& conversation, Prompt& prompt) {
    const Conversation whole = with_holder(conversation);
    WriterV4{.conversation = whole, .prompt = prompt}.write();
}

} // namespace fathom::chat_formats
