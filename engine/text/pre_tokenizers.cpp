// The splits of the family's tokenizers; see pre_tokenizers.h.
#include "text/pre_tokenizers.h"

#include <fmt/format.h>
#include <initializer_list>

namespace fathom {

namespace {

// Cased letters as the tokenizer of 2023 lists them: not \p{L}, and not all cased letters either.
constexpr std::string_view LISTED_LETTERS =
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376-377 37B-37D 37F "
    "386 388-38A 38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD "
    "1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 "
    "1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 "
    "1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 "
    "2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183-2184 "
    "2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2-2CF3 A640-A66D A680-A69B A722-A76F A771-A787 "
    "A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 "
    "104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943";
constexpr std::string_view LISTED_PUNCTUATION = "21-2F 3A-7E FF01-FF0F FF1A-FF5E 2018-201F 3000-3002";
constexpr std::string_view CJK_2023 = "4E00-9FA5 800-4E00 AC00-D7FF", CJK = "4E00-9FA5 3040-309F 30A0-30FF";

constexpr std::string_view WORDS_V3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view WORDS_GLM =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view WORDS_KIMI =
    R"([\p{Han}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// "41-5A B5" as the class [\x{41}-\x{5A}\x{B5}].
std::string class_of(std::string_view ranges) {
    std::string out = "[\\x{";
    for (const char c : ranges) out += c == '-' ? "}-\\x{" : c == ' ' ? "}\\x{" : std::string(1, c);
    return out + "}]";
}

std::vector<std::string> patterns_of(PreTokenizer kind) {
    switch (kind) {
    case PreTokenizer::deepseek_llm:
        return {R"([\r\n])",
                R"(\s?)" + class_of(LISTED_LETTERS) + "+",
                R"(\s?)" + class_of(LISTED_PUNCTUATION) + "+",
                R"(\s+$)",
                class_of(CJK_2023) + "+",
                R"(\p{N})"};
    case PreTokenizer::deepseek_coder:
        return {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", class_of(CJK_2023) + "+", R"(\p{N})"};
    case PreTokenizer::deepseek_v3:
        return {R"(\p{N}{1,3})", class_of(CJK) + "+", std::string(WORDS_V3)};
    case PreTokenizer::kimi:
        return {std::string(WORDS_KIMI)};
    case PreTokenizer::glm:
        return {std::string(WORDS_GLM)};
    }
    return {};
}

} // namespace

std::vector<SplitRule> splits_of(PreTokenizer kind, std::string_view where) {
    std::vector<SplitRule> rules;
    for (std::string& pattern : patterns_of(kind))
        rules.push_back({.pattern = std::move(pattern), .where = std::string(where)});
    return rules;
}

} // namespace fathom
