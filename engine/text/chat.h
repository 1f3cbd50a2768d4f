// Chat formats: a conversation to the exact prompt a checkpoint was trained on. One for each generation of
// the family, as fixed code after the published template or encoder; no template is run from a file. Each
// follows its original to the byte, oddities included; chat_formats.h says where they are.
#pragma once

#include "text/conversation.h"
#include "text/tokenizer.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

class Prompt;

struct ChatFormat {
    // choice: Conversation::thinking chooses, and absent is no; unless_told: absent is yes.
    enum class Thinking { never, always, choice, unless_told };

    const char* name;
    const char* stop;  // the mark that ends an answer
    bool stop_is_next; // the stop is the mark of the next question; else it stands behind every answer
    Thinking thinking;
    bool tools; // whether definitions of tools have a place
    bool tasks; // whether it has tasks and the roles developer and latest_reminder
    void (*write)(const Conversation& conversation, Prompt& prompt);

    bool thinks(std::optional<bool> wanted) const; // whether an answer begins with its reasoning

    static const ChatFormat* find(std::string_view name); // nullptr when there is none
    // Throws Error that lists the names.
    static const ChatFormat& named(std::string_view name);
    static std::string names(); // all of them, with commas
    // The format whose published template `text` is (or a variant that renders the same), by what only its
    // template says; `where` is whose, for messages. Throws Error when it is none of them.
    static const ChatFormat& of_template(std::string_view text, std::string_view where);

    // The prompt as text, with marks spelled out, for tests and for people. Throws Error when the format has
    // no place for something in the conversation.
    std::string render(const Conversation& conversation) const;
    // The same as tokens, except that the messages' own texts are plain text throughout: a token's name in
    // one is spelled out in ordinary tokens, never the token itself. Throws Error when the tokenizer lacks
    // one of the format's tokens.
    std::vector<Token> encode(const Conversation& conversation, const Tokenizer& tokenizer) const;
    std::vector<Token> stop_tokens(const Tokenizer& tokenizer) const; // those that end an answer
};

} // namespace fathom
