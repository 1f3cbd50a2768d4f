// Prompts of prompt.h.
#include "text/prompt.h"

#include "base/error.h"

#include <initializer_list>

namespace fathom {

namespace {
// In a format's own text: tokens of every model that has the format, and of some.
constexpr std::string_view MARKS[] = {"<think>", "</think>"};
constexpr std::string_view MAYBE_MARKS[] = {"｜DSML｜",     "<tool_call>",     "</tool_call>",
                                            "<arg_key>",    "</arg_key>",      "<arg_value>",
                                            "</arg_value>", "<tool_response>", "</tool_response>"};
} // namespace

Prompt& Prompt::mark(std::string_view name) {
    pieces_.push_back({Kind::mark, std::string(name)});
    return *this;
}

Prompt& Prompt::text(std::string_view words) {
    if (pieces_.empty() || pieces_.back().kind != Kind::text)
        pieces_.push_back({Kind::text, std::string(words)});
    else
        pieces_.back().text += words;
    return *this;
}

Prompt& Prompt::fixed(std::string_view words) {
    while (!words.empty()) {
        size_t at = words.size();
        std::string_view name;
        Kind kind = Kind::text;
        const auto look_for = [&](std::string_view candidate, Kind of) {
            const size_t found = words.find(candidate);
            if (found >= at) return;
            at = found;
            name = candidate;
            kind = of;
        };
        for (const std::string_view candidate : MARKS) look_for(candidate, Kind::mark);
        for (const std::string_view candidate : MAYBE_MARKS) look_for(candidate, Kind::mark_or_text);
        if (at > 0) text(words.substr(0, at));
        if (!name.empty()) pieces_.push_back({kind, std::string(name)});
        words.remove_prefix(at + name.size());
    }
    return *this;
}

std::string Prompt::str() const {
    std::string out;
    for (const Piece& piece : pieces_) out += piece.text;
    return out;
}

std::vector<Token> Prompt::encode(const Tokenizer& tokenizer) const {
    std::vector<Token> out;
    std::string words; // since the last mark
    const auto end_words = [&] {
        const std::vector<Token> tokens = tokenizer.encode(words, Added::none);
        out.insert(out.end(), tokens.begin(), tokens.end());
        words.clear();
    };
    for (const Piece& piece : pieces_) {
        if (piece.kind == Kind::mark || (piece.kind == Kind::mark_or_text && tokenizer.find(piece.text))) {
            end_words();
            out.push_back(find_mark(tokenizer, piece.text));
        } else {
            words += piece.text;
        }
    }
    end_words();
    return out;
}

Token find_mark(const Tokenizer& tokenizer, std::string_view name) {
    const std::optional<Token> found = tokenizer.find(name);
    if (!found)
        throw Error({.what = "the tokenizer lacks a token of the chat format",
                     .expected = std::string(name),
                     .fix = "use the chat format that the model was trained with, or continue plain text "
                            "instead"});
    return *found;
}

} // namespace fathom
