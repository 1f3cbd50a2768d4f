// A tokenizer written as GGUF's keys and read again encodes as before, whether it lists its merges or ranks.
#include "text/vocabulary_export.h"

#include "text/help.h"
#include "text/tokenizer.h"

using namespace fathom;

namespace {

Tokenizer again(const ExportedVocabulary& exported) {
    return Tokenizer::from_gguf({.where = "exported",
                                 .model = "gpt2",
                                 .pre = exported.pre,
                                 .tokens = {exported.tokens.begin(), exported.tokens.end()},
                                 .types = exported.types,
                                 .merges = {exported.merges.begin(), exported.merges.end()}});
}

} // namespace

TEST_CASE("vocabulary export: the embedded model's, padded") {
    std::ifstream file(std::string(FATHOM_SOURCE_DIR) + "/models/tiny/tokenizer.json", std::ios::binary);
    const std::string json{std::istreambuf_iterator<char>(file), {}};
    const Tokenizer original = Tokenizer::from_json(json, "tiny");
    const ExportedVocabulary exported = export_vocabulary(read_tokenizer_json(json, "tiny"), 4100);
    CHECK((exported.pre == "deepseek-v3" && exported.tokens.size() == 4100 && exported.types[4099] == 5));
    const Tokenizer copy = again(exported);
    for (const char* text :
         {"Once upon a time, there were 12345 cats.", "  caf\xC3\xA9\n\n\xE4\xBD\xA0\xE5\xA5\xBD",
          "<\xEF\xBD\x9CUser\xEF\xBD\x9C>hi<\xEF\xBD\x9C"
          "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"})
        CHECK(copy.encode(text) == original.encode(text));
    CHECK((copy.is_special(0) && !copy.is_special(300) && !copy.contains(4099)));
    try {
        export_vocabulary(read_tokenizer_json(json, "tiny"), 4000);
        FAIL_CHECK("more tokens than the model has");
    } catch (const Error& error) {
        CHECK(std::string(error.what()).find("ids below 4000") != std::string::npos);
    }
}

TEST_CASE("vocabulary export: splits of no known tokenizer have no name") {
    TokenizerSpec spec;
    spec.where = "other";
    spec.splits.push_back({.pattern = "[a-z]+", .where = "other"});
    CHECK_THROWS_AS(export_vocabulary(spec, 10), Error);
}

TEST_CASE("vocabulary export: merges from ranks") {
    constexpr const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string ranks;
    uint32_t rank = 0;
    const auto add = [&](std::string_view bytes) {
        for (size_t i = 0; i < bytes.size(); i += 3) {
            uint32_t bits = 0;
            const size_t n = std::min<size_t>(3, bytes.size() - i);
            for (size_t k = 0; k < n; ++k)
                bits |= uint32_t{static_cast<uint8_t>(bytes[i + k])} << (16 - 8 * k);
            for (size_t k = 0; k < 4; ++k) ranks += k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
        }
        ranks += " " + std::to_string(rank++) + "\n";
    };
    for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
    for (const char* text : {"ab", "cd", "bcd", "abcd", "\xC3\xA9"}) add(text);
    const TokenizerSpec spec = read_tiktoken(ranks, "ranks", "", "");
    const ExportedVocabulary exported = export_vocabulary(spec, rank + 256);
    CHECK(exported.pre == "kimi-k2");
    CHECK(exported.merges == std::vector<std::string>{"a b", "c d", "b cd", "ab cd", "\xC3\x83 \xC2\xA9"});
    const Tokenizer original = Tokenizer::from_tiktoken(ranks, "ranks", "", ""), copy = again(exported);
    for (const char* text : {"abcd", "bcd abcdab cdcd", "caf\xC3\xA9 abc"})
        CHECK(copy.encode(text) == original.encode(text));
}
