// Writing vocabularies; see vocabulary_export.h. GGUF names the splits instead of listing them: the name is
// that of the tokenizer which cuts a text with every kind of difficulty in it into the same pieces.
#include "text/vocabulary_export.h"

#include "base/error.h"
#include "text/pre_tokenizers.h"

#include <fmt/format.h>
#include <unordered_map>

namespace fathom {

namespace {

enum Type : int32_t { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 }; // of tokens, as ggml has them

struct Named {
    std::string_view pre;
    PreTokenizer kind;
};
constexpr Named KNOWN[] = {{"deepseek-v3", PreTokenizer::deepseek_v3},
                           {"deepseek-llm", PreTokenizer::deepseek_llm},
                           {"deepseek-coder", PreTokenizer::deepseek_coder},
                           {"kimi-k2", PreTokenizer::kimi},
                           {"glm4", PreTokenizer::glm}};

// Letters with and without case, in and out of the lists of 2023; digits in runs; ideographs, kana and hangul
// beside each other; marks; punctuation of ASCII and of others before letters; symbols; and all kinds of
// space.
constexpr std::string_view PROBE =
    "Hello world's it'LL 12345678 3.14\n\n  \tx = foo(bar_1,\"2\");  //end \r\n \n"
    "caf\xC3\xA9 \xD0\x9F\xD1\x80\xD0\xB8\xD0\xB2\xD0\xB5\xD1\x82 \xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7 "
    "\xE4\xBD\xA0\xE5\xA5\xBD\xE4\xB8\x96\xE7\x95\x8C\xE3\x81\x93\xE3\x82\x93\xE3\x82\xAB\xE3\x83\x8A"
    "\xED\x95\x9C\xEA\xB5\xAD abc\xE4\xB8\xAD"
    "d\xE6\x96\x87"
    "42 e\xCC\x81t\xC3\xA9 \xE2\x82\xAC"
    "5 \xE2\x89\xA0 "
    "\xF0\x9F\x98\x80 \xEF\xBC\x9A\xE3\x80\x82\xE2\x80\x9Cq\xE2\x80\x9D !word #tag "
    "...and\xC2\xA0nbsp\xC2\xB2 "
    "\xD5\xA1\xD6\x80 \xE1\x83\x90 CamelCase UPPERlower   ";

std::vector<std::string> pieces_of(std::vector<SplitRule> rules) {
    const Splitter splitter(std::move(rules));
    Splitter::Run run(splitter);
    std::vector<std::string> pieces;
    for (const std::string_view piece : run.pieces(PROBE)) pieces.emplace_back(piece);
    return pieces;
}

std::string recognise(const TokenizerSpec& spec) {
    const auto pieces = pieces_of(spec.splits);
    std::string names;
    for (const Named& known : KNOWN) {
        if (pieces == pieces_of(splits_of(known.kind, "the known tokenizers"))) return std::string(known.pre);
        names += fmt::format("{}{}", names.empty() ? "" : ", ", known.pre);
    }
    throw Error({.what = "a tokenizer that GGUF has no name for",
                 .where = spec.where,
                 .expected = "the splits of " + names,
                 .got = "others"});
}

// The two parts that merge to each token when all pairs of a lower rank have merged, lowest first. A token
// that its own bytes never become has none.
std::vector<std::string> merges_of_ranks(const std::vector<TokenizerSpec::Word>& words) {
    std::unordered_map<std::string_view, Token> rank;
    for (const auto& word : words) rank.emplace(word.text, word.id);
    std::vector<std::string> merges;
    for (const auto& word : words) { // in order of rank
        const std::string_view text = word.text;
        std::vector<size_t> starts; // of the parts; each character of the alphabet is a byte
        for (size_t i = 0; i < text.size(); ++i)
            if ((text[i] & 0xC0) != 0x80) starts.push_back(i);
        starts.push_back(text.size());
        while (starts.size() > 3) {
            size_t best = 0;
            Token lowest = word.id;
            for (size_t i = 0; i + 2 < starts.size(); ++i) {
                const auto found = rank.find(text.substr(starts[i], starts[i + 2] - starts[i]));
                if (found == rank.end() || found->second >= lowest) continue;
                best = i + 1;
                lowest = found->second;
            }
            if (best == 0) break;
            starts.erase(starts.begin() + static_cast<ptrdiff_t>(best));
        }
        if (starts.size() == 3)
            merges.push_back(fmt::format("{} {}", text.substr(0, starts[1]), text.substr(starts[1])));
    }
    return merges;
}

} // namespace

ExportedVocabulary export_vocabulary(const TokenizerSpec& spec, uint32_t size) {
    ExportedVocabulary out{
        recognise(spec), std::vector<std::string>(size), std::vector<int32_t>(size, UNUSED), {}};
    for (uint32_t id = 0; id < size; ++id) out.tokens[id] = fmt::format("[PAD{}]", id);
    const auto set = [&](Token id, const std::string& text, int32_t type) {
        if (id >= size)
            throw Error({.what = "a token beyond the model's vocabulary",
                         .where = fmt::format("{}: \"{}\"", spec.where, printable(text)),
                         .expected = fmt::format("ids below {}", size),
                         .got = std::to_string(id)});
        out.tokens[id] = text;
        out.types[id] = type;
    };
    for (const auto& [text, id] : spec.vocab) set(id, text, NORMAL);
    for (const auto& added : spec.added) set(added.id, added.text, added.special ? CONTROL : USER_DEFINED);
    if (spec.ranked) out.merges = merges_of_ranks(spec.vocab);
    for (const auto& [left, right] : spec.merges) out.merges.push_back(left + " " + right);
    return out;
}

} // namespace fathom
