// Vocabularies inside GGUF files: the published ones against published ids, and what is refused.
#include "help.h"
#include "text/gguf_vocabulary.h"

#include <cstring>

using namespace help;
using fathom::GgufVocabulary;

namespace {

// Reads what the tokenizer needs from the front of a well-formed GGUF file. (engine/checkpoint has the reader
// that is made for files of strangers.)
class Gguf {
  public:
    explicit Gguf(const std::string& file) : bytes_(file) {
        at_ = 16;
        const auto count = number<uint64_t>();
        vocabulary.where = "vocab.gguf";
        for (uint64_t i = 0; i < count; ++i) {
            const std::string_view key = text();
            value(key, number<uint32_t>());
        }
    }
    GgufVocabulary vocabulary;

  private:
    template <class T> T number() {
        T out;
        std::memcpy(&out, bytes_.data() + at_, sizeof out);
        at_ += sizeof out;
        return out;
    }
    std::string_view text() {
        const auto length = number<uint64_t>();
        at_ += length;
        return bytes_.substr(at_ - length, length);
    }
    void value(std::string_view key, uint32_t type) {
        if (type == 8) {
            const std::string_view is = text();
            if (key == "tokenizer.ggml.model") vocabulary.model = is;
            if (key == "tokenizer.ggml.pre") vocabulary.pre = is;
        } else if (type == 9) {
            const auto element = number<uint32_t>();
            const auto count = number<uint64_t>();
            REQUIRE((element == 8 || element == 5));
            for (uint64_t i = 0; i < count; ++i) {
                if (element == 5) vocabulary.types.push_back(number<int32_t>());
                if (element == 8)
                    (key == "tokenizer.ggml.tokens" ? vocabulary.tokens : vocabulary.merges)
                        .push_back(text());
            }
        } else {
            at_ += type == 7 ? 1 : 4;
        }
    }

    std::string_view bytes_;
    size_t at_;
};

const Tokenizer& published(const std::string& name) {
    static std::map<std::string, Tokenizer> loaded;
    const auto found = loaded.find(name);
    if (found != loaded.end()) return found->second;
    const std::string file = shared("data/tokenizers/ggml-vocab-" + name + ".gguf");
    return loaded.emplace(name, Tokenizer::from_gguf(Gguf(file).vocabulary)).first->second;
}

bool have(const std::string& name) { return have_shared("data/tokenizers/ggml-vocab-" + name + ".gguf"); }

} // namespace

TEST_CASE("deepseek-llm and V2 from GGUF: published and reference vectors, the wikitext chunk") {
    if (!have("deepseek-llm")) return;
    const Tokenizer& tokenizer = published("deepseek-llm");
    CHECK(check_rows("llama.cpp-deepseek-llm.jsonl", tokenizer) == 32);
    CHECK(check_rows("reference-llm-v2.jsonl", tokenizer) == 250);
    check_wikitext("wikitext-v2", tokenizer, 100000);
    CHECK(tokenizer.size() == 100015); // what pads the embedding is no token
    CHECK(tokenizer.is_special(100000));
    CHECK_FALSE(tokenizer.is_special(100014));
    CHECK(tokenizer.bytes(100014) == "ü");
    CHECK(tokenizer.find("[PAD100015]") == std::nullopt);
}

TEST_CASE("deepseek-coder from GGUF: published and reference vectors") {
    if (!have("deepseek-coder")) return;
    const Tokenizer& tokenizer = published("deepseek-coder");
    CHECK(check_rows("llama.cpp-deepseek-coder.jsonl", tokenizer) == 32);
    CHECK(check_rows("reference-coder.jsonl", tokenizer) == 247);
    CHECK(tokenizer.find("<|EOT|>") == Token{32021});
}

