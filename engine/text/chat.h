// Chat formats: a conversation to the exact token sequence a checkpoint was trained on. Formats are fixed
// code, not templates run from a file. Now: DeepSeek V3 (BOS, system, <｜User｜>question<｜Assistant｜>answer
// EOS ...).
#pragma once

#include "text/tokenizer.h"

#include <array>
#include <span>
#include <string>
#include <vector>

namespace fathom {

struct ChatMessage {
    enum class Role : uint8_t { system, user, assistant } role;
    std::string text;
};

class ChatFormat {
  public:
    // The DeepSeek V3 format over `tokenizer` (which must outlive this). Throws Error when the tokenizer
    // lacks one of the format's tokens.
    static ChatFormat deepseek_v3(const Tokenizer& tokenizer);

    // The prompt as text, with special tokens spelled out, for tests and for people; `generate` ends it where
    // the assistant's answer begins.
    std::string render(std::span<const ChatMessage> messages, bool generate) const;
    // The same as tokens, except that the messages' own texts are plain text throughout: a token's name in
    // one is spelled out in ordinary tokens, never the token itself.
    std::vector<Token> encode(std::span<const ChatMessage> messages, bool generate) const;
    std::vector<Token> stop_tokens() const; // those that end an answer

  private:
    explicit ChatFormat(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
    const Tokenizer* tokenizer_;
    std::array<Token, 4> ids_{}; // BOS, EOS, user, assistant
};

} // namespace fathom
