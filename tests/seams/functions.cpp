// Finds functions and their lengths by braces (C++, GLSL) or indentation (Python), without parsing either. In
// C++ a brace opens a function when the statement before it has parameters and is neither a type, a namespace
// nor an initialiser; what is inside a function belongs to it, lambdas too.
#include "rules.h"

#include <algorithm>
#include <cctype>
#include <regex>

namespace seams {
namespace {

bool word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// The end of the literal or comment that starts at `at`, or `at` itself when none does.
size_t skip_literal(std::string_view text, size_t at) {
    const std::string_view rest = text.substr(at);
    const auto until = [&](std::string_view end, size_t from) {
        const size_t found = text.find(end, from);
        return found == std::string_view::npos ? text.size() : found + end.size();
    };
    if (rest.starts_with("//")) return std::min(text.find('\n', at), text.size());
    if (rest.starts_with("/*")) return until("*/", at + 2);
    const bool in_word = at > 0 && word(text[at - 1]);
    if (rest.starts_with("R\"") && !in_word) {
        const std::string_view delimiter = rest.substr(2, rest.find('(') - 2);
        return until(")" + std::string(delimiter) + "\"", at + 2);
    }
    if (rest[0] != '"' && (rest[0] != '\'' || in_word)) return at; // a ' inside a number separates digits
    size_t end = at + 1;
    while (end < text.size() && text[end] != rest[0] && text[end] != '\n') end += text[end] == '\\' ? 2 : 1;
    return std::min(end + 1, text.size());
}

// Without `template <...>`, whose parameters are spelled with class and typename.
std::string_view without_template(std::string_view statement) {
    while (true) {
        const size_t start = statement.find_first_not_of(" \n\t\r");
        if (start == std::string_view::npos || !statement.substr(start).starts_with("template"))
            return statement;
        size_t at = statement.find('<', start);
        if (at == std::string_view::npos) return statement;
        for (int depth = 0; at < statement.size(); at++) {
            depth += statement[at] == '<' ? 1 : statement[at] == '>' ? -1 : 0;
            if (depth == 0) break;
        }
        statement = statement.substr(std::min(at + 1, statement.size()));
    }
}

enum class Brace { function, scope, data };

// What the brace after `statement` opens.
Brace classify(std::string_view statement) {
    statement = without_template(statement);
    static const std::regex scope(R"(\b(namespace|class|struct|union|enum)\b)");
    const size_t parameters = statement.find('(');
    const std::string before(statement.substr(0, parameters));
    // `table[] = {f(1)` is data, `operator==(` is not.
    const bool assigned =
        before.find('=') != std::string::npos && before.find("operator") == std::string::npos;
    if (assigned) return Brace::data;
    if (std::regex_search(before, scope) || before.find_first_not_of(" \n\t\r") == std::string::npos)
        return Brace::scope;
    if (parameters != std::string_view::npos) return Brace::function;
    return before.find("extern") != std::string::npos ? Brace::scope : Brace::data;
}

std::string name_before_parameters(std::string_view statement) {
    statement = without_template(statement);
    size_t end = statement.find('(');
    if (const size_t at = statement.find("operator"); at < end)
        return std::string(statement.substr(at, end - at));
    while (end > 0 && statement[end - 1] == ' ') end--;
    size_t start = end;
    while (start > 0 &&
           (word(statement[start - 1]) || statement[start - 1] == ':' || statement[start - 1] == '~'))
        start--;
    return std::string(statement.substr(start, end - start));
}

// The brace that closes the one at `at`, or the end.
size_t closing_brace(std::string_view code, size_t at) {
    for (int depth = 0; at < code.size(); at++) {
        depth += code[at] == '{' ? 1 : code[at] == '}' ? -1 : 0;
        if (depth == 0) break;
    }
    return at;
}

std::vector<Function> functions_by_braces(std::string_view text) {
    const std::string code = code_only(text);
    const auto line_at = [&](size_t at) {
        return static_cast<uint32_t>(
            1 + std::count(code.begin(), code.begin() + static_cast<ptrdiff_t>(at), '\n'));
    };
    std::vector<Function> found;
    size_t statement = 0; // where the current statement starts
    int parentheses = 0;
    bool continues = false; // after `X::X() : a_{1}`: what follows still belongs to the constructor
    for (size_t at = 0; at < code.size(); at++) {
        const char c = code[at];
        parentheses += c == '(' ? 1 : c == ')' ? -1 : 0;
        if ((c == ';' && parentheses == 0) || c == '}') statement = at + 1;
        if (c != '{') continue;
        const std::string_view before = std::string_view(code).substr(statement, at - statement);
        const Brace brace = parentheses > 0 ? Brace::data : classify(before);
        if (brace == Brace::scope) {
            statement = at + 1;
            continue;
        }
        at = closing_brace(code, at);
        if (brace == Brace::data) continue;
        const uint32_t first = line_at(statement + before.find_first_not_of(" \n\t\r"));
        if (!continues) found.push_back({name_before_parameters(before), first, 0});
        found.back().lines = line_at(at) - first + 1;
        const size_t next = code.find_first_not_of(" \n\t\r", at + 1);
        continues = next != std::string::npos && (code[next] == ',' || code[next] == '{');
        if (!continues) statement = at + 1;
    }
    return found;
}

std::vector<Function> functions_by_indentation(std::string_view text) {
    std::vector<Function> found, open; // open ones by growing indentation
    std::vector<size_t> indents;
    uint32_t number = 0, last_code = 0;
    const auto close = [&](size_t indent) {
        while (!open.empty() && indent <= indents.back()) {
            open.back().lines = last_code - open.back().line + 1;
            found.push_back(open.back());
            open.pop_back(), indents.pop_back();
        }
    };
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        number++;
        const size_t indent = line.find_first_not_of(" \t\r");
        if (indent == std::string_view::npos) continue;
        const std::string_view code = line.substr(indent);
        // the end of a long parameter list
        if (!code.starts_with(')') && !code.starts_with(']')) close(indent);
        last_code = number;
        if (!code.starts_with("def ")) continue;
        open.push_back({std::string(code.substr(4, code.find('(') - 4)), number, 0});
        indents.push_back(indent);
    }
    close(0);
    return found;
}

} // namespace

std::string code_only(std::string_view text) {
    std::string code(text);
    const auto blank = [&](size_t from, size_t to) {
        for (size_t i = from; i < to; i++)
            if (code[i] != '\n') code[i] = ' ';
    };
    bool line_start = true;
    for (size_t at = 0; at < text.size();) {
        size_t end = skip_literal(text, at);
        if (end == at && line_start && text[at] == '#') { // to the end of the line, and on after a backslash
            do end = std::min(text.find('\n', end + 1), text.size());
            while (end < text.size() && text[end - 1] == '\\');
        }
        line_start = text[at] == '\n' || (line_start && (text[at] == ' ' || text[at] == '\t'));
        if (end == at) {
            at++;
            continue;
        }
        blank(at, end);
        at = end;
    }
    return code;
}

std::vector<Function> functions(const File& file) {
    if (has_extension(file, ".py")) return functions_by_indentation(file.text);
    for (const char* extension : {".cpp", ".h", ".comp", ".glsl"})
        if (has_extension(file, extension)) return functions_by_braces(file.text);
    return {};
}

} // namespace seams
