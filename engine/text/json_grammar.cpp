#include "text/json_grammar.h"

#include "base/error.h"
#include "base/json.h"

#include <algorithm>
#include <fmt/format.h>
#include <set>

namespace fathom {

namespace {

using json = nlohmann::ordered_json;
using Rule = Grammar::Rule;
using Sequence = Grammar::Sequence;

constexpr size_t MOST_RULES = 100000;
constexpr uint64_t MOST_REPEATS = 2000; // of characters or items that a schema counts
constexpr size_t MOST_PROPERTIES = 1000, MOST_NAME = 256, MOST_DEPTH = 256;

// The rules that every JSON text is made of, behind rule 0.
class JsonBase {
  public:
    std::shared_ptr<Grammar> grammar = std::make_shared<Grammar>();
    Rule whole = rule(), space = rule(), character = rule(), string = rule(), integer = rule(),
         number = rule(), boolean = rule(), null = rule(), value = rule(), object = rule(), array = rule(),
         member = rule(), plain_text = rule();

    explicit JsonBase(bool angles) {
        add_space();
        add_character(angles);
        add_numbers();
        grammar->add(string, {Grammar::byte('"'), Grammar::of(any_number(Grammar::of(character))),
                              Grammar::byte('"')});
        for (const char* word : {"true", "false"}) add_literal(boolean, word);
        add_literal(null, "null");
        for (const Rule of : {string, number, boolean, null, object, array})
            grammar->add(value, {Grammar::of(of)});
        grammar->add(member,
                     {Grammar::of(string), Grammar::byte(':'), Grammar::of(space), Grammar::of(value)});
        grammar->add(object, wrapped('{', Grammar::of(list(Grammar::of(member), 0, NO_END)), '}'));
        grammar->add(array, wrapped('[', Grammar::of(list(Grammar::of(value), 0, NO_END)), ']'));
    }

    static constexpr uint64_t NO_END = ~0ull;
    Rule rule() {
        if (grammar->size() >= MOST_RULES)
            throw Error({.what = "a schema that is too large",
                         .expected = fmt::format("at most {} rules", MOST_RULES)});
        return grammar->add_rule();
    }
    void add_literal(Rule to, std::string_view text) {
        Sequence sequence;
        Grammar::append(sequence, text);
        grammar->add(to, std::move(sequence));
    }
    Rule any_number(const Grammar::Element& element) {
        const Rule more = rule();
        grammar->add(more, {element, Grammar::of(more)});
        grammar->add(more, {});
        return more;
    }
    // `element` from `least` to `most` times, of which each but the first is led in by `between`.
    Rule repeated(const Grammar::Element& element, const Sequence& between, uint64_t least, uint64_t most) {
        const auto with = [&](Sequence lead, Rule next) {
            lead.push_back(element);
            lead.push_back(Grammar::of(next));
            return lead;
        };
        Rule rest = rule(); // what may follow when all that is counted was there
        if (most == NO_END) grammar->add(rest, with(between, rest));
        grammar->add(rest, {});
        const uint64_t counted = most == NO_END ? std::max<uint64_t>(least, 1) : most;
        for (uint64_t i = counted; i-- > 0;) {
            const Rule here = rule();
            grammar->add(here, with(i == 0 ? Sequence{} : between, rest));
            if (i >= least) grammar->add(here, {});
            rest = here;
        }
        return rest;
    }
    // Items with commas, and the space around them but at the ends.
    Rule list(const Grammar::Element& item, uint64_t least, uint64_t most) {
        return repeated(item, {Grammar::byte(','), Grammar::of(space)}, least, most);
    }
    Sequence wrapped(char open, const Grammar::Element& inside, char close) const {
        return {Grammar::byte(static_cast<unsigned char>(open)), Grammar::of(space), inside,
                Grammar::of(space), Grammar::byte(static_cast<unsigned char>(close))};
    }

