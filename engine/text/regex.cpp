// Translates an Oniguruma regex (the engine of Hugging Face tokenizers) for PCRE2. A list of what is let
// through, not of what is refused: the two libraries agree on far less than they seem to. \s is spelled out,
// because PCRE2's includes U+180E; \p{Han} is the script alone; \w, \h, \b and most others differ; ^ and $
// match at lines in Oniguruma, hence PCRE2_MULTILINE; a class in a class and && are set operations there and
// literals in PCRE2; (*VERBS) exist in PCRE2 alone; X{n}+ is possessive in PCRE2 alone and X{n}? is lazy
// there, optional in Oniguruma.
//
// An intersection becomes one class where it can: [\p{Lu}\p{M}&&[^\p{Han}]] is [^...\p{Han}] with the other
// general categories for the dots, which repeats without taking stack, so that a run of any length matches.
// Other intersections become look-aheads before a class.
//
// Left out: captures by name, back-references, recursion, conditionals, options other than (?i: ). The
// Unicode tables are PCRE2's own: a character assigned after them (10.42: Unicode 14) belongs to no class
// yet.
#include "base/error.h"
#include "text/split.h"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <optional>
#include <vector>

namespace fathom {

namespace {

// The general categories; every character is in exactly one with two letters.
constexpr std::string_view CATEGORIES =
    " C Cc Cf Cn Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps"
    " S Sc Sk Sm So Z Zl Zp Zs ";

// What a class holds between its brackets, translated.
struct ClassItems {
    std::string text;
    bool negated = false;
};

// The items of all other characters, if a class can list them: `items` is negated, or nothing but categories.
std::optional<std::string> complement(const ClassItems& items) {
    if (items.negated) return items.text;
    std::vector<std::string_view> held;
    for (std::string_view rest = items.text; !rest.empty();) {
        const size_t end = rest.find('}');
        if (!rest.starts_with("\\p{") || end == rest.npos) return std::nullopt;
        held.push_back(rest.substr(3, end - 3));
        if (CATEGORIES.find(fmt::format(" {} ", held.back())) == CATEGORIES.npos) return std::nullopt;
        rest.remove_prefix(end + 1);
    }
    std::string others;
    for (size_t at = 1; at < CATEGORIES.size();) {
        const std::string_view category = CATEGORIES.substr(at, CATEGORIES.find(' ', at) - at);
        at += category.size() + 1;
        const auto holds = [&](std::string_view name) { return category.starts_with(name); };
        if (category.size() == 2 && std::none_of(held.begin(), held.end(), holds))
            others += fmt::format("\\p{{{}}}", category);
    }
    return others;
}

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
            case ')':
                close();
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
        ++at_;
        const bool negated = peek() == '^', nested = peek(negated) == '[';
        at_ += negated;
        std::vector<ClassItems> parts = {operand()};
        for (; starts("&&"); parts.push_back(operand())) at_ += 2;
        ++at_;
        if (parts.size() > 1) return intersection(parts, negated);
        if (nested) refuse("a class inside a class");
        out_ += (negated ? "[^" : "[") + parts[0].text + "]";
    }

    // One side of &&: items, or a class that is the whole side.
    ClassItems operand() {
        if (peek() != '[') return {items()};
        if (peek(1) == ':') refuse("a class by its name");
        const bool negated = peek(1) == '^';
        at_ += negated ? 2 : 1;
        ClassItems out{items(), negated};
        if (peek() != ']') refuse("&& in a class inside a class");
        ++at_;
        if (peek() != ']' && !starts("&&")) refuse("a class beside other items in a class");
        return out;
    }

    std::string items() { // up to ] or &&
        const size_t begin = out_.size();
        if (peek() == ']' || starts("&&")) refuse("an empty class, or ] first in one");
        while (peek() != ']' && !starts("&&")) {
            if (done()) refuse("a class without its end");
            if (peek() == '[') refuse("a class inside a class");
            if (peek() == '\\')
                escape();
            else
                copy(1);
        }
        std::string text = out_.substr(begin);
        out_.resize(begin);
        return text;
    }

    void intersection(const std::vector<ClassItems>& parts, bool negated) {
        if (!caseless_.empty() && caseless_.back()) refuse("&& under (?i:");
        std::string outside; // what is not in every part
        bool listed = true;
        for (const ClassItems& part : parts) {
            const std::optional<std::string> others = complement(part);
            listed = listed && others;
            outside += others.value_or("");
        }
        if (listed) {
            out_ += (negated ? "[" : "[^") + outside + "]";
            return;
        }
        if (negated) refuse("a negated intersection of classes");
        out_ += "(?:";
        for (const ClassItems& part : parts)
            out_ += fmt::format("{}[{}{}]{}", &part == &parts.back() ? "" : "(?=", part.negated ? "^" : "",
                                part.text, &part == &parts.back() ? "" : ")");
        out_ += ")";
    }

    void group() {
        for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"})
            if (starts(opening)) return open(opening);
        if (peek(1) == '?' || peek(1) == '*') refuse("a group of another kind");
        open("(");
    }
    void open(std::string_view opening) {
        caseless_.push_back(opening == "(?i:" || (!caseless_.empty() && caseless_.back()));
        copy(opening.size());
    }
    void close() {
        if (!caseless_.empty()) caseless_.pop_back(); // PCRE2 reports a ) too many
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
    std::vector<bool> caseless_; // for each open group: is it in a (?i: ?
};

} // namespace

std::string pcre2_from_oniguruma(std::string_view regex, std::string_view where) {
    return Translator(regex, where).run();
}

} // namespace fathom
