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

// Of a model without a template: V3.2 and V4 were published so. Newer ones of theirs may be another's format.
const char* format_of_type(const ModelFiles& files) {
    if (files.gguf()) return "deepseek-v3";
    const nlohmann::json config = parse_json(files.config, files.config_where);
    const auto type = config.is_object() ? config.find("model_type") : config.end();
    if (type == config.end() || !type->is_string()) return "deepseek-v3";
    const std::string& name = type->get_ref<const std::string&>();
    if (name == "deepseek_v32") return "deepseek-v3.2";
    if (name == "deepseek_v4") return "deepseek-v4";
    if (name == "deepseek" || name == "deepseek_v2" || name == "deepseek_v3" || name == "kimi_k2")
        return "deepseek-v3";
    throw Error({.what = "the model has no chat template, and its type tells no chat format",
                 .where = files.config_where + ": model_type",
                 .expected = "a chat_template in tokenizer_config.json, or deepseek_v32 or deepseek_v4",
                 .got = printable(name),
                 .fix = "choose one, with --chat-format"});
}

} // namespace

const ChatFormat& find_chat_format(const ModelFiles& files) {
    const std::string text =
        files.chat_template.empty() ? configured_template(files.tokenizer_config) : files.chat_template;
    return text.empty() ? ChatFormat::named(format_of_type(files))
                        : ChatFormat::of_template(text, files.name);
}

} // namespace fathom
