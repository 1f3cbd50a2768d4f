// Grammars of JSON texts: of any object, and of what a JSON Schema describes. What a schema asks for beyond
// what a grammar can hold is an Error that names it, never left out.
//
// Understood: type (also a list), properties, required, additionalProperties, items, prefixItems, minItems,
// maxItems, enum, const, anyOf, oneOf, allOf of one, minLength, maxLength, $ref into the schema itself,
// $defs, definitions. Without meaning for a text, and passed over: title, description, default, examples,
// format, $id, $schema, $comment, deprecated, readOnly, writeOnly, strict. Properties come in the schema's
// order; those that it does not name only where additionalProperties says so, or where it names none.
#pragma once

#include "text/grammar.h"

#include <nlohmann/json.hpp>

namespace fathom {

std::shared_ptr<const Grammar> json_object_grammar();
std::shared_ptr<const Grammar> json_schema_grammar(const nlohmann::ordered_json& schema); // throws Error

// The same as rules of a larger grammar, whose rule 0 is left to be filled.
class JsonRules {
  public:
    // `angles`: whether '<' may stand in a string as it is, and not as an escape alone.
    explicit JsonRules(bool angles = true);
    ~JsonRules();
    JsonRules(const JsonRules&) = delete;
    Grammar& grammar();
    Grammar::Rule object() const;
    Grammar::Rule of(const nlohmann::ordered_json& schema); // throws Error
    Grammar::Rule plain_text() const; // UTF-8 of any length without '<' and controls but line ends
    std::shared_ptr<const Grammar> finish() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace fathom
