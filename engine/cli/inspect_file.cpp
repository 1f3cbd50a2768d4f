// One file for `fathom inspect`; see inspect_file.h.
#include "cli/inspect_file.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "cli/figures.h"
#include "session/tokenizers.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <set>
#include <unistd.h>

namespace fathom::cli {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t LARGEST_JSON = uint64_t{256} << 20;

std::string table_row(std::string_view name, std::string_view text) {
    return fmt::format("{:<14}{}\n", name, text);
}

// Ids may have holes, and a file may name one far out: nothing here goes through all of them.
std::string tokenizer_text(const Tokenizer& tokenizer) {
    return table_row("tokenizer", fmt::format("byte-level BPE, ids up to {}", tokenizer.size() - 1));
}

std::string index_text(const std::map<std::string, std::string>& shard_of) {
    std::set<std::string_view> shards;
    for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
    return table_row("index", fmt::format("{} tensors in {} files", shard_of.size(), shards.size()));
}

// The first bytes of a file; fewer when it is shorter.
std::string beginning(const fs::path& path) {
    uint64_t size = 0;
    const int file = open_regular(path, size);
    std::string bytes(4096, '\0');
    const ssize_t got = read(file, bytes.data(), bytes.size());
    close(file);
    bytes.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return bytes;
}

} // namespace

FileKind kind_of_file(const fs::path& path) {
    const std::string bytes = beginning(path), name = path.filename().string();
    if (bytes.starts_with("GGUF")) return FileKind::gguf;
    // The length of a safetensors header has a zero among its eight bytes, unless it is absurd.
    const size_t first = bytes.find_first_not_of(" \t\r\n");
    const bool text =
        first != bytes.npos && bytes[first] == '{' && bytes.substr(0, 8).find('\0') == bytes.npos;
    const auto named = [&](std::string_view end) { return name.ends_with(end); };
    if (!text) {
        if (named(".json")) return named("tokenizer.json") ? FileKind::tokenizer : FileKind::config;
        if (named(".gguf")) return FileKind::gguf;
        if (!named(".safetensors") && bytes.substr(0, 8).find('\0') == bytes.npos)
            throw Error({.what = "not a file of a model that is known",
                         .where = printable(path.string(), 4096),
                         .expected = "safetensors, their index, GGUF, config.json or tokenizer.json",
                         .got = printable(bytes.substr(0, 16)),
                         .fix = "name one of these, or the folder of a model"});
        return FileKind::safetensors;
    }
    const auto object = parse_json(read_file(path, LARGEST_JSON), printable(path.string(), 4096));
    if (object.contains("weight_map")) return FileKind::index;
    if (object.contains("model") || object.contains("added_tokens")) return FileKind::tokenizer;
    if (object.contains("architectures") || object.contains("hidden_size")) return FileKind::config;
    return named("index.json")       ? FileKind::index
           : named("tokenizer.json") ? FileKind::tokenizer
                                     : FileKind::config;
}

std::string our_architecture(const Gguf& keys) {
    const char* key = "general.architecture";
    const std::string_view name = keys.has(key) ? keys.text(key) : "";
    return std::string(name.starts_with("deepseek") ? name : "");
}

std::string gguf_text(const ModelFiles& files, const Style& style) {
    const Gguf& keys = *files.gguf();
    std::string out = style.bold("keys") + "\n";
    for (const auto& [name, value] : keys.keys())
        out += fmt::format("  {:<44} {}\n", printable(name), text_of(value));
    if (keys.has("tokenizer.ggml.model") && !our_architecture(keys).empty())
        out += "\n" + tokenizer_text(load_tokenizer(files));
    return out;
}

std::string tensors_text(std::span<const TensorView> tensors, const Style& style) {
    struct Sum {
        uint64_t tensors = 0, elements = 0, bytes = 0;
    };
    std::map<std::string_view, Sum> sums;
    for (const TensorView& tensor : tensors) {
        Sum& sum = sums[name_of(tensor.dtype)];
        ++sum.tensors;
        sum.elements += tensor.data.size() / bytes_of(tensor.dtype) * block_of(tensor.dtype);
        sum.bytes += tensor.data.size();
    }
    std::string out =
        style.bold(fmt::format("{:<16}{:>12}{:>14}{:>12}", "type", "tensors", "elements", "bytes")) + "\n";
    for (const auto& [name, sum] : sums)
        out += fmt::format("{:<16}{:>12}{:>14}{:>12}\n", name, sum.tensors, count_text(sum.elements),
                           bytes_text(sum.bytes));
    return out;
}

std::string file_text(const fs::path& path, FileKind kind, const Style& style) {
    const std::string where = printable(path.string(), 4096);
    switch (kind) {
    case FileKind::gguf:
        break; // a model, whose keys and tensors have functions of their own
    case FileKind::safetensors:
        return tensors_text(Checkpoint::open(path).tensors(), style);
    case FileKind::config:
        return config_text(parse_config(read_file(path, LARGEST_JSON), where));
    case FileKind::index:
        return index_text(parse_index(read_file(path, LARGEST_JSON), where));
    case FileKind::tokenizer:
        return tokenizer_text(open_tokenizer(path).tokenizer);
    }
    check(false, "a GGUF is no single file to inspect");
    return "";
}

} // namespace fathom::cli
