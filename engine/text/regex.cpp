// Translates an Oniguruma regex (the engine of Hugging Face tokenizers) for PCRE2. A list of what is let
// through, not of what is refused: the two libraries agree on far less than they seem to. \s is spelled out,
// because PCRE2's includes U+180E; \p{Han} is the script alone; \w, \h, \b and most others differ; ^ and $
// match at lines in Oniguruma, hence PCRE2_MULTILINE; a class in a class and && are set operations there and
// literals in PCRE2; (*VERBS) exist in PCRE2 alone; X{n}+ is possessive in PCRE2 alone and X{n}? is lazy
// there, optional in Oniguruma.
//
// Left out: captures by name, back-references, recursion, conditionals, options other than (?i: ). The
// Unicode tables are PCRE2's own: a character assigned after them (10.42: Unicode 14) belongs to no class
// yet.
#include "base/error.h"
#include "text/split.h"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>

namespace fathom {

namespace {

constexpr std::string_view CATEGORIES =
    " C Cc Cf Cn Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps"
    " S Sc Sk Sm So Z Zl Zp Zs ";

class Translator {
  public:
    Translator(std::string_view regex, std::string_view where) : regex_(regex), where_(where) {}

    std::string run() {
        while (!done()) {
            switch (peek()) {
            case '\\':
                escape();
                break;
            case '[':
                char_class();
                break;
            case '(':
                group();
                break;
            case '{':
                interval();
                break;
            default:
                copy(1);
            }
        }
        return std::move(out_);
    }

  private:
    bool done() const { return at_ == regex_.size(); }
    char peek(size_t ahead = 0) const { return at_ + ahead < regex_.size() ? regex_[at_ + ahead] : '\0'; }
    bool starts(std::string_view text) const { return regex_.substr(at_).starts_with(text); }
    void copy(size_t count) {
        out_ += regex_.substr(at_, count);
        at_ += std::min(count, regex_.size() - at_);
    }

    [[noreturn]] void refuse(std::string_view reason) const {
        throw Error({.what = "this regex cannot be run as its author meant it",
                     .where = std::string(where_),
                     .expected = "constructs that Oniguruma and PCRE2 read alike",
                     .got = fmt::format("{} at byte {} of \"{}\"", reason, at_, printable(regex_, 400))});
    }

    void escape() {
        const char letter = peek(1);
        if (letter == 's' || letter == 'S') {
            out_ += letter == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
            at_ += 2;
        } else if (letter == 'p' || letter == 'P') {
            property();
        } else if (letter == 'x') {
            code_point();
        } else if (std::string_view("rntfdD").find(letter) != std::string_view::npos && letter != '\0') {
            copy(2);
        } else if (letter > 0x20 && letter < 0x7F && !std::isalnum(static_cast<unsigned char>(letter))) {
            copy(2); // punctuation, taken literally
        } else {
            refuse("an escape of another meaning");
        }
    }

    void property() {
        if (peek(2) != '{') refuse("a property without braces");
        const size_t end = regex_.find('}', at_);
        if (end == std::string_view::npos) refuse("a property without its end");
        std::string_view name = regex_.substr(at_ + 3, end - at_ - 3);
        const bool negated = name.starts_with('^');
        if (negated) name.remove_prefix(1);
        const char letter = negated == (peek(1) == 'p') ? 'P' : 'p';
        // A script: Oniguruma means the property Script, PCRE2 Script_Extensions unless told. Other names
        // PCRE2 refuses.
        const bool category = CATEGORIES.find(fmt::format(" {} ", name)) != std::string_view::npos;
        out_ += fmt::format("\\{}{{{}{}}}", letter, category ? "" : "sc:", name);
        at_ = end + 1;
    }

    void code_point() { // \x{h...} or \xhh: PCRE2 also takes fewer digits, where Oniguruma differs
        const bool braces = peek(2) == '{';
        const size_t first = at_ + (braces ? 3 : 2);
        size_t end = first;
        while (end < regex_.size() && std::isxdigit(static_cast<unsigned char>(regex_[end])) &&
               end - first < 8)
            ++end;
        if (braces ? end == first || end == regex_.size() || regex_[end] != '}' : end - first < 2)
            refuse("a malformed code point");
        // Above 7F a byte in Oniguruma, a code point in PCRE2.
        if (!braces && regex_[first] > '7') refuse("\\x above 7F without braces");
        copy((braces ? end + 1 : first + 2) - at_);
    }

    void char_class() {
        copy(peek(1) == '^' ? 2 : 1);
        if (peek() == ']') refuse("an empty class, or ] first in one");
        while (peek() != ']') {
            if (done()) refuse("a class without its end");
            if (starts("&&")) refuse("&& (an intersection of classes)");
            if (peek() == '[') refuse("a class inside a class");
            if (peek() == '\\')
                escape();
            else
                copy(1);
        }
        copy(1);
    }

    void group() {
        for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"})
            if (starts(opening)) return copy(opening.size());
        if (peek(1) == '?' || peek(1) == '*') refuse("a group of another kind");
        copy(1);
    }

    void interval() { // {n} {n,} {n,m}; anything else in braces is literal in one library or both
        size_t end = at_ + 1;
        const auto digits = [&] {
            const size_t first = end;
            while (end < regex_.size() && std::isdigit(static_cast<unsigned char>(regex_[end]))) ++end;
            return end - first;
        };
        if (digits() == 0) refuse("a brace that is no interval");
        const bool range = end < regex_.size() && regex_[end] == ',';
        if (range) {
            ++end;
            digits();
        }
        if (end == regex_.size() || regex_[end] != '}') refuse("a brace that is no interval");
        copy(end + 1 - at_);
        if (peek() == '+' || (peek() == '?' && !range)) refuse("a sign after an interval");
    }

    std::string_view regex_, where_;
    std::string out_;
    size_t at_ = 0;
};

} // namespace

std::string pcre2_from_oniguruma(std::string_view regex, std::string_view where) {
    return Translator(regex, where).run();
}

} // namespace fathom
