#include "text/tool_calls.h"

#include "base/error.h"
#include "base/json.h"
#include "text/json_grammar.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <utility>

namespace fathom {

using json = nlohmann::ordered_json;

namespace {

// A text that is read from its beginning on.
class Cursor {
  public:
    explicit Cursor(std::string_view text) : rest_(text) {}
    bool take(std::string_view wanted) {
        if (!rest_.starts_with(wanted)) return false;
        rest_.remove_prefix(wanted.size());
        return true;
    }
    // What stands before the next `mark`, which is taken too.
    std::optional<std::string_view> until(std::string_view mark) {
        const size_t at = rest_.find(mark);
        if (at == rest_.npos) return std::nullopt;
        const std::string_view before = rest_.substr(0, at);
        rest_.remove_prefix(at + mark.size());
        return before;
    }
    void skip_space() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size())); }
    bool at_end() const { return rest_.empty(); }

  private:
    std::string_view rest_;
};

std::optional<json> parsed(std::string_view text) {
    try {
        parse_json(text, "arguments"); // nothing of what nlohmann-json lets through
        return json::parse(text);
    } catch (const std::exception&) {
        return std::nullopt;
    }
}

using Calls = std::optional<std::vector<ToolCall>>; // none: it makes no sense
using Tools = std::vector<ToolDefinition>;

ToolCall call(std::string_view name, const json& arguments) {
    return {.id = "", .type = "function", .name = std::string(name), .arguments = arguments.dump()};
}

// <｜DSML｜function_calls> (V4: tool_calls), as their published encoders write it.
Calls read_dsml(std::string_view text, std::string_view block) {
    Cursor at(text);
    if (!at.take(fmt::format("<｜DSML｜{}>", block))) return std::nullopt;
    std::vector<ToolCall> calls;
    for (;;) {
        at.skip_space();
        if (at.take(fmt::format("</｜DSML｜{}>", block))) break;
        if (!at.take("<｜DSML｜invoke name=\"")) return std::nullopt;
        const auto name = at.until("\">");
        if (!name) return std::nullopt;
        json arguments = json::object();
        for (;;) {
            at.skip_space();
            if (at.take("</｜DSML｜invoke>")) break;
            if (!at.take("<｜DSML｜parameter name=\"")) return std::nullopt;
            const auto key = at.until("\" string=\""), is_string = at.until("\">"),
                       value = at.until("</｜DSML｜parameter>");
            if (!key || !is_string || !value) return std::nullopt;
            if (*is_string == "true") {
                arguments[std::string(*key)] = *value;
                continue;
            }
            const std::optional<json> given = parsed(*value);
            if (!given) return std::nullopt;
            arguments[std::string(*key)] = *given;
        }
        calls.push_back(call(*name, arguments));
    }
    at.skip_space();
    return at.at_end() && !calls.empty() ? Calls(calls) : std::nullopt;
}
Calls read_v3_2(std::string_view text, const Tools&) { return read_dsml(text, "function_calls"); }
Calls read_v4(std::string_view text, const Tools&) { return read_dsml(text, "tool_calls"); }

// functions.NAME:INDEX and a JSON object between marks.
Calls read_kimi(std::string_view text, const Tools&) {
    Cursor at(text);
    if (!at.take("<|tool_calls_section_begin|>")) return std::nullopt;
    std::vector<ToolCall> calls;
    for (;;) {
        at.skip_space();
        if (at.take("<|tool_calls_section_end|>")) break;
        if (!at.take("<|tool_call_begin|>")) return std::nullopt;
        const auto id = at.until("<|tool_call_argument_begin|>"), arguments = at.until("<|tool_call_end|>");
        if (!id || !arguments) return std::nullopt;
        std::optional<json> given = parsed(*arguments);
        if (given && given->is_string())
            given = parsed(given->get<std::string>()); // as the template quotes them
        if (!given || !given->is_object()) return std::nullopt;
        std::string_view name = *id;
        if (name.starts_with("functions.")) name.remove_prefix(10);
        name = name.substr(0, name.rfind(':'));
        calls.push_back(call(name, *given));
        calls.back().id = *id;
    }
    at.skip_space();
    return at.at_end() && !calls.empty() ? Calls(calls) : std::nullopt;
}

// Whether the definition of a tool says that an argument is a string.
bool is_string(const Tools& tools, std::string_view tool, const std::string& argument) {
    for (const ToolDefinition& definition : tools) {
        const std::optional<json> f = parsed(definition.function);
        if (!f || f->value("name", "") != tool || !f->contains("parameters")) continue;
        const json& parameters = (*f)["parameters"];
        const json::json_pointer place("/properties/" + [&] {
            std::string escaped;
            for (const char c : argument) escaped += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
            return escaped;
        }() + "/type");
        return parameters.is_object() && parameters.contains(place) && parameters[place] == "string";
    }
    return false;
}

