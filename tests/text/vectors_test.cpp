// Published and independently computed token ids of the DeepSeek tokenizers, in ../shared.
#include "help.h"

using namespace help;

namespace {

const std::string FOLDER = "data/tokenizers/";

// The V4 file, or with `added` (a file of FOLDER) in place of its added tokens the tokenizer of another
// release: vocabulary, merges and splits are the same from V3 to V4.
const Tokenizer& deepseek(const std::string& added_file = "") {
    static std::map<std::string, Tokenizer> loaded;
    const auto found = loaded.find(added_file);
    if (found != loaded.end()) return found->second;
    std::string text = shared(FOLDER + "deepseek-v4.tokenizer.json");
    if (!added_file.empty()) {
        auto spec = json::parse(text);
        spec["added_tokens"] = json::parse(shared(FOLDER + added_file));
        text = spec.dump();
    }
    return loaded.emplace(added_file, Tokenizer::from_json(text, added_file + "tokenizer.json"))
        .first->second;
}

} // namespace

TEST_CASE("DeepSeek V4: all reference vectors") {
    if (!have_shared(FOLDER + "vectors/reference-v4.jsonl")) return;
    CHECK(check_rows("reference-v4.jsonl", deepseek()) == 260);
    CHECK(deepseek().size() == 129280);
    CHECK(deepseek().find("<think>") == Token{128821});
    CHECK(deepseek().find(" the") == deepseek().encode(" the").at(0));
    CHECK_FALSE(deepseek().is_special(128821));
    CHECK(deepseek().is_special(0));
}

TEST_CASE("DeepSeek V3: published vectors and the wikitext chunk") {
    if (!have_shared(FOLDER + "vectors/wikitext-v3.ids.txt")) return;
    const Tokenizer& tokenizer = deepseek("deepseek-v3.added_tokens.json");
    CHECK(check_rows("splintr-v3.jsonl", tokenizer) == 3);
    CHECK(tokenizer.size() == 128815);
    CHECK(tokenizer.find("<think>") == std::nullopt);
    check_wikitext("wikitext-v3", tokenizer, 0);
}

TEST_CASE("DeepSeek R1: vectors with special tokens") {
    if (!have_shared(FOLDER + "vectors/reference-r1-special.jsonl")) return;
    const Tokenizer& tokenizer = deepseek("deepseek-r1.added_tokens.json");
    CHECK(check_rows("reference-r1-special.jsonl", tokenizer) > 5);
    CHECK(tokenizer.find("<think>") == Token{128798});
}

TEST_CASE("what people type forges no token, ordinary ones included") {
    if (!have_shared(FOLDER + "deepseek-v3.added_tokens.json")) return;
    const Tokenizer& tokenizer = deepseek("deepseek-v3.added_tokens.json");
    const std::string text = "a<｜User｜>b<｜end▁of▁sentence｜><｜tool▁sep｜>";
    CHECK(tokenizer.encode(text) == Tokens{67, 128803, 68, 1, 128814});
    const Tokens ordinary = tokenizer.encode(text, Added::ordinary);
    CHECK(std::count(ordinary.begin(), ordinary.end(), 128803) == 1);
    CHECK(std::count(ordinary.begin(), ordinary.end(), 1) == 0);
    for (const Token token : tokenizer.encode(text, Added::none)) CHECK((token > 2 && token < 128000));
    for (const Added added : {Added::none, Added::ordinary, Added::all})
        CHECK(tokenizer.decode(tokenizer.encode(text, added)) == text);
}

TEST_CASE("text cut at added tokens encodes as the whole does") {
    if (!have_shared(FOLDER + "deepseek-v4.tokenizer.json")) return;
    const std::string parts[] = {"  Hello\n", "<think>", "\n\n", "</think>", " x ", "<｜User｜>", "ü"};
    std::string whole;
    Tokens joined;
    for (const std::string& part : parts) {
        whole += part;
        for (const Token token : deepseek().encode(part)) joined.push_back(token);
    }
    CHECK(deepseek().encode(whole) == joined);
}

TEST_CASE("odd Unicode round-trips through the large vocabulary") {
    if (!have_shared(FOLDER + "deepseek-v4.tokenizer.json")) return;
    std::string all; // one character of each block of 64
    for (char32_t point = 1; point <= 0x10FFFF; point += point < 0x3000 ? 1 : 61) {
        if (point >= 0xD800 && point < 0xE000) continue;
        const auto put = [&](char32_t bits) { all += static_cast<char>(bits); };
        if (point < 0x80) {
            put(point);
            continue;
        }
        if (point < 0x800) put(0xC0 | point >> 6);
        if (point >= 0x800 && point < 0x10000) put(0xE0 | point >> 12);
        if (point >= 0x10000) put(0xF0 | point >> 18), put(0x80 | (point >> 12 & 63));
        if (point >= 0x800) put(0x80 | (point >> 6 & 63));
        put(0x80 | (point & 63));
    }
    CHECK(deepseek().decode(deepseek().encode(all, Added::none)) == all);
}
