// Texts that are kept to a grammar: which bytes and tokens it lets through, against plain trying, and that
// whatever is written by it is what it promises.
#include "help.h"
#include "text/json_grammar.h"
#include "text/tool_calls.h"

#include <algorithm>
#include <random>

using namespace help;
using namespace fathom;
using nlohmann::ordered_json;

namespace {

bool matches(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
    GrammarState state(grammar);
    return state.accept(text) && state.may_end();
}

void check_texts(const char* schema, std::initializer_list<const char*> good,
                 std::initializer_list<const char*> bad) {
    CAPTURE(schema);
    const auto grammar = json_schema_grammar(ordered_json::parse(schema));
    for (const char* text : good) {
        CAPTURE(text);
        CHECK(matches(grammar, text));
        CHECK(ordered_json::accept(text));
    }
    for (const char* text : bad) {
        CAPTURE(text);
        CHECK(!matches(grammar, text));
    }
}

Tokenizer tiny_tokenizer() {
    const std::string path = std::string(FATHOM_SOURCE_DIR) + "/models/tiny/tokenizer.json";
    return Tokenizer::from_json(read_file(path), path);
}

// Tokens that the masks allow, chosen by chance, until the grammar lets the text end.
std::string written(const std::shared_ptr<const Grammar>& grammar, const Tokenizer& tokenizer,
                    const SortedVocabulary& vocabulary, uint32_t seed) {
    std::mt19937 dice(seed);
    GrammarState state(grammar);
    std::string text;
    for (int i = 0; i < 2000 && !state.must_end(); ++i) {
        if (state.may_end() && dice() % 8 == 0) break;
        std::vector<Token> allowed;
        const std::vector<uint32_t> mask = state.mask(vocabulary);
        for (Token t = 0; t < tokenizer.size(); ++t)
            if (mask[t / 32] >> t % 32 & 1) allowed.push_back(t);
        REQUIRE(!allowed.empty());
        // what closes is likelier, or lists would not end
        std::vector<Token> closing;
        for (const Token t : allowed)
            if (std::string_view("\"]}<0").find(tokenizer.bytes(t).front()) != std::string_view::npos)
                closing.push_back(t);
        const std::vector<Token>& from = !closing.empty() && dice() % 3 != 0 ? closing : allowed;
        const Token token = from[dice() % from.size()];
        REQUIRE(state.accept(tokenizer.bytes(token)));
        text += tokenizer.bytes(token);
    }
    return state.may_end() ? text : "";
}

const char* const PERSON = R"({"type":"object","properties":{
    "name":{"type":"string","maxLength":12},"age":{"type":"integer"},
    "mood":{"enum":["glad","sad",null]},"tags":{"type":"array","items":{"type":"string"},"maxItems":3},
    "home":{"$ref":"#/$defs/place"}},
    "required":["name","age"],"additionalProperties":false,
    "$defs":{"place":{"type":"object","properties":{"x":{"type":"number"},
                      "next":{"anyOf":[{"$ref":"#/$defs/place"},{"type":"null"}]}},
                      "required":["x"],"additionalProperties":false}}})";

} // namespace

TEST_CASE("grammar: texts of schemas, and those that are none") {
    check_texts(R"({"type":"integer"})", {"0", "-7", "1234567890"}, {"", "01", "1.5", "--1", "+1", "1 "});
    check_texts(R"({"type":"number"})", {"0", "-0.5", "1e5", "1.25E-3"}, {".5", "1.", "1e", "NaN", "0x1"});
    check_texts(R"({"type":["boolean","null"]})", {"true", "false", "null"}, {"True", "nul", "truefalse"});
    check_texts(
        R"({"type":"string","minLength":1,"maxLength":3})", {R"("a")", R"("äö你")", R"("\n\u00e4\"")"},
        {R"("")", R"("abcd")", "\"a\nb\"", R"("\ud800")", "\"\xff\"", "\"\xc3\"", R"("\x")", "\"abc"});
    check_texts(R"({"const":{"a":[1,"b"]}})", {R"({"a":[1,"b"]})"}, {R"({"a": [1,"b"]})", "{}"});
    check_texts(R"({"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3})",
                {"[1]", "[1,2]", "[ 1, 2,3 ]", "[\n  1,\n  2\n]"},
                {"[]", "[1,2,3,4]", "[1,]", "[,1]", "[1 2]"});
    check_texts(R"({"items":false,"prefixItems":[{"type":"integer"},{"type":"string"}]})", {R"([1,"a"])"},
                {"[1]", R"(["a",1])", R"([1,"a",2])"});
    check_texts(PERSON,
                {R"({"name":"Ann","age":3})", R"({"name": "Ann", "age": 3, "mood": null})",
                 R"({"name":"","age":0,"tags":[],"home":{"x":1.5,"next":{"x":2,"next":null}}})"},
                {R"({"age":3,"name":"Ann"})", R"({"name":"Ann"})", R"({"name":"Ann","age":3,"other":1})",
                 R"({"name":"Ann","age":"3"})", R"({"name":"Ann","age":3,})", R"({"name":"Ann","age":3)"});
    check_texts(R"({"properties":{"ab":{"type":"integer"}},"additionalProperties":{"type":"boolean"}})",
                {"{}", R"({"ab":1})", R"({"ab":1,"a":true,"abc":false})", R"({"b":true})"},
                {R"({"ab":true})", R"({"a":1})", R"({"ab":1,"ab":true})"});
    check_texts(R"({"type":"object"})", {"{}", R"({"a":{"b":[1,"x",null]}})"}, {"[]", "1", R"({a:1})"});
    check_texts("true", {"1", "[]", R"("a")"}, {"", "a"});
    CHECK(matches(json_object_grammar(), R"({"a": [true, {"b": -1.5e3}], "c": "d"})"));
    CHECK(!matches(json_object_grammar(), "[1]"));
}

