// The table of chat formats, and what holds for all of them.
#include "text/chat.h"

#include "base/error.h"
#include "text/chat_formats.h"

#include <fmt/format.h>

namespace fathom {

namespace {

using namespace chat_formats;
using Thinking = ChatFormat::Thinking;
using Role = ChatMessage::Role;

constexpr ChatFormat FORMATS[] = {
    {"deepseek-llm", EOS, Thinking::never, false, false, write_plain},
    {"deepseek-coder", EOT, Thinking::never, false, false, write_coder},
    {"deepseek-v2", EOS, Thinking::never, false, false, write_plain},
    {"deepseek-v3", EOS, Thinking::never, false, false, write_v3},
    {"deepseek-r1", EOS, Thinking::always, false, false, write_r1},
    {"deepseek-v3.1", EOS, Thinking::choice, false, false, write_v3_1},
    {"deepseek-v3.2", EOS, Thinking::choice, true, true, write_v3_2},
    {"deepseek-v4", EOS, Thinking::choice, true, true, write_v4},
    {"kimi-k2", IM_END, Thinking::never, true, false, write_kimi},
};

Error no_place(const ChatFormat& format, std::string what, std::string fix) {
    return Error({.what = fmt::format("the chat format {} has no place for {}", format.name, what),
                  .fix = std::move(fix)});
}

void check_supported(const ChatFormat& format, const Conversation& conversation) {
    if (!format.tools && !conversation.tools.empty())
        throw no_place(format, "definitions of tools", "describe them in the system message");
    if (conversation.thinking && format.thinking != Thinking::choice &&
        *conversation.thinking != (format.thinking == Thinking::always))
        throw no_place(format, *conversation.thinking ? "thinking" : "answers without thinking",
                       "leave the choice out");
    for (const ChatMessage& message : conversation.messages) {
        const bool new_role = message.role == Role::developer || message.role == Role::latest_reminder;
        if (!format.tasks && new_role)
            throw no_place(format, fmt::format("the role {}", role_name(message.role)), "use system or user");
        if (!format.tasks && !message.task.empty()) throw no_place(format, "a task", "leave it out");
        if (message.prefix && format.write != write_v3_1)
            throw no_place(format, "an answer to be continued", "leave prefix out");
    }
}

Prompt prompt_of(const ChatFormat& format, const Conversation& conversation) {
    check_supported(format, conversation);
    Prompt prompt;
    format.write(conversation, prompt);
    return prompt;
}

} // namespace

const ChatFormat& ChatFormat::named(std::string_view name) {
    for (const ChatFormat& format : FORMATS)
        if (name == format.name) return format;
    throw Error(
        {.what = "there is no such chat format", .expected = "one of " + names(), .got = printable(name)});
}

std::string ChatFormat::names() {
    std::string all;
    for (const ChatFormat& format : FORMATS) all += (all.empty() ? "" : ", ") + std::string(format.name);
    return all;
}

std::string ChatFormat::render(const Conversation& conversation) const {
    return prompt_of(*this, conversation).str();
}

std::vector<Token> ChatFormat::encode(const Conversation& conversation, const Tokenizer& tokenizer) const {
    return prompt_of(*this, conversation).encode(tokenizer);
}

std::vector<Token> ChatFormat::stop_tokens(const Tokenizer& tokenizer) const {
    return {find_mark(tokenizer, stop)};
}

} // namespace fathom
