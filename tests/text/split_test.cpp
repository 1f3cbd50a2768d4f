// Splits against Hugging Face tokenizers (golden/splits.json, made by golden/make_splits.py), and the regexes
// that are refused.
#include "help.h"
#include "text/pre_tokenizers.h"
#include "text/split.h"

using namespace help;
using fathom::SplitBehaviour;
using fathom::SplitRule;
using fathom::Splitter;

namespace {

SplitBehaviour behaviour(const std::string& name) {
    const std::map<std::string, SplitBehaviour> names = {
        {"removed", SplitBehaviour::removed},
        {"isolated", SplitBehaviour::isolated},
        {"merged_with_previous", SplitBehaviour::merged_with_previous},
        {"merged_with_next", SplitBehaviour::merged_with_next},
        {"contiguous", SplitBehaviour::contiguous}};
    return names.at(name);
}

std::vector<std::string> pieces(std::vector<SplitRule> rules, std::string_view text) {
    const Splitter splitter(std::move(rules));
    Splitter::Run run(splitter);
    const auto found = run.pieces(text);
    return {found.begin(), found.end()};
}

SplitRule regex(const std::string& pattern) { return {.pattern = pattern, .where = "t.json: split"}; }

std::string refusal(const std::string& pattern) {
    return error_of([&] { Splitter({regex(pattern)}); });
}

} // namespace

TEST_CASE("splits cut as Hugging Face tokenizers does") {
    const json golden = json::parse(read_file(fs::path(FATHOM_SOURCE_DIR) / "tests/text/golden/splits.json"));
    CHECK(golden["cases"].size() > 150);
    for (const json& row : golden["cases"]) {
        SplitRule rule = regex("");
        if (row.contains("digits")) {
            rule.pattern = "\\p{N}";
            rule.behaviour = row["digits"] ? SplitBehaviour::isolated : SplitBehaviour::contiguous;
        } else {
            rule.pattern = row["pattern"];
            rule.literal = row["literal"];
            rule.behaviour = behaviour(row["behaviour"]);
            rule.invert = row["invert"];
        }
        const Splitter splitter({rule});
        Splitter::Run run(splitter);
        for (size_t i = 0; i < golden["texts"].size(); ++i) {
            const auto found = run.pieces(golden["texts"][i].get_ref<const std::string&>());
            const std::vector<std::string> got(found.begin(), found.end());
            CHECK_MESSAGE(got == row["pieces"][i].get<std::vector<std::string>>(),
                          row.dump().substr(0, 200) << " text " << i << " gave " << json(got).dump());
        }
    }
}

TEST_CASE("the splits of Kimi and GLM cut as Hugging Face tokenizers does with the published regexes") {
    const json golden =
        json::parse(read_file(fs::path(FATHOM_SOURCE_DIR) / "tests/text/golden/splits.json"))["named"];
    const std::pair<const char*, fathom::PreTokenizer> names[] = {{"kimi", fathom::PreTokenizer::kimi},
                                                                  {"glm", fathom::PreTokenizer::glm}};
    for (const auto& [name, kind] : names)
        for (size_t i = 0; i < golden["texts"].size(); ++i) {
            const auto got = pieces(splits_of(kind, name), golden["texts"][i].get_ref<const std::string&>());
            CHECK_MESSAGE(got == golden[name][i].get<std::vector<std::string>>(),
                          name << " text " << i << " gave " << json(got).dump());
        }
}

TEST_CASE("each rule sees a piece of the one before as the whole subject") {
    using Pieces = std::vector<std::string>;
    CHECK(pieces({regex("[0-9]+"), regex("\\s+(?!\\S)|\\s+")}, "a  1") == Pieces{"a", "  ", "1"});
    CHECK(pieces({regex("\\s+(?!\\S)|\\s+")}, "a  1") == Pieces{"a", " ", " ", "1"});
    CHECK(pieces({regex("-"), regex("^.")}, "ab-cd") == Pieces{"a", "b", "-", "c", "d"});
    CHECK(pieces({regex("-"), regex("(?<=-)c")}, "ab-cd") == Pieces{"ab", "-", "cd"});
    CHECK(pieces({}, "whole") == Pieces{"whole"});
    CHECK(pieces({regex("a")}, "").empty());
    CHECK(pieces({regex(".")}, std::string_view("\0\0", 2)).size() == 2);
}

TEST_CASE("regexes that Oniguruma and PCRE2 read differently are refused by name") {
    std::istringstream patterns(
        R"p([a[bc]] [[a]] [a&&[b]c] [a&&c[b]] [a&&[b&&c]] [a&&] [&&a] [a&& [a&&[b [^a&&b] )p"
        R"p([[:alpha:]&&a] (?i:[\p{Lu}&&[^a]]) (?i:(?:[\p{Lu}&&[^a]])) [[:alpha:]] \w+ \W \b \B \h \H )p"
        R"p(\v \R \X \K \C \Q \1 \k<a> \g<1> \u0041 \x4 \xFF \x{110000 \pL \p{L (?m:a) (?i)a (?x)a )p"
        R"p((?<n>a) (?#c) (?R) (?1) (*ACCEPT) (*LIMIT_MATCH=1) a{2}+ a{2}? a{1,2}+ a{,2} a{ { []a] )p"
        R"p([^]a] [a \ )p");
    size_t count = 0;
    for (std::string pattern; patterns >> pattern; ++count)
        CHECK_MESSAGE(refusal(pattern).find("cannot be run as its author meant") != std::string::npos,
                      pattern);
    CHECK(count == 54);
    const std::string message = refusal("[^a&&b]");
    CHECK(message.find("t.json: split") != std::string::npos);
    CHECK(message.find("a negated intersection of classes") != std::string::npos);
}

TEST_CASE("malformed regexes are errors that name the place") {
    for (const char* pattern : {"(", ")", "a**", "*a", "\\p{Nonsense}", "\\p{}", "\\p{^}", "[b-a]",
                                "(?<=a+)b", "\\x{110000}", "\\x{D800}", "((a{1000}){1000}){1000}"})
        CHECK_MESSAGE(refusal(pattern).find("malformed regex: t.json: split") != std::string::npos, pattern);
    CHECK(refusal(std::string(1000, '(') + std::string(1000, ')')) != "");
}

TEST_CASE("a regex that explodes is an error, not a hang") {
    const std::string message = error_of([] { pieces({regex("(a+)+$")}, std::string(60, 'a') + "b"); });
    CHECK(message.find("gave up") != std::string::npos);
    CHECK(message.find("t.json: split") != std::string::npos);
    CHECK(error_of([] { pieces({regex("(?:a|a)*[cd]")}, std::string(60, 'a') + "b"); }) != "");
    // Deep, but linear: a long text alone is no reason to give up.
    CHECK(pieces({regex("\\s*[\\r\\n]+|\\s+")}, std::string(1 << 20, ' ') + "x").size() == 2);
}
