// The tokenizer over models/tiny and over small vocabularies made here.
#include "help.h"
#include "text/bpe.h"

#include <map>
#include <random>

using namespace help;

namespace {

// Merging by its definition, quadratic: the oracle of Bpe.
Tokens merge_naively(Tokens tokens,
                     const std::map<std::pair<Token, Token>, std::pair<size_t, Token>>& ranks) {
    for (;;) {
        size_t best = SIZE_MAX, at = 0;
        Token merged = 0;
        for (size_t i = 0; i + 1 < tokens.size(); ++i) {
            const auto found = ranks.find({tokens[i], tokens[i + 1]});
            if (found == ranks.end() || found->second.first >= best) continue;
            std::tie(best, merged) = found->second;
            at = i;
        }
        if (best == SIZE_MAX) return tokens;
        tokens[at] = merged;
        tokens.erase(tokens.begin() + static_cast<ptrdiff_t>(at) + 1);
    }
}

} // namespace

TEST_CASE("merging equals its definition on short and long pieces") {
    std::mt19937 random(11);
    for (int round = 0; round < 60; ++round) {
        // Random merges over four letters; many lead to the same token, and ranks are in no helpful order.
        std::array<Token, 256> bytes{};
        std::array<bool, 256> present{};
        for (unsigned byte = 0; byte < 256; ++byte) bytes[byte] = byte, present[byte] = true;
        std::vector<std::string> words = {"a", "b", "c", "d"};
        std::map<std::string, Token> ids = {{"a", 'a'}, {"b", 'b'}, {"c", 'c'}, {"d", 'd'}};
        std::vector<fathom::ListedMerges::Entry> merges;
        std::map<std::pair<Token, Token>, std::pair<size_t, Token>> ranks;
        for (int i = 0; i < 60; ++i) {
            const std::string left = words[random() % words.size()], right = words[random() % words.size()];
            if (left.size() + right.size() > 9 || ranks.count({ids[left], ids[right]})) continue;
            const std::string joined = left + right;
            if (!ids.count(joined)) words.push_back(joined), ids.emplace(joined, 1000 + words.size());
            ranks[{ids[left], ids[right]}] = {merges.size(), ids[joined]};
            merges.push_back({ids[left], ids[right], ids[joined]});
        }
        const fathom::Bpe bpe(bytes, present, std::make_unique<fathom::ListedMerges>(merges, "test"));
        fathom::Bpe::Scratch scratch;
        for (const size_t length : {0, 1, 2, 3, 7, 31, 32, 33, 34, 64, 65, 300}) {
            std::string piece;
            Tokens letters;
            while (piece.size() < length) {
                piece += static_cast<char>('a' + random() % (round % 3 == 0 ? 1 : 4));
                letters.push_back(static_cast<Token>(piece.back()));
            }
            Tokens got = {7}; // encode appends
            bpe.encode(piece, got, scratch);
            Tokens expected = merge_naively(letters, ranks);
            expected.insert(expected.begin(), 7);
            REQUIRE(got == expected);
        }
    }
}

TEST_CASE("models/tiny: text round-trips") {
    const std::string text =
        "Once upon a time, there was a little girl named Lily.\n\nShe had 123 toys; \u00fc "
        "\u4f60\u597d \U0001f999 \t x\r\n  ";
    const Tokens tokens = tiny().encode(text);
    CHECK(tiny().decode(tokens) == text);
    CHECK(tokens.size() < text.size() / 2);
    CHECK(tiny().size() == 4096);
    CHECK(tiny().encode("").empty());
    CHECK(tiny().decode({}) == "");
    for (Token token = 0; token < tiny().size(); ++token) {
        REQUIRE(tiny().contains(token));
        REQUIRE(tiny().find(tiny().bytes(token)) == token);
        REQUIRE(tiny().is_special(token) == (token < 5));
    }
    CHECK_FALSE(tiny().contains(4096));
    CHECK_FALSE(tiny().is_special(4096));
    CHECK(error_of([] { tiny().bytes(4096); }).find("no such token: models/tiny/tokenizer.json") == 0);
    CHECK(error_of([] { tiny().decode(Tokens{5, 4294967295}); }).find("4294967295") != std::string::npos);
    CHECK(tiny().find("Once upon a time in the West") == std::nullopt);
    CHECK(tiny().find("") == std::nullopt);
}

TEST_CASE("every byte sequence round-trips") {
    std::mt19937 random(3);
    for (int round = 0; round < 400; ++round) {
        std::string bytes;
        const size_t length = random() % 200;
        while (bytes.size() < length) {
            switch (random() % 6) {
            case 0:
                bytes += static_cast<char>(random());
                break;
            case 1:
                bytes += " the";
                break;
            case 2:
                bytes += "\xE4\xBD\xA0\xF0\x9F";
                break;
            case 3:
                bytes += static_cast<char>(0x80 | (random() & 0x7F));
                break;
            case 4:
                bytes += "\n 12";
                break;
            default:
                bytes += std::string("<\xEF\xBD\x9CUser\xEF\xBD\x9C>").substr(random() % 6);
                break;
            }
        }
        for (const Added added : {Added::none, Added::ordinary, Added::all})
            REQUIRE(tiny().decode(tiny().encode(bytes, added)) == bytes);
    }
    for (unsigned byte = 0; byte < 256; ++byte) {
        const std::string one(1, static_cast<char>(byte));
        const Tokens tokens = tiny().encode(one);
        REQUIRE(tokens.size() == 1);
        REQUIRE(tiny().bytes(tokens[0]) == one);
    }
}

