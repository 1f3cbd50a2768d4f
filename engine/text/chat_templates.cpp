// The chat formats that were published as templates: the first models, Coder, V2, V3, R1, V3.1, Kimi K2.
// V3's template has oddities that its users' prompts share, kept here: the first of several tool calls is
// known by a flag that is never reset, the end of the calls is written only after the second and later ones,
// and calls beside content are dropped.
#include "text/chat_formats.h"

#include "base/error.h"

#include <fmt/format.h>

namespace fathom::chat_formats {

namespace {

using Role = ChatMessage::Role;

constexpr const char *CALLS = "<｜tool▁calls▁begin｜>", *END_CALLS = "<｜tool▁calls▁end｜>",
                     *CALL = "<｜tool▁call▁begin｜>", *END_CALL = "<｜tool▁call▁end｜>",
                     *CALL_SEP = "<｜tool▁sep｜>", *OUTPUTS = "<｜tool▁outputs▁begin｜>",
                     *END_OUTPUTS = "<｜tool▁outputs▁end｜>", *OUTPUT = "<｜tool▁output▁begin｜>",
                     *END_OUTPUT = "<｜tool▁output▁end｜>";

// BOS and all system messages, joined by blank lines, wherever they stand.
void begin_v3(const Conversation& conversation, Prompt& prompt) {
    prompt.mark(BOS);
    bool first = true;
    for (const ChatMessage& message : conversation.messages) {
        if (message.role != Role::system) continue;
        prompt.text(first ? "" : "\n\n").text(message.text());
        first = false;
    }
}

void write_call_v3(const ToolCall& call, Prompt& prompt) {
    prompt.mark(CALL).text(call.type).mark(CALL_SEP).text(call.name);
    prompt.text("\n```json\n").text(call.arguments).text("\n```").mark(END_CALL);
}

// V3 and R1: what their templates keep in mind from message to message.
struct WriterV3 {
    Prompt& prompt;
    bool r1;
    bool called = false, output = false; // a call, an output was ever written
    bool in_tool = false;                // the last message was an output

    void calls(const ChatMessage& message) {
        in_tool = false;
        for (const ToolCall& call : message.tool_calls) {
            if (called) {
                prompt.text("\n");
            } else {
                prompt.mark(ASSISTANT);
                if (message.content) prompt.text(*message.content);
                prompt.mark(CALLS);
            }
            write_call_v3(call, prompt);
            if (called && !r1) prompt.mark(END_CALLS).mark(EOS);
            called = true;
        }
        if (r1) prompt.mark(END_CALLS).mark(EOS);
    }

    void answer(const ChatMessage& message) {
        std::string_view text = message.text();
        if (in_tool) {
            prompt.mark(END_OUTPUTS);
        } else {
            const size_t end = r1 ? text.rfind(END_THINK) : text.npos;
            if (end != text.npos) text.remove_prefix(end + std::string_view(END_THINK).size());
            prompt.mark(ASSISTANT);
        }
        prompt.text(text).mark(EOS);
        in_tool = false;
    }

    void result(const ChatMessage& message) {
        if (!output)
            prompt.mark(OUTPUTS);
        else if (!r1)
            prompt.text("\n");
        prompt.mark(OUTPUT).text(message.text()).mark(END_OUTPUT);
        in_tool = output = true;
    }

    void write(const Conversation& conversation) {
        begin_v3(conversation, prompt);
        for (const ChatMessage& message : conversation.messages) {
            if (message.role == Role::user) {
                prompt.mark(USER).text(message.text());
                in_tool = false;
            } else if (message.role == Role::tool) {
                result(message);
            } else if (message.role == Role::assistant) {
                const bool has_calls = r1 ? !message.tool_calls.empty() : !message.content;
                has_calls ? calls(message) : answer(message);
            }
        }
        if (in_tool)
            prompt.mark(END_OUTPUTS);
        else if (conversation.generate)
            prompt.mark(ASSISTANT).fixed(r1 ? "<think>\n" : "");
    }
};

// V3.1: a turn begins with the mark of the assistant only after a user's message.
struct WriterV3_1 {
    Prompt& prompt;
    bool thinking;
    bool after_user = false, in_tool = false;

    void calls(const ChatMessage& message) {
        if (after_user) prompt.mark(ASSISTANT).mark(END_THINK);
        const char* begin = CALLS;
        for (const ToolCall& call : message.tool_calls) {
            if (begin && message.content) prompt.text(*message.content);
            if (begin) prompt.mark(begin);
            begin = nullptr;
            prompt.mark(CALL).text(call.name).mark(CALL_SEP).text(call.arguments).mark(END_CALL);
        }
        prompt.mark(END_CALLS).mark(EOS);
        after_user = in_tool = false;
    }