TEST_CASE("deepseek-coder as tokenizer.json: the same vectors") {
    if (!have("deepseek-coder")) return;
    const std::string file = shared("data/tokenizers/ggml-vocab-deepseek-coder.gguf");
    const GgufVocabulary vocabulary = Gguf(file).vocabulary;
    json spec = {{"decoder", {{"type", "ByteLevel"}}}, {"model", {{"type", "BPE"}}}}, splits = json::array();
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
        const std::string text(vocabulary.tokens[id]);
        if (vocabulary.types[id] == 1) spec["model"]["vocab"][text] = id;
        if (id >= 32000 && id < 32022)
            spec["added_tokens"].push_back(added(id, text, vocabulary.types[id] == 3));
    }
    spec["model"]["merges"] = std::vector<std::string>(vocabulary.merges.begin(), vocabulary.merges.end());
    for (const char* regex : {"[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+"})
        splits.push_back({{"type", "Split"},
                          {"pattern", {{"Regex", regex}}},
                          {"behavior", "Isolated"},
                          {"invert", false}});
    splits.push_back({{"type", "Digits"}, {"individual_digits", true}});
    splits.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
    spec["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", splits}};
    const Tokenizer tokenizer = make(spec);
    CHECK(check_rows("llama.cpp-deepseek-coder.jsonl", tokenizer) == 32);
    CHECK(check_rows("reference-coder.jsonl", tokenizer) == 247);
}

namespace {

// A small vocabulary: a token for each byte (its id is the byte), "ab" 256, "abc" 257, <s> 258 (control),
// "<u>" 259 (user-defined), [PAD260] and one unused; its texts live in `kept`.
struct Small {
    std::vector<std::string> kept;
    GgufVocabulary vocabulary;

    Small() {
        for (unsigned byte = 0; byte < 256; ++byte) kept.push_back(letter(byte));
        for (const char* text : {"ab", "abc", "<s>", "<u>", "[PAD260]", "gone"}) kept.push_back(text);
        vocabulary.where = "v.gguf";
        vocabulary.model = "gpt2";
        vocabulary.pre = "deepseek-v3";
        vocabulary.tokens.assign(kept.begin(), kept.end());
        vocabulary.types.assign(kept.size(), 1);
        vocabulary.types[258] = 3;
        vocabulary.types[259] = vocabulary.types[260] = 4;
        vocabulary.types[261] = 5;
        vocabulary.merges = {"a b", "ab c"};
    }
};

template <class Change> void refused(const std::string& part, const Change& change) {
    Small small;
    change(small.vocabulary);
    const std::string message = error_of([&] { Tokenizer::from_gguf(small.vocabulary); });
    CHECK_MESSAGE(message.find(part) != std::string::npos, "expected \"" << part << "\" in: " << message);
}

} // namespace

TEST_CASE("types of tokens: control is special, padding and unused are no tokens") {
    const Small small;
    const Tokenizer tokenizer = Tokenizer::from_gguf(small.vocabulary);
    CHECK(tokenizer.encode("<s>abc<u>") == Tokens{258, 257, 259});
    CHECK(tokenizer.encode("<s>abc<u>", Added::ordinary) == Tokens{'<', 's', '>', 257, 259});
    CHECK(tokenizer.encode("[PAD260]gone") ==
          Tokens{'[', 'P', 'A', 'D', '2', '6', '0', ']', 'g', 'o', 'n', 'e'});
    CHECK(tokenizer.is_special(258));
    CHECK_FALSE(tokenizer.is_special(259));
    CHECK(tokenizer.is_added(258));
    CHECK(tokenizer.is_added(259));
    CHECK_FALSE(tokenizer.is_added(257));
    CHECK_FALSE(tokenizer.is_added(260));
    CHECK_FALSE(tokenizer.contains(260));
    CHECK(tokenizer.size() == 260);
    CHECK(tokenizer.decode(Tokens{258, 257, ' ', 259}) == "<s>abc <u>");
}