// <tool_call>NAME and pairs of <arg_key> and <arg_value>.
Calls read_glm(std::string_view text, const Tools& tools) {
    Cursor at(text);
    std::vector<ToolCall> calls;
    while (!at.at_end()) {
        if (!at.take("<tool_call>")) return std::nullopt;
        const auto body = at.until("</tool_call>");
        if (!body) return std::nullopt;
        const size_t end = std::min(body->find("<arg_key>"), body->size());
        std::string_view name = body->substr(0, end);
        name = name.substr(0, name.find_last_not_of(" \t\r\n") + 1);
        json arguments = json::object();
        Cursor pairs(body->substr(end));
        for (pairs.skip_space(); !pairs.at_end(); pairs.skip_space()) {
            if (!pairs.take("<arg_key>")) return std::nullopt;
            const auto key = pairs.until("</arg_key>");
            pairs.skip_space();
            if (!key || !pairs.take("<arg_value>")) return std::nullopt;
            const auto value = pairs.until("</arg_value>");
            if (!value) return std::nullopt;
            const std::string argument(*key);
            const std::optional<json> given =
                is_string(tools, name, argument) ? std::nullopt : parsed(*value);
            arguments[argument] = given ? *given : json(std::string(*value));
        }
        calls.push_back(call(name, arguments));
        at.skip_space();
    }
    return calls.empty() ? std::nullopt : Calls(calls);
}

// How a format spells a call: its name stands between the first two, its arguments behind that.
struct Spelling {
    std::string_view begin, before_name, behind_name, end_call, end;
    // Around an argument's name and value; of texts and of other values. Without: one JSON object for all.
    std::string_view argument, text_value, other_value, end_value;
};
constexpr Spelling V3_2{
    "<｜DSML｜function_calls>\n", "<｜DSML｜invoke name=\"",   "\">\n",
    "</｜DSML｜invoke>\n",        "</｜DSML｜function_calls>", "<｜DSML｜parameter name=\"",
    "\" string=\"true\">",        "\" string=\"false\">",      "</｜DSML｜parameter>\n"};
constexpr Spelling V4{"<｜DSML｜tool_calls>\n", "<｜DSML｜invoke name=\"", "\">\n",
                      "</｜DSML｜invoke>\n",    "</｜DSML｜tool_calls>",   "<｜DSML｜parameter name=\"",
                      "\" string=\"true\">",    "\" string=\"false\">",    "</｜DSML｜parameter>\n"};
constexpr Spelling KIMI{"<|tool_calls_section_begin|>",
                        "<|tool_call_begin|>functions.",
                        ":0<|tool_call_argument_begin|>",
                        "<|tool_call_end|>",
                        "<|tool_calls_section_end|>",
                        "",
                        "",
                        "",
                        ""};
constexpr Spelling GLM{"",
                       "<tool_call>",
                       "",
                       "</tool_call>",
                       "",
                       "<arg_key>",
                       "</arg_key><arg_value>",
                       "</arg_key><arg_value>",
                       "</arg_value>"};

struct Syntax {
    const char* format;
    std::string_view begin; // of calls
    Calls (*read)(std::string_view text, const Tools& tools);
    const Spelling& spelling;
};
constexpr Syntax SYNTAXES[] = {{"deepseek-v3.2", "<｜DSML｜function_calls>", read_v3_2, V3_2},
                               {"deepseek-v4", "<｜DSML｜tool_calls>", read_v4, V4},
                               {"kimi-k2", "<|tool_calls_section_begin|>", read_kimi, KIMI},
                               {"glm-4.7", "<tool_call>", read_glm, GLM}};

const Syntax& syntax_of(const ChatFormat& format) {
    for (const Syntax& syntax : SYNTAXES)
        if (std::string_view(format.name) == syntax.format) return syntax;
    throw Error({.what = fmt::format("the chat format {} has no syntax for calls of tools", format.name)});
}

} // namespace

ToolCallStream::ToolCallStream(const ChatFormat& format, Tools tools)
    : format_(format), tools_(std::move(tools)) {
    syntax_of(format); // or throws
}

std::string ToolCallStream::push(std::string_view text) {
    held_ += text;
    if (calling_) return "";
    const std::string_view mark = syntax_of(format_).begin;
    size_t ready = held_.find(mark);
    calling_ = ready != std::string::npos;
    if (!calling_) { // all but what may be the beginning of the mark, and the space that leads it in
        size_t kept = std::min(mark.size() - 1, held_.size());
        while (kept > 0 && held_.compare(held_.size() - kept, kept, mark, 0, kept) != 0) --kept;
        ready = held_.size() - kept;
    }
    const size_t last = ready == 0 ? std::string::npos : held_.find_last_not_of(" \t\r\n", ready - 1);
    ready = last == std::string::npos ? 0 : last + 1;
    std::string out = held_.substr(0, ready);
    held_.erase(0, ready);
    return out;
}

