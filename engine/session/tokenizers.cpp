// Finds the files of a tokenizer and tells them apart by what they begin with; see tokenizers.h.
#include "session/tokenizers.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace fathom {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t LARGEST = uint64_t{256} << 20;
constexpr const char* FILES[] = {"tokenizer.json", "tiktoken.model"}; // of a folder, the first that is there
constexpr const char* BOS_NAMES[] = {"<｜begin▁of▁sentence｜>", "[BOS]"}; // where no configuration names it

struct Texts {
    std::string tokenizer, where;
    std::string config, config_where; // of tokenizer_config.json; empty when absent
};

Tokenizer make_tokenizer(const Texts& texts) {
    const size_t first = texts.tokenizer.find_first_not_of(" \t\r\n");
    if (first == std::string::npos || texts.tokenizer[first] == '{' || texts.tokenizer[first] == '[')
        return Tokenizer::from_json(texts.tokenizer, texts.where);
    return Tokenizer::from_tiktoken(texts.tokenizer, texts.where, texts.config, texts.config_where);
}

bool present(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

fs::path tokenizer_file(const fs::path& path) {
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) return path;
    for (const char* name : FILES)
        if (present(path / name)) return path / name;
    throw Error({.what = "no tokenizer in this folder",
                 .where = printable(path.string(), 4096),
                 .expected = "tokenizer.json or tiktoken.model"});
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

} // namespace

Tokenizer load_tokenizer(const ModelFiles& files) {
    if (files.tokenizer.empty())
        throw Error({.what = "the model has no tokenizer",
                     .where = files.tokenizer_where,
                     .expected = "a tokenizer.json or tiktoken.model",
                     .fix = "put the tokenizer.json of the model beside its config.json"});
    return make_tokenizer({.tokenizer = files.tokenizer,
                           .where = files.tokenizer_where,
                           .config = files.tokenizer_config,
                           .config_where = "tokenizer_config.json"});
}

OpenedTokenizer open_tokenizer(const fs::path& path) {
    Texts texts;
    if (path.empty()) {
        const ModelFiles embedded = open_model({});
        texts = {embedded.tokenizer, embedded.tokenizer_where, "", ""};
    } else {
        const fs::path file = tokenizer_file(path), config = file.parent_path() / "tokenizer_config.json";
        texts.tokenizer = read_file(file, LARGEST);
        texts.where = printable(file.string(), 4096);
        if (present(config)) texts.config = read_file(config, LARGEST);
        texts.config_where = printable(config.string(), 4096);
    }
    Tokenizer tokenizer = make_tokenizer(texts);
    const std::optional<Token> bos = find_bos(tokenizer, texts);
    return {std::move(tokenizer), bos};
}

} // namespace fathom
