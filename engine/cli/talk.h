// A conversation with a model. The session holds all of it as tokens, and a turn is appended to it: what was
// said stays exactly what the model saw, and only new tokens are processed. Where a format drops an answer's
// reasoning from the history, the last turn is written anew before the next question, from the first token
// that differs.
#pragma once

#include "cli/generate.h"
#include "text/chat.h"
#include "text/reasoning.h"

namespace fathom::cli {

struct TalkOptions {
    SamplingParams sampling;
    uint32_t max_tokens = 0;
    std::string system;
    std::optional<bool> thinking; // absent: what the format does
};

class Talk {
  public:
    // `model` and `format` must outlive this. Throws Error when the format lacks the wanted mode, or the
    // tokenizer one of the format's tokens.
    Talk(const LoadedModel& model, const ChatFormat& format, TalkOptions options);

    // Answers; `sink` gets the parts of the answer as they come. After an Error, or a Ctrl-C before the
    // answer began, the conversation is as before.
    Generated ask(const std::string& question, const std::function<void(const ReasoningStream::Part&)>& sink);
    bool undo();                    // forgets the last turn; false when there is none
    void reset();                   // forgets everything
    void reset(std::string system); // and begins with another instruction

    void save(const std::filesystem::path& path) const { session_.save(path); }
    // Takes up a saved conversation; what is set here stays set.
    void load(const std::filesystem::path& path);

    std::string last_answer() const; // without its reasoning
    uint32_t position() const { return session_.position(); }
    size_t turns() const { return turns_.size(); }
    SamplingParams& sampling() { return session_.sampling(); }

  private:
    // What to do for a question: go back to `from`, then append `tokens`; the question's turn begins at
    // `turn`.
    struct Plan {
        uint32_t from, turn;
        std::vector<Token> tokens;
    };
    struct Exchange {
        std::string question, answer;
        bool thought = false; // with reasoning, which the session still holds
    };

    Plan plan(const std::string& question) const;
    std::vector<ChatMessage> opening() const;
    std::vector<Token> encode(const std::vector<ChatMessage>& messages, bool generate) const;
    size_t stops_in(const std::vector<ChatMessage>& messages) const;
    size_t after_stops(const std::vector<Token>& tokens, size_t count) const;
    Generated generate_answer(std::span<const Token> tokens, Exchange& exchange,
                              const std::function<void(const ReasoningStream::Part&)>& sink);
    bool is_stop(Token token) const;
    bool opens_reasoning() const;

    const LoadedModel& model_;
    Session session_;
    const ChatFormat& format_;
    TalkOptions options_;
    std::vector<Token> stops_;    // the format's first
    std::vector<uint32_t> turns_; // position where each begins
    Exchange last_;
};

} // namespace fathom::cli