  private:
    // None, one blank, or a line's end and up to 20 blanks: no model can write it for ever.
    void add_space() {
        const Grammar::Element blank = Grammar::any_of(" \t");
        grammar->add(space, {});
        grammar->add(space, {Grammar::byte(' ')});
        grammar->add(space, {Grammar::byte('\n'), Grammar::of(repeated(blank, {}, 0, 20))});
    }
    // Of a string: UTF-8 without controls, or an escape that is no half of a character.
    void add_character(bool angles) {
        using G = Grammar;
        const G::Element tail = G::range(0x80, 0xBF), hex = G::any_of("0123456789abcdefABCDEF");
        G::Element plain = G::range(0x20, 0x7F);
        plain.bytes.reset('"'), plain.bytes.reset('\\');
        if (!angles) plain.bytes.reset('<');
        G::Element text = G::range(0x20, 0x7F);
        text.bytes.reset('<'), text.bytes.set('\n');
        const Sequence wide[] = {{G::range(0xC2, 0xDF), tail},
                                 {G::byte(0xE0), G::range(0xA0, 0xBF), tail},
                                 {G::range(0xE1, 0xEC), tail, tail},
                                 {G::byte(0xED), G::range(0x80, 0x9F), tail},
                                 {G::range(0xEE, 0xEF), tail, tail},
                                 {G::byte(0xF0), G::range(0x90, 0xBF), tail, tail},
                                 {G::range(0xF1, 0xF3), tail, tail, tail},
                                 {G::byte(0xF4), G::range(0x80, 0x8F), tail, tail}};
        const Sequence escapes[] = {
            {G::byte('\\'), G::any_of("\"\\/bfnrt")},
            {G::byte('\\'), G::byte('u'), G::any_of("0123456789abcefABCEF"), hex, hex, hex},
            {G::byte('\\'), G::byte('u'), G::any_of("dD"), G::range('0', '7'), hex, hex},
        };
        const Rule one = rule();
        grammar->add(one, {text});
        grammar->add(character, {plain});
        for (const Sequence& sequence : wide) grammar->add(one, sequence), grammar->add(character, sequence);
        for (const Sequence& sequence : escapes) grammar->add(character, sequence);
        grammar->add(plain_text, {Grammar::of(any_number(Grammar::of(one)))});
    }
    void add_numbers() {
        using G = Grammar;
        const G::Element digit = G::range('0', '9');
        const Rule natural = rule(), fraction = rule(), exponent = rule(), sign = rule();
        grammar->add(natural, {G::byte('0')});
        grammar->add(natural, {G::range('1', '9'), G::of(repeated(digit, {}, 0, 15))});
        grammar->add(integer, {G::of(natural)});
        grammar->add(integer, {G::byte('-'), G::of(natural)});
        grammar->add(fraction, {});
        grammar->add(fraction, {G::byte('.'), G::of(repeated(digit, {}, 1, 16))});
        grammar->add(sign, {});
        grammar->add(sign, {G::any_of("+-")});
        grammar->add(exponent, {});
        grammar->add(exponent, {G::any_of("eE"), G::of(sign), G::of(repeated(digit, {}, 1, 2))});
        grammar->add(number, {G::of(integer), G::of(fraction), G::of(exponent)});
    }
};

class Compiler {
  public:
    Compiler(const json& schema, JsonBase& base) : root_(schema), json_(base) {}
    Rule compile() { return rule_of(root_, "#"); }

  private:
    [[noreturn]] static void refuse(const std::string& where, const std::string& got,
                                    const char* expected = "") {
        throw Error({.what = "a schema that answers cannot be kept to",
                     .where = where,
                     .expected = expected,
                     .got = got});
    }

    // Once for each place: a schema may refer to itself.
    Rule rule_of(const json& schema, const std::string& where) {
        if (const auto known = rules_.find(where); known != rules_.end()) return known->second;
        struct Depth {
            size_t& depth;
            explicit Depth(size_t& d) : depth(d) { ++depth; }
            ~Depth() { --depth; }
        } const here(depth_);
        if (depth_ > MOST_DEPTH) refuse(where, "more than 256 schemas within one another");
        const Rule rule = rules_[where] = json_.rule();
        if (schema.is_boolean()) {
            if (!schema.get<bool>()) refuse(where, "false", "something that is allowed");
            json_.grammar->add(rule, {Grammar::of(json_.value)});
            return rule;
        }
        if (!schema.is_object()) refuse(where, json_text(nlohmann::json(schema)), "an object");
        check_keys(schema, where);
        fill(rule, schema, where);
        return rule;
    }

