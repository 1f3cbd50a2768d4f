// The DeepSeek V3 chat format, after the chat_template of the published tokenizer_config.json: all system
// messages come first, joined by blank lines, wherever they stood; an answer ends with EOS; nothing but
// tokens between the turns. Left out: tool calls and their results.
#include "text/chat.h"

#include "base/error.h"

namespace fathom {

namespace {

enum Mark { BOS, EOS, USER, ASSISTANT }; // indexes NAMES and ChatFormat::ids_
constexpr std::array<const char*, 4> NAMES = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
                                              "<｜User｜>", "<｜Assistant｜>"};

// Calls mark(Mark) and text(string) in the order of the prompt.
template <class MarkSink, class TextSink>
void walk(std::span<const ChatMessage> messages, bool generate, const MarkSink& mark, const TextSink& text) {
    using Role = ChatMessage::Role;
    std::string system;
    bool first = true;
    for (const ChatMessage& message : messages) {
        if (message.role != Role::system) continue;
        system += (first ? "" : "\n\n") + message.text;
        first = false;
    }
    mark(BOS);
    text(system);
    for (const ChatMessage& message : messages) {
        if (message.role == Role::system) continue;
        mark(message.role == Role::user ? USER : ASSISTANT);
        text(message.text);
        if (message.role == Role::assistant) mark(EOS);
    }
    if (generate) mark(ASSISTANT);
}

} // namespace

ChatFormat ChatFormat::deepseek_v3(const Tokenizer& tokenizer) {
    ChatFormat format(tokenizer);
    for (size_t i = 0; i < NAMES.size(); ++i) {
        const std::optional<Token> found = tokenizer.find(NAMES[i]);
        if (!found)
            throw Error({.what = "the tokenizer lacks a token of the DeepSeek V3 chat format",
                         .expected = NAMES[i],
                         .fix = "use a chat model of the V3 family, or continue plain text instead"});
        format.ids_[i] = *found;
    }
    return format;
}

std::string ChatFormat::render(std::span<const ChatMessage> messages, bool generate) const {
    std::string out;
    walk(
        messages, generate, [&](Mark mark) { out += NAMES[mark]; },
        [&](const std::string& text) { out += text; });
    return out;
}

std::vector<Token> ChatFormat::encode(std::span<const ChatMessage> messages, bool generate) const {
    std::vector<Token> out;
    const auto text = [&](const std::string& words) {
        const std::vector<Token> tokens = tokenizer_->encode(words, Added::none);
        out.insert(out.end(), tokens.begin(), tokens.end());
    };
    walk(
        messages, generate, [&](Mark mark) { out.push_back(ids_[mark]); }, text);
    return out;
}

std::vector<Token> ChatFormat::stop_tokens() const { return {ids_[EOS]}; }

} // namespace fathom
