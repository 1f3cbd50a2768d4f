// Reads the vocabulary of a GGUF file; see gguf_vocabulary.h. What is a control token here was not always
// marked special in the tokenizer the file was converted from: converters also take names that look like
// <|...|> for one.
#include "text/gguf_vocabulary.h"

#include "base/error.h"
#include "text/pre_tokenizers.h"
#include "text/tokenizer_spec.h"

#include <fmt/format.h>

namespace fathom {

namespace {

enum Type { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 }; // of tokens, as ggml numbers them

struct Named {
    std::string_view pre;
    PreTokenizer kind;
    bool ignore_merges;
};
constexpr Named KNOWN[] = {
    {"deepseek-llm", PreTokenizer::deepseek_llm, false},
    {"deepseek-coder", PreTokenizer::deepseek_coder, false},
    {"deepseek-v3", PreTokenizer::deepseek_v3, false},
    {"joyai-llm", PreTokenizer::deepseek_v3, false},
    {"kimi-k2", PreTokenizer::kimi, true},
    {"glm4", PreTokenizer::glm, false},
    {"chatglm-bpe", PreTokenizer::glm, false},
};

[[noreturn]] void fail(const GgufVocabulary& vocabulary, std::string_view key, std::string expected,
                       std::string got) {
    throw Error({.what = "tokenizer not understood",
                 .where = fmt::format("{}: tokenizer.ggml.{}", vocabulary.where, key),
                 .expected = std::move(expected),
                 .got = std::move(got)});
}

const Named& pre_tokenizer(const GgufVocabulary& vocabulary) {
    std::string names;
    for (const Named& known : KNOWN) {
        if (known.pre == vocabulary.pre) return known;
        names += fmt::format("{}{}", names.empty() ? "" : ", ", known.pre);
    }
    fail(vocabulary, "pre", "one of " + names, printable(vocabulary.pre));
}

void read_token(const GgufVocabulary& vocabulary, size_t i, TokenizerSpec& spec) {
    const std::string_view text = vocabulary.tokens[i];
    const int type = vocabulary.types[i];
    const auto id = static_cast<Token>(i);
    // Rows of the embedding beyond the vocabulary; older converters called these names user-defined.
    if (type == UNUSED || text == fmt::format("[PAD{}]", i)) return;
    if (type == NORMAL) return spec.vocab.push_back({std::string(text), id});
    if (type != CONTROL && type != USER_DEFINED)
        fail(vocabulary, fmt::format("token_type[{}]", i), "1, 3, 4 or 5", std::to_string(type));
    if (text.empty() || text.size() > LONGEST_ADDED)
        fail(vocabulary, fmt::format("tokens[{}]", i), fmt::format("1 to {} bytes", LONGEST_ADDED),
             fmt::format("{} bytes", text.size()));
    spec.added.push_back({std::string(text), id, type == CONTROL, false});
}

void read_merge(const GgufVocabulary& vocabulary, size_t i, TokenizerSpec& spec) {
    const std::string_view text = vocabulary.merges[i];
    const size_t space = text.find(' ');
    if (space == 0 || space == text.npos || space + 1 == text.size() ||
        text.find(' ', space + 1) != text.npos)
        fail(vocabulary, fmt::format("merges[{}]", i), "\"LEFT RIGHT\" with one space",
             fmt::format("\"{}\"", printable(text)));
    spec.merges.push_back({std::string(text.substr(0, space)), std::string(text.substr(space + 1))});
}

} // namespace

TokenizerSpec read_gguf_vocabulary(const GgufVocabulary& vocabulary) {
    if (vocabulary.model != "gpt2")
        fail(vocabulary, "model", "gpt2 (byte-level BPE)", printable(vocabulary.model));
    const Named& known = pre_tokenizer(vocabulary);
    if (vocabulary.types.size() != vocabulary.tokens.size())
        fail(vocabulary, "token_type", fmt::format("{}, as many as tokens", vocabulary.tokens.size()),
             std::to_string(vocabulary.types.size()));
    if (vocabulary.tokens.empty() || vocabulary.tokens.size() > UINT32_MAX)
        fail(vocabulary, "tokens", "1 to 4294967295", std::to_string(vocabulary.tokens.size()));
    TokenizerSpec spec{.where = vocabulary.where,
                       .vocab_key = "tokenizer.ggml.tokens",
                       .merges_key = "tokenizer.ggml.merges",
                       .added_key = "tokenizer.ggml.tokens",
                       .splits = splits_of(known.kind, vocabulary.where + ": tokenizer.ggml.pre"),
                       .ignore_merges = known.ignore_merges};
    for (size_t i = 0; i < vocabulary.tokens.size(); ++i) read_token(vocabulary, i, spec);
    spec.merges.reserve(vocabulary.merges.size());
    for (size_t i = 0; i < vocabulary.merges.size(); ++i) read_merge(vocabulary, i, spec);
    return spec;
}

} // namespace fathom