TEST_CASE("an invalid byte is a piece of its own, and valid text beside it goes through the splits") {
    Tokens expected = tiny().encode("the cat");
    expected.push_back(tiny().encode("\xFF").at(0));
    for (const Token token : tiny().encode(" sat")) expected.push_back(token);
    CHECK(tiny().encode("the cat\xFF sat") == expected);
    // A character cut short: two bytes, two tokens.
    CHECK(tiny().encode("\xE4\xBD").size() == 2);
}

TEST_CASE("a megabyte of one character is encoded in near-linear time") {
    // Quadratic merging would take hours here.
    for (const char* unit : {"a", " ", "\u4f60", "\x01", "\xFF"}) {
        std::string text;
        while (text.size() < 1'000'000) text += unit;
        CHECK(tiny().decode(tiny().encode(text)) == text);
    }
    json spec = small(); // no split: one piece
    spec["model"]["vocab"]["aa"] = 300;
    spec["model"]["vocab"]["aaaa"] = 301;
    spec["model"]["merges"] = {"a a", "aa aa"};
    spec["added_tokens"] = json::array();
    const Tokens tokens = make(spec).encode(std::string(1'000'003, 'a'));
    CHECK(tokens.size() == 250'002);
    CHECK(tokens[249'999] == 301);
    CHECK(tokens[250'000] == 300);
    CHECK(tokens[250'001] == 'a');
}

TEST_CASE("merges follow rank, then position") {
    const Tokenizer tokenizer = make(small());
    CHECK(tokenizer.encode("abc") == Tokens{257});
    CHECK(tokenizer.encode("bcabc") == Tokens{258, 257});
    json spec = small();
    spec["model"]["merges"] = {"b c", "a b"};
    CHECK(make(spec).encode("abc") == Tokens{'a', 258});
    CHECK(make(spec).encode("abab") == Tokens{256, 256});
    spec["model"]["ignore_merges"] = true;
    CHECK(make(spec).encode("abc") == Tokens{257});
    CHECK(make(spec).encode("abcabc") == Tokens{'a', 258, 'a', 258}); // not an entry: merged
}

TEST_CASE("added tokens: leftmost, then longest, and normalized ones last") {
    json spec = small();
    spec["added_tokens"] = {added(259, "<s>", true),      added(260, "<s", false),
                            added(261, "<s>s", false),    added(262, "s>x", false),
                            added(263, "\u4f60", false),  added(264, "q<s>", false, true),
                            added(265, "<t", false, true)};
    const Tokenizer tokenizer = make(spec);
    CHECK(tokenizer.encode("<s>") == Tokens{259});
    CHECK(tokenizer.encode("<s>s>x") == Tokens{261, '>', 'x'});
    CHECK(tokenizer.encode("<s") == Tokens{260});
    CHECK(tokenizer.encode("s>x<t<s>") == Tokens{262, 265, 259});
    CHECK(tokenizer.encode("q<s>") == Tokens{'q', 259}); // although the normalized q<s> begins further left
    CHECK(tokenizer.encode("F\u4f60hrer") == Tokens{'F', 263, 'h', 'r', 'e', 'r'});
    CHECK(tokenizer.decode(Tokens{263}) == "\u4f60");
    // A special name that is not wanted is plain text as a whole: the ordinary <s inside it is not seen.
    CHECK(tokenizer.encode("<s>", Added::ordinary) == Tokens{'<', 's', '>'});
    CHECK(tokenizer.encode("<s", Added::ordinary) == Tokens{260});
    CHECK(tokenizer.encode("<s>", Added::none) == Tokens{'<', 's', '>'});
    CHECK(tokenizer.encode("\xFF<s>\xE4") == Tokens{255, 259, 0xE4});
}

TEST_CASE("ids may have holes, and tables are not sized by an id") {
    json spec = small();
    spec["model"]["vocab"]["abc"] = 4294967294u;
    const Tokenizer tokenizer = make(spec);
    CHECK(tokenizer.encode("abc") == Tokens{4294967294u});
    CHECK(tokenizer.bytes(4294967294u) == "abc");
    CHECK(tokenizer.size() == 4294967295u);
    CHECK_FALSE(tokenizer.contains(257));
    CHECK(tokenizer.bytes(258) == "bc");
    CHECK_FALSE(tokenizer.contains(4294967295u));
}

TEST_CASE("a vocabulary may lack the bytes that UTF-8 never has, and such a byte is then an error") {
    json spec = small();
    for (const unsigned byte : {0xC0, 0xC1, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF})
        spec["model"]["vocab"].erase(letter(byte));
    spec["added_tokens"] = {added(246, "\u00fc", false)}; // the character of byte 0xFC, as in deepseek-llm
    const Tokenizer tokenizer = make(spec);
    for (const Added added_tokens : {Added::none, Added::ordinary, Added::all}) // it is a letter, not a name
        CHECK(tokenizer.encode("a\u00fc\u00e9", added_tokens) == Tokens{'a', 246, 0xC3, 0xA9});
    CHECK(tokenizer.bytes(246) == "\u00fc");
    CHECK(error_of([&] { tokenizer.encode("a\xFC"); }).find("byte 0xFC") != std::string::npos);
}

TEST_CASE("a regex of the file that gives up is an error of encode") {
    json spec = small();
    const json split = {
        {"type", "Split"}, {"pattern", {{"Regex", "(a+)+$"}}}, {"behavior", "Isolated"}, {"invert", false}};
    spec["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, spec["pre_tokenizer"]}}};
    const Tokenizer tokenizer = make(spec);
    CHECK(tokenizer.encode("xaaa") == Tokens{'x', 'a', 'a', 'a'});
    const std::string message = error_of([&] { tokenizer.encode(std::string(50, 'a') + "b"); });
    CHECK(message.find("t.json: pre_tokenizer.pretokenizers[0]") != std::string::npos);
}
