// Rank files, as Moonlight and Kimi ship them. The published ones are not in the shared data: these are made
// here, and what encoding must give is computed by its definition.
#include "help.h"
#include "text/pre_tokenizers.h"

#include <random>
#include <set>

using namespace help;

namespace {

std::string base64(std::string_view bytes) {
    const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (size_t i = 0; i < bytes.size(); i += 3) {
        unsigned bits = 0;
        for (size_t k = 0; k < 3; ++k)
            bits = bits << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
        for (size_t k = 0; k < 4; ++k) out += k <= bytes.size() - i ? digits[bits >> (18 - 6 * k) & 63] : '=';
    }
    return out;
}

// All bytes (their ids are not their values), then `more`.
std::vector<std::string> words_with(const std::vector<std::string>& more) {
    std::vector<std::string> words;
    for (unsigned i = 0; i < 256; ++i) words.emplace_back(1, static_cast<char>(i * 7 + 97));
    words.insert(words.end(), more.begin(), more.end());
    return words;
}
std::string rank_file(const std::vector<std::string>& words) {
    std::string out;
    for (size_t i = 0; i < words.size(); ++i) out += base64(words[i]) + " " + std::to_string(i) + "\n";
    return out;
}
Tokenizer load(const std::string& ranks, const std::string& config = "") {
    return Tokenizer::from_tiktoken(ranks, "t.model", config, "c.json");
}
std::string error_of_load(const std::string& ranks, const std::string& config = "") {
    return error_of([&] { load(ranks, config); });
}

// One piece by definition: an entry is its token; else, while neighbours join to an entry, those with the
// lowest rank do, the leftmost of equals.
Tokens merge_naively(const std::string& piece, const std::map<std::string, Token>& ranks) {
    if (const auto whole = ranks.find(piece); whole != ranks.end()) return {whole->second};
    std::vector<std::string> parts;
    for (const char c : piece) parts.emplace_back(1, c);
    for (;;) {
        size_t at = SIZE_MAX;
        Token best = UINT32_MAX;
        for (size_t i = 0; i + 1 < parts.size(); ++i) {
            const auto found = ranks.find(parts[i] + parts[i + 1]);
            if (found != ranks.end() && found->second < best) best = found->second, at = i;
        }
        if (at == SIZE_MAX) break;
        parts[at] += parts[at + 1];
        parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
    }
    Tokens out;
    for (const std::string& part : parts) out.push_back(ranks.at(part));
    return out;
}

const char* const CONFIG = R"({"bos_token": "[BOS]", "model_max_length": 1000, "added_tokens_decoder": {
    "256": {"content": "[BOS]", "lstrip": false, "special": true},
    "258": {"content": "<|im_end|>", "special": true},
    "267": {"content": "<|tool_call_begin|>", "special": false, "normalized": false}}})";

} // namespace

TEST_CASE("rank files: merging by the rank of joined bytes equals its definition") {
    std::mt19937 random(17);
    for (int round = 0; round < 30; ++round) {
        // Random entries: some no merging reaches, some whose parts have higher ranks than they.
        std::set<std::string> more;
        while (more.size() < 60) {
            std::string word;
            for (size_t length = 2 + random() % 6; word.size() < length;)
                word += "aab\xE4\xBD\xA0"[random() % 6];
            more.insert(word);
        }
        std::vector<std::string> shuffled(more.begin(), more.end());
        std::shuffle(shuffled.begin(), shuffled.end(), random);
        const std::vector<std::string> words = words_with(shuffled);
        std::map<std::string, Token> ranks;
        for (const std::string& word : words) ranks.emplace(word, ranks.size());
        const Tokenizer tokenizer = load(rank_file(words));
        const fathom::Splitter splitter(splits_of(fathom::PreTokenizer::kimi, "kimi"));
        fathom::Splitter::Run run(splitter);
        for (const size_t length : {1, 2, 5, 20, 40, 200}) {
            std::string text;
            while (text.size() < length)
                text +=
                    std::vector<std::string>{"a", "aab", "b", "\u4f60", "\u4f60\u4f60", " "}[random() % 6];
            Tokens expected;
            for (const std::string_view piece : run.pieces(text))
                for (const Token token : merge_naively(std::string(piece), ranks)) expected.push_back(token);
            REQUIRE(tokenizer.encode(text) == expected);
            REQUIRE(tokenizer.decode(expected) == text);
        }
    }
}

TEST_CASE("rank files: special tokens come from tokenizer_config.json") {
    const std::string ranks = rank_file(words_with({}));
    const Tokenizer tokenizer = load(ranks, CONFIG);
    CHECK(tokenizer.size() == 512); // 256 ids are reserved
    CHECK(tokenizer.find("[BOS]") == Token{256});
    CHECK(tokenizer.encode("<|im_end|><|reserved_token_257|>") == Tokens{258, 257});
    CHECK(tokenizer.encode("<|tool_call_begin|>", Added::ordinary) == Tokens{267});
    CHECK(tokenizer.encode("<|im_end|>", Added::ordinary).size() == 10);
    CHECK(tokenizer.encode("<|tool_call_begin|>", Added::none).size() == 19);
    CHECK(tokenizer.is_special(258));
    CHECK(tokenizer.is_special(511));
    CHECK_FALSE(tokenizer.is_special(267));
    CHECK_FALSE(tokenizer.is_special(0));
    CHECK(tokenizer.bytes(256) == "[BOS]");
    const Tokenizer bare = load(ranks);
    CHECK(bare.size() == 256);
    for (unsigned byte = 0; byte < 256; ++byte) {
        const std::string one(1, static_cast<char>(byte));
        REQUIRE(bare.decode(bare.encode(one)) == one);
    }
    CHECK(load("\r\n" + ranks + "\r\n\n").size() == 256);
}