TEST_CASE("grammar: what a schema asks for in vain is named") {
    const std::pair<const char*, const char*> cases[] = {
        {R"({"type":"string","pattern":"a+"})", "'pattern'"},
        {R"({"properties":{"a":{"minimum":3}}})", "#/properties/a"},
        {R"({"type":"text"})", "text"},
        {R"({"type":7})", "#/type"},
        {R"({"enum":[]})", "#/enum"},
        {R"({"anyOf":{}})", "#/anyOf"},
        {R"({"allOf":[{},{}]})", "#/allOf"},
        {R"({"$ref":"#/$defs/none"})", "#/$defs/none"},
        {R"({"$ref":"https://example.org/a"})", "example.org"},
        {R"({"type":"array","minItems":3,"maxItems":2})", "minItems"},
        {R"({"type":"string","maxLength":1000000})", "maxLength"},
        {R"({"required":["a"],"type":"object"})", "#/required"},
        {R"({"properties":[]})", "#/properties"},
        {"false", "#"},
        {"3", "3"},
    };
    for (const auto& [schema, part] : cases) {
        CAPTURE(schema);
        CHECK(error_of([&] { json_schema_grammar(ordered_json::parse(schema)); }).find(part) !=
              std::string::npos);
    }
    // endless and branching references are no trouble
    CHECK(!matches(json_schema_grammar(ordered_json::parse(R"({"$ref":"#"})")), "1"));
    std::string many = R"({"$ref":"#/$defs/a0","$defs":{)";
    for (int i = 0; i < 50; ++i) {
        const std::string next = "{\"$ref\":\"#/$defs/a" + std::to_string(i + 1) + "\"}";
        many += "\"a" + std::to_string(i) + "\":{\"anyOf\":[" + next + "," + next + "]},";
    }
    CHECK(matches(json_schema_grammar(ordered_json::parse(many + R"("a50":{"type":"integer"}}})")), "12"));
}

TEST_CASE("grammar: masks are what trying every token gives") {
    const Tokenizer tokenizer = tiny_tokenizer();
    const SortedVocabulary vocabulary(tokenizer);
    for (const char* text :
         {"", "{", "{\"na", "{\"name\":\"A", "{\"name\":\"A\",\"age\":1", "{\"name\":\"A\",\"age\":1}"}) {
        CAPTURE(text);
        GrammarState state(json_schema_grammar(ordered_json::parse(PERSON)));
        REQUIRE(state.accept(text));
        const std::vector<uint32_t> mask = state.mask(vocabulary);
        uint32_t wrong = 0;
        for (Token t = 0; t < tokenizer.size(); ++t) {
            GrammarState tried = state;
            const bool fits = tokenizer.contains(t) && !tokenizer.is_added(t) &&
                              !tokenizer.bytes(t).empty() && tried.accept(tokenizer.bytes(t));
            wrong += fits != (mask[t / 32] >> t % 32 & 1);
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("grammar: whatever is written by one is JSON of its schema") {
    const Tokenizer tokenizer = tiny_tokenizer();
    const SortedVocabulary vocabulary(tokenizer);
    const auto person = json_schema_grammar(ordered_json::parse(PERSON));
    int whole = 0;
    for (uint32_t seed = 0; seed < 40; ++seed) {
        const std::string text = written(person, tokenizer, vocabulary, seed);
        if (text.empty()) continue;
        CAPTURE(text);
        const ordered_json value = ordered_json::parse(text);
        CHECK(value.at("name").is_string());
        CHECK(value.at("age").is_number_integer());
        ++whole;
    }
    CHECK(whole > 30);
}

namespace {

const std::string WEATHER =
    R"({"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}, )"
    R"("days": {"type": "integer"}, "unit": {"type": "string", "enum": ["c", "f"]}, )"
    R"("at": {"type": "object"}}, "required": ["city", "days"]}})";
const std::vector<ToolDefinition> TOOLS{{"{\"type\": \"function\", \"function\": " + WEATHER + "}", WEATHER}};
constexpr const char* WITH_TOOLS[] = {"deepseek-v3.2", "deepseek-v4", "kimi-k2", "glm-4.7"};

// An answer that says something and calls, as the format renders it.
std::string calling(const ChatFormat& format, const std::vector<ToolCall>& calls) {
    Conversation conversation;
    conversation.tools = TOOLS;
    conversation.messages = {
        {.role = ChatMessage::Role::user, .content = "How is it?"},
        {.role = ChatMessage::Role::assistant, .content = "I shall look.", .tool_calls = calls}};
    std::string answer = format.render(conversation);
    answer = answer.substr(answer.find("I shall look."));
    if (const size_t stop = answer.rfind(format.stop); stop != answer.npos) answer.resize(stop);
    return answer;
}

} // namespace

TEST_CASE("tools: calls are read as each format writes them, in pieces of any size") {
    const ordered_json arguments = {
        {"city", "Köln \"am\" Rhein\nnow"}, {"days", 3}, {"unit", "c"}, {"at", {{"x", {1, true}}}}};
    const std::vector<ToolCall> calls{
        {"functions.weather:0", "function", "weather", arguments.dump()},
        {"functions.weather:1", "function", "weather", R"({"city":"17","days":2})"}};
    for (const char* name : WITH_TOOLS) {
        CAPTURE(name);
        const ChatFormat& format = ChatFormat::named(name);
        const std::string answer = calling(format, calls);
        for (const size_t size : {size_t{1}, size_t{5}, answer.size()}) {
            ToolCallStream stream(format, TOOLS);
            std::string text;
            for (size_t at = 0; at < answer.size(); at += size) text += stream.push(answer.substr(at, size));
            const ToolCallStream::End end = stream.finish();
            CHECK(text + end.text == "I shall look.");
            REQUIRE(end.calls.size() == 2);
            for (size_t i = 0; i < 2; ++i) {
                CHECK(end.calls[i].name == "weather");
                CHECK(ordered_json::parse(end.calls[i].arguments) == ordered_json::parse(calls[i].arguments));
            }
        }
        // what only begins like a call is text, all of it
        for (const std::string& broken : {answer.substr(0, answer.size() - 9), std::string("a <tool_cal"),
                                          std::string("1 < 2"), std::string(" ")}) {
            ToolCallStream stream(format, TOOLS);
            const std::string text = stream.push(broken);
            const ToolCallStream::End end = stream.finish();
            CHECK(text + end.text == broken);
            CHECK(end.calls.empty());
        }
    }
    CHECK_THROWS(ToolCallStream(ChatFormat::named("deepseek-v3"), TOOLS));
}

TEST_CASE("tools: an answer that is kept to a call is one") {
    const Tokenizer tokenizer = tiny_tokenizer();
    const SortedVocabulary vocabulary(tokenizer);
    for (const char* name : WITH_TOOLS) {
        CAPTURE(name);
        const ChatFormat& format = ChatFormat::named(name);
        const auto grammar = tool_call_grammar(format, TOOLS, "");
        int whole = 0;
        for (uint32_t seed = 0; seed < 12; ++seed) {
            const std::string text = written(grammar, tokenizer, vocabulary, seed);
            if (text.empty()) continue;
            CAPTURE(text);
            const std::vector<ToolCall> made = read_tool_calls(format, TOOLS, text);
            REQUIRE(made.size() == 1);
            const ordered_json given = ordered_json::parse(made[0].arguments);
            CHECK(given.at("city").is_string());
            CHECK(given.at("days").is_number_integer());
            ++whole;
        }
        CHECK(whole > 6);
        CHECK(error_of([&] { tool_call_grammar(format, TOOLS, "time"); }).find("time") != std::string::npos);
    }
}