    void answer(const ChatMessage& message) {
        if (after_user) prompt.mark(ASSISTANT).mark(message.prefix && thinking ? THINK : END_THINK);
        std::string_view text = message.text();
        if (const size_t end = text.find(END_THINK); !in_tool && end != text.npos)
            text.remove_prefix(end + std::string_view(END_THINK).size());
        prompt.text(text).mark(EOS);
        after_user = in_tool = false;
    }

    void write(const Conversation& conversation) {
        begin_v3(conversation, prompt);
        for (const ChatMessage& message : conversation.messages) {
            if (message.role == Role::user) {
                prompt.mark(USER).text(message.text());
                after_user = true;
                in_tool = false;
            } else if (message.role == Role::tool) {
                prompt.mark(OUTPUT).text(message.text()).mark(END_OUTPUT);
                after_user = false;
                in_tool = true;
            } else if (message.role == Role::assistant) {
                message.tool_calls.empty() ? answer(message) : calls(message);
            }
        }
        if (conversation.generate && after_user) prompt.mark(ASSISTANT).mark(thinking ? THINK : END_THINK);
    }
};

constexpr const char* CODER_SYSTEM =
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek "
    "Company, and you only answer questions related to computer science. For politically sensitive "
    "questions, security and privacy issues, and other non-computer science questions, you will refuse to "
    "answer\n";

void begin_kimi(const char* mark, const char* role, Prompt& prompt) {
    prompt.mark(mark).text(role).mark("<|im_middle|>");
}

void write_kimi_message(const ChatMessage& message, Prompt& prompt) {
    const bool tool = message.role == Role::tool;
    begin_kimi(message.role == Role::user        ? "<|im_user|>"
               : message.role == Role::assistant ? "<|im_assistant|>"
                                                 : "<|im_system|>",
               role_name(message.role), prompt);
    if (tool)
        prompt.text("## Return of ")
            .text(message.tool_call_id)
            .text("\\n"); // the template has both characters
    if (!message.tool_calls.empty()) {
        prompt.text(message.content.value_or("")).mark("<|tool_calls_section_begin|>");
        size_t index = 0;
        for (const ToolCall& call : message.tool_calls) {
            prompt.mark("<|tool_call_begin|>").text(fmt::format("functions.{}:{}", call.name, index++));
            prompt.mark("<|tool_call_argument_begin|>").text(json_quoted(call.arguments));
            prompt.mark("<|tool_call_end|>");
        }
        prompt.mark("<|tool_calls_section_end|>");
    } else {
        prompt.text(message.text());
    }
    prompt.mark(IM_END);
}

} // namespace

void write_plain(const Conversation& conversation, Prompt& prompt) {
    prompt.mark(BOS);
    for (const ChatMessage& message : conversation.messages) {
        if (message.role == Role::user)
            prompt.text("User: ").text(message.text()).text("\n\n");
        else if (message.role == Role::assistant)
            prompt.text("Assistant: ").text(message.text()).mark(EOS);
        else if (message.role == Role::system)
            prompt.text(message.text()).text("\n\n");
    }
    if (conversation.generate) prompt.text("Assistant:");
}

void write_coder(const Conversation& conversation, Prompt& prompt) {
    prompt.mark(BOS);
    bool system = false;
    for (const ChatMessage& message : conversation.messages) system |= message.role == Role::system;
    if (!system) prompt.text(CODER_SYSTEM);
    for (const ChatMessage& message : conversation.messages) {
        if (message.role == Role::system)
            prompt.text(message.text());
        else if (message.role == Role::user)
            prompt.text("### Instruction:\n").text(message.text()).text("\n");
        else
            prompt.text("### Response:\n").text(message.text()).text("\n").mark(EOT).text("\n");
    }
    if (conversation.generate) prompt.text("### Response:\n");
}

void write_v3(const Conversation& conversation, Prompt& prompt) {
    WriterV3{.prompt = prompt, .r1 = false}.write(conversation);
}

void write_r1(const Conversation& conversation, Prompt& prompt) {
    WriterV3{.prompt = prompt, .r1 = true}.write(conversation);
}

void write_v3_1(const Conversation& conversation, Prompt& prompt) {
    WriterV3_1{.prompt = prompt, .thinking = conversation.thinking.value_or(false)}.write(conversation);
}

void write_kimi(const Conversation& conversation, Prompt& prompt) {
    if (!conversation.tools.empty()) {
        begin_kimi("<|im_system|>", "tool_declare", prompt);
        std::string tools;
        for (const ToolDefinition& tool : conversation.tools)
            tools += (tools.empty() ? "" : ", ") + tool.whole;
        prompt.text("[" + tools + "]").mark(IM_END);
    }
    if (!conversation.messages.empty() && conversation.messages.front().role != Role::system) {
        begin_kimi("<|im_system|>", "system", prompt);
        prompt.text("You are a helpful assistant").mark(IM_END);
    }
    for (const ChatMessage& message : conversation.messages) write_kimi_message(message, prompt);
    if (conversation.generate) begin_kimi("<|im_assistant|>", "assistant", prompt);
}

} // namespace fathom::chat_formats
