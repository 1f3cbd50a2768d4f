// Chat formats: a conversation to the exact token sequence a checkpoint was trained on. Formats are fixed code, not
// templates run from a file. Now: DeepSeek V3 (BOS, system, <｜User｜>question<｜Assistant｜>answer EOS ...).
#pragma once

#include "text/tokenizer.h"

#include <string>
#include <vector>

namespace fathom {

struct ChatMessage {
    enum class Role : uint8_t { system, user, assistant } role;
    std::string text;
};

class ChatFormat {
  public:
    // The DeepSeek V3 format over `tokenizer` (which must outlive this). Throws Error when the tokenizer lacks one of
    // the format's tokens.
    static ChatFormat deepseek_v3(const Tokenizer& tokenizer);

    // The prompt as text, with special tokens spelled out, for tests and for people; `generate` ends it where the
    // assistant's answer begins.
    std::string render(std::span<const ChatMessage> messages, bool generate) const;
    // The same as tokens. What people typed is encoded with special tokens as plain text.
    std::vector<Token> encode(std::span<const ChatMessage> messages, bool generate) const;
    std::vector<Token> stop_tokens() const;

  private:
    explicit ChatFormat(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
    const Tokenizer* tokenizer_;
    Token bos_ = 0, eos_ = 0, user_ = 0, assistant_ = 0;
};

} // namespace fathom