    static void check_keys(const json& schema, const std::string& where) {
        static const std::set<std::string_view> known = {
            "type",      "properties",  "required",   "additionalProperties",
            "items",     "prefixItems", "minItems",   "maxItems",
            "enum",      "const",       "anyOf",      "oneOf",
            "allOf",     "minLength",   "maxLength",  "$ref",
            "$defs",     "definitions", "title",      "description",
            "default",   "examples",    "format",     "$id",
            "$schema",   "$comment",    "deprecated", "readOnly",
            "writeOnly", "strict"};
        for (const auto& [key, value] : schema.items())
            if (!known.contains(key))
                refuse(where, fmt::format("'{}'", key), "keywords that a grammar can hold");
    }

    void fill(Rule rule, const json& schema, const std::string& where) {
        if (const auto ref = schema.find("$ref"); ref != schema.end()) return refer(rule, *ref, where);
        if (schema.contains("const")) return json_.add_literal(rule, schema["const"].dump());
        if (const auto all = schema.find("enum"); all != schema.end()) {
            if (!all->is_array() || all->empty()) refuse(where + "/enum", all->dump(), "a list of values");
            for (const json& value : *all) json_.add_literal(rule, value.dump());
            return;
        }
        for (const char* key : {"anyOf", "oneOf", "allOf"}) {
            const auto all = schema.find(key);
            if (all == schema.end()) continue;
            const std::string place = where + "/" + key;
            if (!all->is_array() || all->empty()) refuse(place, all->dump(), "a list of schemas");
            if (std::string_view(key) == "allOf" && all->size() != 1) refuse(place, "several schemas", "one");
            if (schema.contains("properties") || schema.contains("items"))
                refuse(place, "properties or items beside it", "either");
            for (size_t i = 0; i < all->size(); ++i)
                json_.grammar->add(rule, {Grammar::of(rule_of((*all)[i], fmt::format("{}/{}", place, i)))});
            return;
        }
        for (const std::string& type : types_of(schema, where)) fill_type(rule, type, schema, where);
    }

    static std::vector<std::string> types_of(const json& schema, const std::string& where) {
        const auto type = schema.find("type");
        if (type == schema.end()) {
            if (schema.contains("properties") || schema.contains("additionalProperties")) return {"object"};
            if (schema.contains("items") || schema.contains("prefixItems")) return {"array"};
            if (schema.contains("minLength") || schema.contains("maxLength")) return {"string"};
            return {"any"};
        }
        std::vector<std::string> types;
        const json list = type->is_array() ? *type : json::array({*type});
        for (const json& one : list) {
            if (!one.is_string()) refuse(where + "/type", one.dump(), "the name of a type");
            types.push_back(one.get<std::string>());
        }
        if (types.empty()) refuse(where + "/type", "no type");
        return types;
    }

    void fill_type(Rule rule, const std::string& type, const json& schema, const std::string& where) {
        const std::map<std::string_view, Rule> simple = {{"integer", json_.integer},
                                                         {"number", json_.number},
                                                         {"boolean", json_.boolean},
                                                         {"null", json_.null},
                                                         {"any", json_.value}};
        if (const auto known = simple.find(type); known != simple.end())
            json_.grammar->add(rule, {Grammar::of(known->second)});
        else if (type == "string")
            fill_string(rule, schema, where);
        else if (type == "array")
            fill_array(rule, schema, where);
        else if (type == "object")
            fill_object(rule, schema, where);
        else
            refuse(where + "/type", type, "string, number, integer, boolean, null, array or object");
    }

    static uint64_t count(const json& schema, const char* key, uint64_t otherwise, const std::string& where) {
        const auto it = schema.find(key);
        if (it == schema.end()) return otherwise;
        if (!it->is_number_unsigned() || it->get<uint64_t>() > MOST_REPEATS)
            refuse(where + "/" + key, it->dump(), "0 to 2000");
        return it->get<uint64_t>();
    }