ToolCallStream::End ToolCallStream::finish() {
    std::string rest = std::exchange(held_, {});
    if (!calling_) return {std::move(rest), {}};
    const size_t at = rest.find(syntax_of(format_).begin);
    std::vector<ToolCall> calls = read_tool_calls(format_, tools_, std::string_view(rest).substr(at));
    if (calls.empty()) return {std::move(rest), {}};
    return {"", std::move(calls)};
}

std::vector<ToolCall> read_tool_calls(const ChatFormat& format, const Tools& tools, std::string_view text) {
    while (!text.empty() && std::string_view(" \t\r\n").find(text.back()) != std::string_view::npos)
        text.remove_suffix(1);
    return syntax_of(format).read(text, tools).value_or(std::vector<ToolCall>());
}

namespace {

// The arguments of a call, each by itself, in the order of their definition.
Grammar::Rule arguments_rule(JsonRules& rules, const Spelling& spelling, const json& parameters) {
    Grammar& grammar = rules.grammar();
    const json required = parameters.value("required", json::array());
    Grammar::Rule rest = grammar.add_rule();
    grammar.add(rest, {});
    const json properties = parameters.value("properties", json::object());
    if (!properties.is_object() || properties.size() > 1000)
        throw Error({.what = "the properties of a tool are no object of at most 1000"});
    for (auto it = properties.rbegin(); it != properties.rend(); ++it) {
        const bool is_text = it.value().is_object() && it.value().value("type", json()) == "string" &&
                             !it.value().contains("enum") && !it.value().contains("const");
        const bool is_word =
            it.value().is_object() && it.value().value("type", json()) == "string" && !is_text;
        Grammar::Sequence sequence;
        Grammar::append(sequence, spelling.argument);
        Grammar::append(sequence, it.key());
        Grammar::append(sequence, is_text || is_word ? spelling.text_value : spelling.other_value);
        if (is_text) {
            sequence.push_back(Grammar::of(rules.plain_text()));
        } else if (is_word) { // one of several, without the quotes of JSON
            const Grammar::Rule word = grammar.add_rule();
            const json all =
                it.value().contains("enum") ? it.value()["enum"] : json::array({it.value()["const"]});
            for (const json& one : all) {
                Grammar::Sequence letters;
                Grammar::append(letters, one.is_string() ? one.get<std::string>() : one.dump());
                grammar.add(word, std::move(letters));
            }
            sequence.push_back(Grammar::of(word));
        } else {
            sequence.push_back(Grammar::of(rules.of(it.value())));
        }
        Grammar::append(sequence, spelling.end_value);
        sequence.push_back(Grammar::of(rest));
        const Grammar::Rule here = grammar.add_rule();
        grammar.add(here, std::move(sequence));
        if (std::find(required.begin(), required.end(), json(it.key())) == required.end())
            grammar.add(here, {Grammar::of(rest)});
        rest = here;
    }
    return rest;
}

} // namespace

std::shared_ptr<const Grammar> tool_call_grammar(const ChatFormat& format, const Tools& tools,
                                                 const std::string& name) {
    const Spelling& spelling = syntax_of(format).spelling;
    JsonRules rules(false);
    Grammar& grammar = rules.grammar();
    grammar.marks = true;
    const Grammar::Rule calls = grammar.add_rule();
    for (const ToolDefinition& tool : tools) {
        const json function = json::parse(tool.function);
        const std::string its_name = function.value("name", "");
        if (!name.empty() && its_name != name) continue;
        const json parameters = function.value("parameters", json{{"type", "object"}});
        if (!parameters.is_object())
            throw Error({.what = "the parameters of a tool are no schema",
                         .where = its_name,
                         .got = parameters.dump()});
        Grammar::Sequence sequence;
        Grammar::append(sequence, spelling.before_name);
        Grammar::append(sequence, its_name);
        Grammar::append(sequence, spelling.behind_name);
        sequence.push_back(Grammar::of(
            spelling.argument.empty() ? rules.of(parameters) : arguments_rule(rules, spelling, parameters)));
        Grammar::append(sequence, spelling.end_call);
        grammar.add(calls, std::move(sequence));
    }
    if (grammar.alternatives(calls).empty())
        throw Error({.what = "there is no such tool", .got = name.empty() ? "no tools" : name});
    Grammar::Sequence whole;
    Grammar::append(whole, spelling.begin);
    whole.push_back(Grammar::of(calls));
    Grammar::append(whole, spelling.end);
    grammar.add(0, std::move(whole));
    return rules.finish();
}

} // namespace fathom
