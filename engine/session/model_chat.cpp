// See model_chat.h. tokenizer_config.json holds one template, or a list of templates with names.
#include "session/model_chat.h"

#include "base/error.h"
#include "base/json.h"

namespace fathom {

namespace {

std::string configured_template(const std::string& text) {
    if (text.empty()) return "";
    const nlohmann::json config = parse_json(text, "tokenizer_config.json");
    const auto wrong = [](const nlohmann::json& got) {
        return Error({.what = "not a chat template",
                      .where = "tokenizer_config.json: chat_template",
                      .expected = "a string, or a list of objects with a name and a template",
                      .got = json_text(got)});
    };
    if (!config.is_object() || !config.contains("chat_template")) return "";
    const nlohmann::json& value = config["chat_template"];
    if (value.is_null()) return "";
    if (value.is_string()) return value;
    if (!value.is_array()) throw wrong(value);
    for (const nlohmann::json& entry : value) {
        if (!entry.is_object()) throw wrong(entry);
        const auto name = entry.find("name"), body = entry.find("template");
        if (name == entry.end() || body == entry.end() || !body->is_string()) throw wrong(entry);
        if (*name == "default") return *body;
    }
    return "";
}

} // namespace

const ChatFormat& find_chat_format(const ModelFiles& files) {
    const std::string text =
        files.chat_template.empty() ? configured_template(files.tokenizer_config) : files.chat_template;
    return text.empty() ? ChatFormat::named("deepseek-v3") : ChatFormat::of_template(text, files.name);
}

} // namespace fathom