    void fill_string(Rule rule, const json& schema, const std::string& where) {
        const uint64_t least = count(schema, "minLength", 0, where),
                       most = count(schema, "maxLength", JsonBase::NO_END, where);
        if (least > most) refuse(where, "minLength above maxLength");
        json_.grammar->add(rule, {Grammar::byte('"'),
                                  Grammar::of(json_.repeated(Grammar::of(json_.character), {}, least, most)),
                                  Grammar::byte('"')});
    }

    void fill_array(Rule rule, const json& schema, const std::string& where) {
        const uint64_t least = count(schema, "minItems", 0, where),
                       most = count(schema, "maxItems", JsonBase::NO_END, where);
        if (least > most) refuse(where, "minItems above maxItems");
        const auto first = schema.find("prefixItems");
        if (first == schema.end()) {
            const Rule item =
                schema.contains("items") ? rule_of(schema["items"], where + "/items") : json_.value;
            json_.grammar->add(
                rule, json_.wrapped('[', Grammar::of(json_.list(Grammar::of(item), least, most)), ']'));
            return;
        }
        const auto items = schema.find("items");
        const bool closed = items != schema.end() && *items == json(false);
        if (!first->is_array() || first->empty() || !closed || schema.contains("minItems") ||
            schema.contains("maxItems"))
            refuse(where + "/prefixItems", "other items than these", "a list of schemas, and items: false");
        const Rule all = json_.rule();
        Sequence sequence;
        for (size_t i = 0; i < first->size(); ++i) {
            if (i != 0) sequence.push_back(Grammar::byte(',')), sequence.push_back(Grammar::of(json_.space));
            sequence.push_back(Grammar::of(rule_of((*first)[i], fmt::format("{}/prefixItems/{}", where, i))));
        }
        json_.grammar->add(all, std::move(sequence));
        json_.grammar->add(rule, json_.wrapped('[', Grammar::of(all), ']'));
    }

    // A string that is none of these names, with its quotes; escapes are let through.
    Rule other_name(std::vector<std::string> names) {
        std::sort(names.begin(), names.end());
        const Rule rest = json_.any_number(Grammar::of(json_.character)), rule = json_.rule();
        json_.grammar->add(rule, {Grammar::byte('"'), Grammar::of(other_from(names, 0, rest))});
        return rule;
    }
    // Behind the first `depth` bytes, which all of them have.
    Rule other_from(std::span<const std::string> names, size_t depth, Rule rest) {
        const Rule rule = json_.rule();
        const auto ends = [&](const std::string& name) { return name.size() == depth; };
        if (std::none_of(names.begin(), names.end(), ends)) json_.grammar->add(rule, {Grammar::byte('"')});
        Grammar::Element others = Grammar::range(0x20, 0x7F);
        others.bytes.reset('"'), others.bytes.reset('\\');
        for (size_t i = 0; i < names.size();) {
            size_t end = i + 1;
            if (ends(names[i])) {
                i = end;
                continue;
            }
            while (end < names.size() && names[end][depth] == names[i][depth]) ++end;
            const auto byte = static_cast<unsigned char>(names[i][depth]);
            others.bytes.reset(byte);
            json_.grammar->add(rule, {Grammar::byte(byte),
                                      Grammar::of(other_from(names.subspan(i, end - i), depth + 1, rest))});
            i = end;
        }
        json_.grammar->add(rule, {others, Grammar::of(rest), Grammar::byte('"')});
        return rule;
    }