TEST_CASE("rank files: whatever is malformed is named by its line") {
    const std::string good = rank_file(words_with({"ab", "abc"}));
    const auto line = [&](const std::string& text) { return error_of_load(good + text + "\nYWJj 259\n"); };
    for (const char* bad :
         {"YWJj", "YWJj ", " 258", "YWJj  258", "YWJj 258 ", "YWJj x", "YWJj -1", "YWJj 258x",
          "YWJj 4294967296", "YWJj 1e2", "YWI 258", "YW=I 258", "Y=== 258", "==== 258",
          "YWJ= 258" /* a spare bit */, "YW Jj 258", "YW\u00fcj 258", "{\"a\": 1}"})
        CHECK_MESSAGE(line(bad).find("malformed rank file: t.model: line 259") == 0,
                      bad << ": " << line(bad));
    CHECK(line("YWJk 260").find("got: rank 260 after 258 others") != std::string::npos);
    CHECK(line("YWJj 258").find("the same token twice") == 0);
    CHECK(line(base64(std::string(1025, 'a')) + " 258").find("at most 1024 bytes") != std::string::npos);
    CHECK(line(base64(std::string(1024, 'a')) + " 258").find("the same token twice") == 0); // "abc" again
    for (const char* empty : {"", "\n", "\n\n"})
        CHECK(error_of_load(empty).find("malformed rank file: t.model") == 0);
    CHECK(error_of_load("YQ== 0\n").find("none for byte 0x00") != std::string::npos);
    CHECK(error_of_load(std::string(1 << 20, 'A')).size() < 500);
}

TEST_CASE("rank files: a configuration that is not understood is an error") {
    const auto refused = [](const std::string& part, const std::string& config) {
        const std::string message = error_of_load(rank_file(words_with({})), config);
        CHECK_MESSAGE(message.find(part) != std::string::npos, config << " gave " << message);
    };
    const auto token = [](const std::string& id, const std::string& members) {
        return "{\"added_tokens_decoder\": {\"" + id + "\": {" + members + "}}}";
    };
    for (const char* config :
         {"{}", "[]", "5", "{\"added_tokens_decoder\": null}", "{\"added_tokens_decoder\": []}"})
        refused("c.json: added_tokens_decoder", config);
    refused("c.json", "{");
    for (const char* id : {"255", "512", "-1", "x", "", "256 ", "99999999999999999999"})
        refused("expected: an id from 256 to 511", token(id, R"("content": "x")"));
    for (const char* members : {"", R"("content": "")", R"("content": 5)", R"("content": null)"})
        refused("added_tokens_decoder[\"256\"].content", token("256", members));
    refused("[\"256\"].content", token("256", "\"content\": \"" + std::string(1025, 'x') + "\""));
    refused("[\"256\"].lstrip", token("256", R"("content": "x", "lstrip": true)"));
    refused("[\"256\"].special", token("256", R"("content": "x", "special": "yes")"));
    refused("expected: an object", "{\"added_tokens_decoder\": {\"256\": \"x\"}}");
    refused("the same added token twice", token("256", R"("content": "<|reserved_token_300|>")"));
}

TEST_CASE("rank files: long runs are merged in near-linear time") {
    std::vector<std::string> more; // "aa", "aaaa", ... and spaces
    for (const char* unit : {"a", " ", "\u4f60"})
        for (std::string run = unit; run.size() < 100;) more.push_back(run += run);
    std::vector<std::string> words = words_with(more);
    words.erase(std::unique(words.begin(), words.end()), words.end());
    words.insert(words.begin() + 256, {"\xE4\xBD", "\u4f60"});
    const Tokenizer tokenizer = load(rank_file(words));
    for (const char* unit : {"a", " ", "\u4f60", "A", "\xFF"}) {
        std::string text;
        while (text.size() < 600'000) text += unit;
        const Tokens tokens = tokenizer.encode(text);
        CHECK(tokenizer.decode(tokens) == text);
        if (unit[0] == 'a') CHECK(tokens.size() < text.size() / 60);
    }
}

TEST_CASE("rank files: cut or changed anywhere, they load or are one clean error") {
    const std::string ranks = rank_file(words_with({})), config = CONFIG;
    std::mt19937 random(23);
    size_t loaded = 0, refused = 0;
    for (int round = 0; round < 1500; ++round) {
        std::string changed_ranks = ranks, changed_config = config;
        std::string& text = round % 2 ? changed_ranks : changed_config;
        const size_t at = random() % text.size();
        if (random() % 4 == 0)
            text.resize(at);
        else
            text[at] = static_cast<char>(random() % 3 ? text[random() % text.size()] : random());
        const std::string message = error_of([&] {
            const Tokenizer tokenizer = load(changed_ranks, changed_config);
            CHECK(tokenizer.decode(tokenizer.encode("abc [BOS]<|im_end|>")) == "abc [BOS]<|im_end|>");
        });
        ++(message.empty() ? loaded : refused);
    }
    CHECK(loaded > 50);
    CHECK(refused > 500);
}
