// Shared by the tests of text: files, the shared data, and small tokenizers made here.
#pragma once

#include "base/error.h"
#include "text/tokenizer.h"

#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace help {

namespace fs = std::filesystem;
using fathom::Added;
using fathom::Token;
using fathom::Tokenizer;
using nlohmann::json;
using Tokens = std::vector<Token>;

inline std::string read_file(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE_MESSAGE(file.good(), path.string());
    return {std::istreambuf_iterator<char>(file), {}};
}

// The shared test data, which lie beside the checkout. Says so when they are absent.
inline bool have_shared(const std::string& part) {
    const bool have = fs::exists(fs::path(FATHOM_SHARED_DIR) / part);
    if (!have)
        MESSAGE("SKIPPED: no " << FATHOM_SHARED_DIR << "/" << part << "; this test proves nothing here");
    return have;
}
inline std::string shared(const std::string& part) { return read_file(fs::path(FATHOM_SHARED_DIR) / part); }

// Checks every row of a file of vectors and says how many there were.
inline size_t check_rows(const std::string& file, const Tokenizer& tokenizer) {
    std::istringstream lines(shared("data/tokenizers/vectors/" + file));
    size_t rows = 0;
    for (std::string line; std::getline(lines, line); ++rows) {
        const json row = json::parse(line);
        const std::string text = row["text"];
        const Added added = row.value("parse_special", true) ? Added::all : Added::ordinary;
        const Tokens ids = row["ids"];
        CHECK_MESSAGE(tokenizer.encode(text, added) == ids, line.substr(0, 300));
        if (text.find('<') == text.npos && text.find("｜") == text.npos) // no names in it
            CHECK_MESSAGE(tokenizer.encode(text, Added::none) == ids, line.substr(0, 300));
        CHECK(tokenizer.decode(ids) == text);
    }
    return rows;
}
// Checks a chunk of wikitext (it begins with the name of BOS) and its ids.
inline void check_wikitext(const std::string& name, const Tokenizer& tokenizer, Token bos) {
    std::istringstream numbers(shared("data/tokenizers/vectors/" + name + ".ids.txt"));
    Tokens ids;
    for (Token id; numbers >> id;) ids.push_back(id);
    REQUIRE(ids.size() == 5461);
    const std::string text = shared("data/tokenizers/vectors/" + name + ".text.txt");
    CHECK((tokenizer.encode(text) == ids));
    CHECK((tokenizer.decode(ids) == text));
    CHECK(ids[0] == bos);
    CHECK(tokenizer.bytes(bos) == "<｜begin▁of▁sentence｜>");
}

inline const Tokenizer& tiny() {
    static const Tokenizer tokenizer = Tokenizer::from_json(
        read_file(fs::path(FATHOM_SOURCE_DIR) / "models/tiny/tokenizer.json"), "models/tiny/tokenizer.json");
    return tokenizer;
}

// The message of the Error that `action` throws, or "" when it throws nothing.
template <class Action> std::string error_of(Action&& action) {
    try {
        action();
    } catch (const fathom::Error& error) {
        return error.what();
    }
    return "";
}
inline std::string error_of_json(const std::string& text) {
    return error_of([&] { Tokenizer::from_json(text, "t.json"); });
}

// The byte-level character of a byte, in UTF-8.
inline std::string letter(unsigned byte) {
    unsigned next = 0x100, point = 0;
    for (unsigned b = 0; b <= byte; ++b)
        point = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD) ? b : next++;
    if (point < 0x80) return std::string(1, static_cast<char>(point));
    return {static_cast<char>(0xC0 | point >> 6), static_cast<char>(0x80 | (point & 0x3F))};
}

// A tokenizer.json with a token for each byte (its id is the byte), "ab" 256, "abc" 257, "bc" 258 and one
// special added token <s> 259; the merges prefer "ab" to "abc" to "bc".
inline json small() {
    json vocab = json::object();
    for (unsigned byte = 0; byte < 256; ++byte) vocab[letter(byte)] = byte;
    vocab["ab"] = 256;
    vocab["abc"] = 257;
    vocab["bc"] = 258;
    return {{"version", "1.0"},
            {"added_tokens", {{{"id", 259}, {"content", "<s>"}, {"special", true}}}},
            {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
            {"decoder", {{"type", "ByteLevel"}}},
            {"model", {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", {"a b", "ab c", "b c"}}}}};
}
inline json added(Token id, const std::string& content, bool special, bool normalized = false) {
    return {{"id", id}, {"content", content}, {"special", special}, {"normalized", normalized}};
}
inline Tokenizer make(const json& spec) { return Tokenizer::from_json(spec.dump(), "t.json"); }

} // namespace help