    void fill_object(Rule rule, const json& schema, const std::string& where) {
        const json properties = schema.value("properties", json::object());
        if (!properties.is_object() || properties.size() > MOST_PROPERTIES)
            refuse(where + "/properties", properties.is_object() ? "too many" : properties.dump(),
                   "an object of at most 1000");
        std::set<std::string> required;
        for (const json& name : schema.value("required", json::array())) {
            if (!name.is_string() || !properties.contains(name.get<std::string>()))
                refuse(where + "/required", name.dump(), "names of properties");
            required.insert(name.get<std::string>());
        }
        const auto more = schema.find("additionalProperties");
        const bool open = more == schema.end() ? properties.empty() : *more != json(false);
        struct Member {
            Rule rule;
            bool required;
        };
        std::vector<Member> members;
        std::vector<std::string> names;
        for (const auto& [name, inner] : properties.items()) {
            if (name.size() > MOST_NAME) refuse(where + "/properties", "a name longer than 256 bytes");
            const Rule member = json_.rule();
            Sequence sequence;
            Grammar::append(sequence, json(name).dump());
            Grammar::append(sequence, ":");
            sequence.push_back(Grammar::of(json_.space));
            sequence.push_back(Grammar::of(rule_of(inner, fmt::format("{}/properties/{}", where, name))));
            json_.grammar->add(member, std::move(sequence));
            members.push_back({member, required.contains(name)});
            const std::string quoted = json(name).dump();
            names.push_back(quoted.substr(1, quoted.size() - 2));
        }
        const Sequence comma = {Grammar::byte(','), Grammar::of(json_.space)};
        // what follows the members before this one, where none of them was written, and where one was
        Rule none = json_.rule(), some = json_.rule();
        json_.grammar->add(none, {}), json_.grammar->add(some, {});
        if (open) {
            const Rule value = more == schema.end() || more->is_boolean()
                                   ? json_.value
                                   : rule_of(*more, where + "/additionalProperties");
            const Rule member = json_.rule();
            json_.grammar->add(member, {Grammar::of(names.empty() ? json_.string : other_name(names)),
                                        Grammar::byte(':'), Grammar::of(json_.space), Grammar::of(value)});
            json_.grammar->add(some, {comma[0], comma[1], Grammar::of(member), Grammar::of(some)});
            json_.grammar->add(none, {Grammar::of(member), Grammar::of(some)});
        }
        for (auto member = members.rbegin(); member != members.rend(); ++member) {
            const Rule first = json_.rule(), next = json_.rule();
            json_.grammar->add(first, {Grammar::of(member->rule), Grammar::of(some)});
            json_.grammar->add(next, {comma[0], comma[1], Grammar::of(member->rule), Grammar::of(some)});
            if (!member->required) {
                json_.grammar->add(first, {Grammar::of(none)});
                json_.grammar->add(next, {Grammar::of(some)});
            }
            none = first, some = next;
        }
        json_.grammar->add(rule, json_.wrapped('{', Grammar::of(none), '}'));
    }

    void refer(Rule rule, const json& to, const std::string& where) {
        const std::string path = to.is_string() ? to.get<std::string>() : to.dump();
        if (!path.starts_with("#"))
            refuse(where + "/$ref", path, "a place in the schema itself (#/$defs/NAME)");
        try {
            const json& target = root_.at(json::json_pointer(path.substr(1)));
            json_.grammar->add(rule, {Grammar::of(rule_of(target, path))});
        } catch (const json::exception&) {
            refuse(where + "/$ref", path, "a place that is there");
        }
    }

    const json& root_;
    JsonBase& json_;
    std::map<std::string, Rule> rules_;
    size_t depth_ = 0;
};

} // namespace

struct JsonRules::Impl {
    explicit Impl(bool angles) : base(angles) {}
    JsonBase base;
};

JsonRules::JsonRules(bool angles) : impl_(std::make_unique<Impl>(angles)) {}
JsonRules::~JsonRules() = default;
Grammar& JsonRules::grammar() { return *impl_->base.grammar; }
Rule JsonRules::object() const { return impl_->base.object; }
Rule JsonRules::of(const json& schema) { return Compiler(schema, impl_->base).compile(); }
Rule JsonRules::plain_text() const { return impl_->base.plain_text; }
std::shared_ptr<const Grammar> JsonRules::finish() const { return impl_->base.grammar; }

std::shared_ptr<const Grammar> json_object_grammar() {
    JsonRules rules;
    rules.grammar().add(0, {Grammar::of(rules.object())});
    return rules.finish();
}

std::shared_ptr<const Grammar> json_schema_grammar(const json& schema) {
    JsonRules rules;
    rules.grammar().add(0, {Grammar::of(rules.of(schema))});
    return rules.finish();
}

} // namespace fathom
