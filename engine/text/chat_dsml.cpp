// V3.2 and V4, after their published encoders: tools are declared by an English text in the system message
// and called in DSML, and a turn opens with <think> or </think>. When thinking, a turn before the user's last
// message keeps no reasoning, and developer messages before it are left out (V4: unless there are tools).
// Tools stand in the first message, which then is a system or developer message; without one an empty system
// message holds them.
#include "text/chat_formats.h"

#include "base/error.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <iterator>
#include <span>

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

// Of messages, and of V4's turns.
template <class T> bool asks(const T& message) {
    return message.role == Role::user || message.role == Role::developer;
}

// The index of the last element for which `matches`, or -1.
template <class T, class Matches> long last_of(const std::vector<T>& all, const Matches& matches) {
    const auto found = std::find_if(all.rbegin(), all.rend(), matches);
    return all.rend() - found - 1;
}

// Leaves out the developer messages before the last question.
template <class T> void drop_old_developers(std::vector<T>& all) {
    const long last = last_of(all, asks<T>);
    long index = 0;
    std::erase_if(all, [&](const T& message) { return index++ < last && message.role == Role::developer; });
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
    long last_user = last_of(conversation.messages, asks<ChatMessage>);

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

// A message of V4, whose user also brings tools' results: users' and tools' messages that follow one another
// are one. Only its first may have a task, and what follows a user's task begins anew.
struct TurnV4 {
    Role role{};
    std::vector<const ChatMessage*> parts;
    std::string task;
};

// Puts the results among `parts` into the order of the calls with these ids; those of no such call count as
// the first one's.
void sort_results(std::span<const ToolCall> calls, std::vector<const ChatMessage*>& parts) {
    const auto is_result = [](const ChatMessage* part) { return part->role == Role::tool; };
    const auto order = [&](const ChatMessage* result) {
        size_t place = 0; // of two calls with one id the last counts
        for (size_t i = 0; i < calls.size(); ++i)
            if (!calls[i].id.empty() && calls[i].id == result->tool_call_id) place = i;
        return place;
    };
    std::vector<const ChatMessage*> results;
    std::copy_if(parts.begin(), parts.end(), std::back_inserter(results), is_result);
    std::stable_sort(results.begin(), results.end(),
                     [&](const auto* a, const auto* b) { return order(a) < order(b); });
    auto next = results.begin();
    for (const ChatMessage*& part : parts)
        if (is_result(part)) part = *next++;
}

std::vector<TurnV4> turns_of(const std::vector<ChatMessage>& messages) {
    std::vector<TurnV4> turns;
    for (const ChatMessage& message : messages) {
        const bool result = message.role == Role::tool, users = result || message.role == Role::user;
        if (users && !turns.empty() && turns.back().role == Role::user &&
            (result || turns.back().task.empty()))
            turns.back().parts.push_back(&message);
        else
            turns.push_back({users ? Role::user : message.role, {&message}, result ? "" : message.task});
    }
    std::span<const ToolCall> calls; // the last that were made
    for (TurnV4& turn : turns) {
        if (turn.role == Role::user) sort_results(calls, turn.parts);
        if (const auto& made = turn.parts.front()->tool_calls; !made.empty()) calls = made;
    }
    return turns;
}

struct WriterV4 {
    const Conversation& conversation;
    Prompt& prompt;
    bool thinking = conversation.thinking.value_or(false);
    bool keeps = !conversation.tools.empty(); // the reasoning of all turns
    std::vector<TurnV4> turns = turns_of(conversation.messages);
    long last_user = -1;

    void question(const TurnV4& turn) {
        prompt.mark(USER);
        for (const ChatMessage* part : turn.parts) {
            if (part != turn.parts.front()) prompt.text("\n\n");
            if (part->role == Role::tool)
                prompt.text("<tool_result>").text(part->text()).text("</tool_result>");
            else
                prompt.text(part->text());
        }
    }

    void answer(long index) {
        const ChatMessage& message = *turns[index].parts.front();
        const bool after_task = index > 0 && !turns[index - 1].task.empty();
        if (thinking && !after_task && (keeps || index > last_user))
            prompt.text(message.reasoning).mark(END_THINK);
        prompt.text(message.content.value_or(""));
        write_calls(message, "tool_calls", prompt);
        prompt.mark(EOS);
    }

    // What stands before the answer, when one follows or is wanted.
    void open(long index) {
        const TurnV4& turn = turns[index];
        const bool last = index + 1 == static_cast<long>(turns.size());
        const Role next = last ? Role::assistant : turns[index + 1].role;
        if (last ? !conversation.generate : next != Role::assistant && next != Role::latest_reminder) return;
        if (turn.task.empty()) {
            if (asks(turn))
                prompt.mark(ASSISTANT).mark(thinking && (keeps || index >= last_user) ? THINK : END_THINK);
            return;
        }
        if (std::find(TASKS.begin(), TASKS.end(), turn.task) == TASKS.end())
            throw Error(
                {.what = "there is no such task",
                 .where = fmt::format("messages[{}]", turn.parts.front() - conversation.messages.data()),
                 .expected = fmt::format("one of {}", fmt::join(TASKS, ", ")),
                 .got = printable(turn.task)});
        if (turn.task == "action") prompt.mark(ASSISTANT).mark(thinking ? THINK : END_THINK);
        prompt.mark("<｜" + turn.task + "｜>");
    }

    void write() {
        if (thinking && !keeps) drop_old_developers(turns);
        last_user = last_of(turns, asks<TurnV4>);
        prompt.mark(BOS);
        for (long index = 0; const TurnV4& turn : turns) {
            const ChatMessage& message = *turn.parts.front();
            if (turn.role == Role::system)
                prompt.text(message.text());
            else if (turn.role == Role::latest_reminder)
                prompt.mark("<｜latest_reminder｜>").text(message.text());
            else
                turn.role == Role::assistant ? answer(index) : question(turn);
            if (index == 0) write_tools(conversation, TOOLS_V4, TOOLS_V4_END, prompt);
            open(index++);
        }
    }
};

} // namespace

void write_v3_2(const Conversation& conversation, Prompt& prompt) {
    Conversation kept = conversation;
    if (conversation.thinking.value_or(false)) drop_old_developers(kept.messages);
    const Conversation whole = with_holder(kept);
    WriterV3_2{.conversation = whole, .prompt = prompt}.write();
}

void write_v4(const Conversation& conversation, Prompt& prompt) {
    const Conversation whole = with_holder(conversation);
    WriterV4{.conversation = whole, .prompt = prompt}.write();
}

} // namespace fathom::chat_formats
