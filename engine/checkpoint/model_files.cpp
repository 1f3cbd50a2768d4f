// open_model: the files of a model, from a Hugging Face folder, from GGUF or from this program's own
// read-only data (put there by an assembly file that the build generates from models/tiny).
#include "checkpoint/checkpoint.h"

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/gguf.h"
#include "checkpoint/hub.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>

extern "C" {
extern const char fathom_tiny_weights[], fathom_tiny_weights_end[];
extern const char fathom_tiny_config[], fathom_tiny_config_end[];
extern const char fathom_tiny_tokenizer[], fathom_tiny_tokenizer_end[];
}

namespace fathom {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t largest_config = uint64_t{16} << 20, largest_tokenizer = uint64_t{256} << 20;

std::string_view embedded(const char* begin, const char* end) {
    return {begin, static_cast<size_t>(end - begin)};
}

ModelFiles open_embedded() {
    const auto weights = embedded(fathom_tiny_weights, fathom_tiny_weights_end);
    return {.name = "fathom-tiny",
            .checkpoint =
                Checkpoint::from_memory(std::as_bytes(std::span(weights)), "embedded model.safetensors"),
            .config = std::string(embedded(fathom_tiny_config, fathom_tiny_config_end)),
            .config_where = "embedded config.json",
            .tokenizer = std::string(embedded(fathom_tiny_tokenizer, fathom_tiny_tokenizer_end)),
            .tokenizer_where = "embedded tokenizer.json",
            .tokenizer_config = "",
            .chat_template = ""};
}

std::string name_for_people(const fs::path& folder) {
    std::error_code failed;
    fs::path absolute = fs::weakly_canonical(folder, failed);
    if (failed) absolute = folder;
    if (const auto name = name_in_hub(absolute)) return *name;
    return printable(
        (absolute.has_filename() ? absolute.filename() : absolute.parent_path().filename()).string());
}

bool present(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

// The one GGUF model of a folder, or of a split one its first part; none when there is no such file.
std::optional<fs::path> only_gguf(const fs::path& folder) {
    std::vector<fs::path> found;
    std::error_code unreadable; // is an error of what is looked for next
    for (const auto& entry : fs::directory_iterator(folder, unreadable)) {
        const std::string name = entry.path().filename().string();
        const size_t of = name.size() < 20 ? name.npos : name.size() - 20; // -00002-of-00003.gguf
        const bool later =
            of != name.npos && name.substr(of + 6, 4) == "-of-" && name.substr(of, 6) != "-00001";
        if (entry.path().extension() == ".gguf" && !later) found.push_back(entry.path());
    }
    if (found.size() > 1) {
        std::sort(found.begin(), found.end());
        throw Error({.what = "several models",
                     .where = printable(folder.string(), 4096),
                     .expected = "one GGUF file, or the parts of one",
                     .got = fmt::format("{} and {}", printable(found[0].filename().string()),
                                        printable(found[1].filename().string())),
                     .fix = "name the file"});
    }
    return found.empty() ? std::nullopt : std::optional(found.front());
}

ModelFiles open_gguf(const fs::path& path) {
    ModelFiles files{.name = printable(path.stem().string()), .checkpoint = Checkpoint::open(path)};
    const Gguf& keys = *files.gguf();
    if (keys.has("tokenizer.chat_template")) files.chat_template = keys.text("tokenizer.chat_template");
    return files;
}

} // namespace

fs::path tokenizer_in(const fs::path& folder) {
    const fs::path json = folder / "tokenizer.json", ranks = folder / "tiktoken.model";
    return present(ranks) && !present(json) ? ranks : json;
}

namespace {

ModelFiles open_any(const fs::path& model, bool texts_only) {
    if (model.empty()) return open_embedded();
    const fs::path path = find_model(model.string());
    std::error_code unreadable;
    const auto kind = fs::status(path, unreadable).type();
    const std::string where = printable(path.string(), 4096);
    const std::string wanted =
        "the folder of a Hugging Face checkpoint (config.json, .safetensors, tokenizer.json), or a GGUF file";
    if (kind == fs::file_type::not_found || kind == fs::file_type::none)
        throw Error({.what = "no such model",
                     .where = where,
                     .expected = wanted,
                     .got = kind == fs::file_type::none ? unreadable.message() : "nothing there",
                     .fix = "check the path, or leave it out to use the embedded model"});
    if (kind == fs::file_type::regular && is_gguf(path)) return open_gguf(path);
    const bool one_file = kind == fs::file_type::regular && path.extension() == ".safetensors";
    if (kind != fs::file_type::directory && !one_file)
        throw Error({.what = "not a model",
                     .where = where,
                     .expected = wanted,
                     .got = "another file",
                     .fix = "give the folder; other formats are not read"});
    const fs::path folder = !one_file ? path : path.has_parent_path() ? path.parent_path() : fs::path(".");
    const fs::path config = folder / "config.json", tokenizer = tokenizer_in(folder);
    const fs::path tokenizer_config = folder / "tokenizer_config.json";
    if (kind == fs::file_type::directory && !present(config))
        if (const auto model = only_gguf(folder)) return open_gguf(*model);
    if (!present(config))
        throw Error({.what = "no config.json",
                     .where = printable(folder.string(), 4096),
                     .expected = wanted,
                     .fix = "fetch the checkpoint's config.json into this folder"});
    const auto optional_text = [](const fs::path& file) {
        return present(file) ? read_file(file, largest_tokenizer) : std::string();
    };
    return {.name = name_for_people(folder),
            .checkpoint = texts_only ? Checkpoint::none() : Checkpoint::open(path),
            .config = read_file(config, largest_config),
            .config_where = printable(config.string(), 4096),
            .tokenizer = optional_text(tokenizer),
            .tokenizer_where = printable(tokenizer.string(), 4096),
            .tokenizer_config = optional_text(tokenizer_config),
            .chat_template = optional_text(folder / "chat_template.jinja")};
}

} // namespace

ModelFiles open_model(const fs::path& model, bool texts_only) {
    ModelFiles files = open_any(model, texts_only);
    files.path = model;
    return files;
}

} // namespace fathom
