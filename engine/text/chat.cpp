// The table of chat formats, and what holds for all of them.
#include "text/chat.h"

#include "base/error.h"
#include "text/chat_formats.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace fathom {

namespace {

using namespace chat_formats;
using Thinking = ChatFormat::Thinking;
using Role = ChatMessage::Role;

constexpr ChatFormat FORMATS[] = {
    {"deepseek-llm", EOS, false, Thinking::never, false, false, write_plain},
    {"deepseek-coder", EOT, false, Thinking::never, false, false, write_coder},
    {"deepseek-v2", EOS, false, Thinking::never, false, false, write_plain},
    {"deepseek-v3", EOS, false, Thinking::never, false, false, write_v3},
    {"deepseek-r1", EOS, false, Thinking::always, false, false, write_r1},
    {"deepseek-v3.1", EOS, false, Thinking::choice, false, false, write_v3_1},
    {"deepseek-v3.2", EOS, false, Thinking::choice, true, true, write_v3_2},
    {"deepseek-v4", EOS, false, Thinking::choice, true, true, write_v4},
    {"kimi-k2", IM_END, false, Thinking::never, true, false, write_kimi},
    {"glm-4.7", "<|user|>", true, Thinking::unless_told, true, false, write_glm},
};

Error no_place(const ChatFormat& format, std::string what, std::string fix) {
    return Error({.what = fmt::format("the chat format {} has no place for {}", format.name, what),
                  .fix = std::move(fix)});
}

// What the template of a format contains and what it must not; the first that fits is it.
struct Signs {
    const char* format;
    std::array<std::string_view, 3> has, lacks; // "" is in every text, so lacks leaves it out
};
constexpr Signs SIGNS[] = {
    {"glm-4.7",
     {"[gMASK]<sop>", "loop.index0 > ns.last_user_index) and reasoning_content -%}", "'<tool_response>'"},
     {"/nothink"}},
    {"kimi-k2", {"<|im_middle|>", "You are a helpful assistant<|im_end|>"}, {}},
    {"deepseek-v3.2", {"DSML", "function_results"}, {}},
    {"deepseek-v4", {"DSML", "tool_result"}, {}},
    {"deepseek-coder", {"### Instruction:", "### Response:", "<|EOT|>"}, {}},
    {"deepseek-v3.1", {"<｜User｜>", "</think>", "thinking"}, {"DSML", "<think></think>"}},
    {"deepseek-r1", {"<｜User｜>", "</think>", "<think>\\n"}, {"DSML", "thinking"}},
    {"deepseek-v3", {"<｜User｜>", "<｜Assistant｜>"}, {"think"}},
    {"deepseek-v2", {"User: ", "Assistant:", "bos_token"}, {"<｜User｜>"}},
};

bool fits(const Signs& signs, std::string_view text) {
    const auto in_text = [&](std::string_view sign) { return text.find(sign) != text.npos; };
    return std::all_of(signs.has.begin(), signs.has.end(), in_text) &&
           std::none_of(signs.lacks.begin(), signs.lacks.end(),
                        [&](std::string_view sign) { return !sign.empty() && in_text(sign); });
}

void check_supported(const ChatFormat& format, const Conversation& conversation) {
    if (!format.tools && !conversation.tools.empty())
        throw no_place(format, "definitions of tools", "describe them in the system message");
    if (conversation.thinking && format.thinks(conversation.thinking) != *conversation.thinking)
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

bool ChatFormat::thinks(std::optional<bool> wanted) const {
    switch (thinking) {
    case Thinking::never:
        return false;
    case Thinking::always:
        return true;
    case Thinking::choice:
        return wanted.value_or(false);
    case Thinking::unless_told:
        return wanted.value_or(true);
    }
    return false;
}

const ChatFormat* ChatFormat::find(std::string_view name) {
    for (const ChatFormat& format : FORMATS)
        if (name == format.name) return &format;
    return nullptr;
}

const ChatFormat& ChatFormat::named(std::string_view name) {
    if (const ChatFormat* format = find(name)) return *format;
    throw Error(
        {.what = "there is no such chat format", .expected = "one of " + names(), .got = printable(name)});
}

const ChatFormat& ChatFormat::of_template(std::string_view text, std::string_view where) {
    for (const Signs& signs : SIGNS)
        if (fits(signs, text)) return named(signs.format);
    throw Error({.what = "the model's chat template is not of a known format",
                 .where = printable(where, 4096),
                 .expected = "one of " + names(),
                 .got = printable(text),
                 .fix = "choose one, with --chat-format"});
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
