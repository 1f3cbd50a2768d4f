// Finds the files of a tokenizer and tells them apart by what they begin with; see tokenizers.h.
#include "session/tokenizers.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/gguf.h"
#include "checkpoint/hub.h"
#include "text/gguf_vocabulary.h"

namespace fathom {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t LARGEST = uint64_t{256} << 20;
constexpr const char* BOS_NAMES[] = {"<｜begin▁of▁sentence｜>", "[BOS]"}; // where no configuration names it

struct Texts {
    std::string tokenizer, where;
    std::string config, config_where; // of tokenizer_config.json; empty when absent
};

bool present(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

// The name in "bos_token", a text or an object with a "content"; empty when there is none.
std::string bos_name(const nlohmann::json& config) {
    const auto member = [](const nlohmann::json& object, const char* key) {
        return object.is_object() && object.contains(key) ? object.at(key) : nlohmann::json();
    };
    nlohmann::json name = member(config, "bos_token");
    if (name.is_object()) name = member(name, "content");
    return name.is_string() ? name.get<std::string>() : "";
}

std::optional<Token> find_bos(const Tokenizer& tokenizer, const Texts& texts) {
    if (!texts.config.empty())
        if (const std::string name = bos_name(parse_json(texts.config, texts.config_where)); !name.empty())
            return tokenizer.find(name);
    for (const char* name : BOS_NAMES)
        if (const auto found = tokenizer.find(name)) return found;
    return std::nullopt;
}

OpenedTokenizer from_texts(const Texts& texts) {
    const size_t first = texts.tokenizer.find_first_not_of(" \t\r\n");
    const bool json =
        first == std::string::npos || texts.tokenizer[first] == '{' || texts.tokenizer[first] == '[';
    Tokenizer tokenizer =
        json ? Tokenizer::from_json(texts.tokenizer, texts.where)
             : Tokenizer::from_tiktoken(texts.tokenizer, texts.where, texts.config, texts.config_where);
    const std::optional<Token> bos = find_bos(tokenizer, texts);
    return {std::move(tokenizer), bos};
}

OpenedTokenizer from_keys(const Gguf& keys) {
    const std::string prefix = "tokenizer.ggml.";
    Tokenizer tokenizer = Tokenizer::from_gguf({.where = keys.where(),
                                                .model = keys.text(prefix + "model"),
                                                .pre = keys.text(prefix + "pre"),
                                                .tokens = keys.texts(prefix + "tokens"),
                                                .types = keys.integers(prefix + "token_type"),
                                                .merges = keys.texts(prefix + "merges")});
    std::optional<Token> bos;
    if (keys.has(prefix + "bos_token_id"))
        bos = static_cast<Token>(keys.whole(prefix + "bos_token_id", 0, tokenizer.size() - 1));
    return {std::move(tokenizer), bos};
}

OpenedTokenizer from_model(const ModelFiles& files) {
    if (files.gguf()) return from_keys(*files.gguf());
    if (files.tokenizer.empty())
        throw Error({.what = "the model has no tokenizer",
                     .where = files.tokenizer_where,
                     .expected = "a tokenizer.json or tiktoken.model",
                     .fix = "put the tokenizer.json of the model beside its config.json"});
    return from_texts({.tokenizer = files.tokenizer,
                       .where = files.tokenizer_where,
                       .config = files.tokenizer_config,
                       .config_where = "tokenizer_config.json"});
}

bool holds_gguf(const fs::path& folder) {
    std::error_code unreadable;
    for (const auto& entry : fs::directory_iterator(folder, unreadable))
        if (entry.path().extension() == ".gguf") return true;
    return false;
}

} // namespace

Tokenizer load_tokenizer(const ModelFiles& files) { return from_model(files).tokenizer; }

OpenedTokenizer open_tokenizer(const fs::path& model) {
    if (model.empty()) return from_model(open_model(model));
    const fs::path path = find_model(model.string());
    fs::path file = path;
    if (std::error_code ignored; fs::is_directory(path, ignored)) {
        file = tokenizer_in(path);
        if (!present(file) && holds_gguf(path)) return from_model(open_model(path));
        if (!present(file))
            throw Error({.what = "no tokenizer in this folder",
                         .where = printable(path.string(), 4096),
                         .expected = "tokenizer.json, tiktoken.model or a GGUF file"});
    }
    if (is_gguf(file)) return from_model(open_model(file));
    const fs::path config = file.parent_path() / "tokenizer_config.json";
    return from_texts({.tokenizer = read_file(file, LARGEST),
                       .where = printable(file.string(), 4096),
                       .config = present(config) ? read_file(config, LARGEST) : "",
                       .config_where = printable(config.string(), 4096)});
}

} // namespace fathom