TEST_CASE("each name of a pre-tokenizer runs its splits") {
    // Digits by three or one by one, letters with the sign before them or not, Han beside other letters.
    const std::pair<const char*, size_t> names[] = {
        {"deepseek-v3", 3}, {"joyai-llm", 3},    {"kimi-k2", 3},       {"glm4", 3},
        {"chatglm-bpe", 3}, {"deepseek-llm", 1}, {"deepseek-coder", 1}};
    for (const auto& [name, digits] : names) {
        Small small;
        small.kept.push_back("123"); // reached by merging only where the digits are one piece
        small.kept.push_back("12");
        small.vocabulary.tokens.assign(small.kept.begin(), small.kept.end());
        small.vocabulary.types.resize(small.kept.size(), 1);
        small.vocabulary.merges = {"1 2", "12 3"};
        small.vocabulary.pre = name;
        const Tokenizer tokenizer = Tokenizer::from_gguf(small.vocabulary);
        CHECK_MESSAGE(tokenizer.encode("123").size() == (digits == 3 ? 1 : 3), name);
    }
}

TEST_CASE("long runs go through the splits of every tokenizer in near-linear time") {
    std::vector<std::string> texts;
    for (const char* unit :
         {"a", "A", " ", "\n", "\t \r\n", "1", "!", "\u4f60", "\u0627", "e\u0301", "\u01c5"}) {
        texts.emplace_back();
        while (texts.back().size() < 200'000) texts.back() += unit;
    }
    // White space that does not end the piece: \s+$ is tried in vain, at every one of them if PCRE2 let it.
    texts.push_back(std::string(200'000, ' ') + "\u0627");
    texts.push_back("\u0627" + std::string(200'000, '\t') + "\u0627 \u0627");
    for (const char* name : {"deepseek-v3", "kimi-k2", "glm4", "deepseek-llm", "deepseek-coder"}) {
        Small small;
        small.vocabulary.pre = name;
        const Tokenizer tokenizer = Tokenizer::from_gguf(small.vocabulary);
        for (const std::string& text : texts) CHECK((tokenizer.decode(tokenizer.encode(text)) == text));
    }
}

TEST_CASE("GGUF vocabularies that are not understood are refused by key and value") {
    refused("v.gguf: tokenizer.ggml.model", [](GgufVocabulary& v) { v.model = "llama"; });
    refused("got: qwen2", [](GgufVocabulary& v) { v.pre = "qwen2"; });
    refused("tokenizer.ggml.pre", [](GgufVocabulary& v) { v.pre = ""; });
    refused("tokenizer.ggml.tokens", [](GgufVocabulary& v) { v.tokens.clear(), v.types.clear(); });
    refused("tokenizer.ggml.token_type", [](GgufVocabulary& v) { v.types.pop_back(); });
    refused("tokenizer.ggml.token_type", [](GgufVocabulary& v) { v.types.clear(); });
    for (const int type : {0, 2, 6, 7, -1})
        refused("token_type[7]", [&](GgufVocabulary& v) { v.types[7] = type; });
    refused("tokenizer.ggml.tokens[258]", [](GgufVocabulary& v) { v.tokens[258] = ""; });
    refused("an empty token: v.gguf: tokenizer.ggml.tokens", [](GgufVocabulary& v) { v.tokens[257] = ""; });
    refused("the same token twice: v.gguf: tokenizer.ggml.tokens[\"ab\"]",
            [](GgufVocabulary& v) { v.tokens[257] = "ab"; });
    refused("the same added token twice", [](GgufVocabulary& v) { v.tokens[259] = "<s>"; });
    refused("none for byte 0x61", [](GgufVocabulary& v) { v.tokens['a'] = "\u4f60"; });
    for (const char* merge : {"ab", " ab", "ab ", "a  b", "a b c", "", " "})
        refused("tokenizer.ggml.merges[1]", [&](GgufVocabulary& v) { v.merges[1] = merge; });
    refused("tokenizer.ggml.merges[1]", [](GgufVocabulary& v) { v.merges[1] = "b c"; });
    refused("the same merge twice", [](GgufVocabulary& v) { v.merges.push_back("a b"); });
}
