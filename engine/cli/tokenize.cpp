// `fathom tokenize` and `fathom detokenize`: a tokenizer as it is, without its model. With --jsonl each line
// of standard input is a JSON object and gives one line; bytes that are not UTF-8, which JSON cannot hold, go
// by their hexadecimal digits under "bytes" instead of "text", both ways.
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/files.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "session/tokenizers.h"
#include "text/utf8.h"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>
#include <unistd.h>

namespace fathom::cli {

namespace {

using nlohmann::json;

struct Options {
    std::filesystem::path model;
    std::optional<std::string> input; // TEXT or IDS; standard input without it
    bool bos = false, special = false, ids = false, jsonl = false;
};

OpenedTokenizer open(const Options& options) { return open_tokenizer(options.model); }

// ---- lines of JSON ----

// Calls answer(line) for each line of standard input and writes what it returns as a line. An Error in it
// names the line.
void for_each_line(const std::function<std::string(const json& line)>& answer) {
    struct Buffer {
        char* text = nullptr;
        size_t size = 0;
        ~Buffer() { std::free(text); }
    } buffer;
    for (size_t number = 1;; ++number) {
        const std::string where = fmt::format("standard input: line {}", number);
        errno = 0;
        const ssize_t length = ::getline(&buffer.text, &buffer.size, stdin);
        if (length < 0 && errno != 0)
            throw Error({.what = "cannot read", .where = where, .got = std::strerror(errno)});
        if (length < 0) return;
        std::string_view text(buffer.text, static_cast<size_t>(length));
        if (text.ends_with('\n')) text.remove_suffix(1);
        try {
            const json line = parse_json(text, "");
            if (!line.is_object()) throw Error({.what = "not a JSON object", .got = json_text(line)});
            write_out(answer(line) + "\n");
        } catch (const Error& error) {
            ErrorParts parts = error.parts();
            parts.where = parts.where.empty() ? where : where + ": " + parts.where;
            if (parts.what == "broken JSON") parts.fix.clear(); // it is for files
            throw Error(std::move(parts));
        }
    }
}

const json& member(const json& line, const char* key) {
    const auto found = line.find(key);
    if (found == line.end())
        throw Error({.what = "a member is missing", .expected = fmt::format("\"{}\"", key)});
    return *found;
}

std::string from_hex(std::string_view digits) {
    std::string bytes;
    for (size_t i = 0; i < digits.size(); i += 2) {
        unsigned char byte = 0;
        const char* const end = digits.data() + std::min(i + 2, digits.size());
        const auto parsed = std::from_chars(digits.data() + i, end, byte, 16);
        if (parsed.ec != std::errc{} || parsed.ptr != digits.data() + i + 2)
            throw Error({.what = "malformed bytes",
                         .expected = "two hexadecimal digits for each",
                         .got = fmt::format("\"{}\"", printable(digits))});
        bytes += static_cast<char>(byte);
    }
    return bytes;
}

// The text of a line, by "text" or by "bytes".
std::string text_of(const json& line) {
    const bool bytes = line.contains("bytes");
    if (bytes && line.contains("text")) throw Error({.what = "both \"text\" and \"bytes\" in one line"});
    const json& value = member(line, bytes ? "bytes" : "text");
    if (!value.is_string())
        throw Error(
            {.what = bytes ? "\"bytes\" is no text" : "\"text\" is no text", .got = json_text(value)});
    return bytes ? from_hex(value.get_ref<const std::string&>()) : value.get<std::string>();
}

std::vector<Token> ids_of(const json& line) {
    const json& list = member(line, "ids");
    if (!list.is_array()) throw Error({.what = "\"ids\" is no list", .got = json_text(list)});
    std::vector<Token> out;
    for (const json& id : list) {
        if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX)
            throw Error({.what = "not a token id",
                         .where = fmt::format("ids[{}]", out.size()),
                         .got = json_text(id)});
        out.push_back(id.get<Token>());
    }
    return out;
}

std::string line_of(std::string_view text) {
    if (utf8_valid_prefix(text) == text.size()) return fmt::format("{{\"text\": {}}}", json(text).dump());
    std::string digits;
    for (const char c : text) digits += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return fmt::format("{{\"bytes\": \"{}\"}}", digits);
}

// ---- for people ----

// Text in quotes with everything visible; what is not UTF-8 by itself as \xNN.
std::string quoted(std::string_view bytes) {
    constexpr std::string_view escaped = "\n\r\t\"\\", letters = "nrt\"\\";
    std::string out = "\"";
    while (!bytes.empty()) {
        const size_t plain = std::min(bytes.find_first_of(escaped), bytes.size());
        out += printable(bytes.substr(0, plain), SIZE_MAX);
        bytes.remove_prefix(plain);
        if (bytes.empty()) break;
        out += {'\\', letters[escaped.find(bytes.front())]};
        bytes.remove_prefix(1);
    }
    return out + '"';
}

std::string table(const Tokenizer& tokenizer, std::span<const Token> tokens) {
    const Style style = Style::of(STDOUT_FILENO);
    const size_t width = std::to_string(tokenizer.size() - 1).size();
    std::string out;
    for (const Token token : tokens) {
        const std::string_view bytes = tokenizer.bytes(token);
        out += fmt::format("{:>{}}  ", token, width);
        if (tokenizer.is_added(token))
            out += fmt::format("{}  {}", style.bold(printable(bytes, SIZE_MAX)),
                               style.dim(tokenizer.is_special(token) ? "special token" : "added token"));
        else
            out += quoted(bytes);
        out += '\n';
    }
    return out;
}

// ---- the commands ----

std::vector<Token> encode(const OpenedTokenizer& opened, const Options& options, std::string_view text) {
    std::vector<Token> tokens = opened.tokenizer.encode(text, options.special ? Added::all : Added::ordinary);
    if (!options.bos) return tokens;
    if (!opened.bos)
        throw Error({.what = "this tokenizer does not say which token begins a text",
                     .where = options.model.string(),
                     .fix = "leave out --bos"});
    if (tokens.empty() || tokens.front() != *opened.bos) tokens.insert(tokens.begin(), *opened.bos);
    return tokens;
}

int tokenize(const Options& options) {
    if (options.jsonl && options.input) throw UsageError("--jsonl reads standard input: leave out TEXT");
    if (options.jsonl && options.ids) throw UsageError("--jsonl and --ids exclude each other");
    const OpenedTokenizer opened = open(options);
    if (options.jsonl) {
        for_each_line([&](const json& line) {
            return fmt::format("{{\"ids\": [{}]}}", fmt::join(encode(opened, options, text_of(line)), ", "));
        });
        return OK;
    }
    const std::string text = options.input ? *options.input : read_stdin();
    const std::vector<Token> tokens = encode(opened, options, text);
    write_out(options.ids ? fmt::format("{}\n", fmt::join(tokens, ",")) : table(opened.tokenizer, tokens));
    if (!options.ids) log::info("{} tokens, {} bytes", tokens.size(), text.size());
    return OK;
}

int detokenize(const Options& options) {
    if (options.jsonl && options.input) throw UsageError("--jsonl reads standard input: leave out IDS");
    const Tokenizer tokenizer = open(options).tokenizer;
    if (options.jsonl) {
        for_each_line([&](const json& line) { return line_of(tokenizer.decode(ids_of(line))); });
        return OK;
    }
    const std::string ids = options.input ? *options.input : read_stdin();
    const bool none = ids.find_first_not_of(" \t\r\n") == std::string::npos;
    write_generated(tokenizer.decode(none ? std::vector<Token>() : parse_tokens(ids, "IDS")));
    return OK;
}

std::shared_ptr<Options> common_options(CLI::App& app, const char* input, const char* about,
                                        const char* lines) {
    auto options = std::make_shared<Options>();
    add_named_model(app, "MODEL", options->model,
                    "A tokenizer.json, a tiktoken.model, a GGUF file, or the folder of a model");
    add_text(app, input, options->input, "", about);
    add_flag(app, "--jsonl", options->jsonl, lines);
    return options;
}

} // namespace

Action prepare_tokenize(CLI::App& app) {
    auto options =
        common_options(app, "TEXT", "The text; without it standard input, to its last byte",
                       "Read lines {\"text\": ...}, write lines {\"ids\": [...]}; bytes that are not "
                       "UTF-8 as {\"bytes\": \"HEX\"}");
    add_flag(app, "--ids", options->ids, "Write the ids alone, with commas between them");
    add_flag(app, "--bos", options->bos, "Begin with the token that begins a text");
    add_flag(app, "--special", options->special,
             "Names of special tokens in the text are those tokens; without it they are plain text, and only "
             "names that the tokenizer does not mark special (<｜User｜> in some) count");
    return [options] { return tokenize(*options); };
}

Action prepare_detokenize(CLI::App& app) {
    auto options =
        common_options(app, "IDS", "Token ids, with commas between them; without it standard input",
                       "Read lines {\"ids\": [...]}, write lines {\"text\": ...}, or {\"bytes\": "
                       "\"HEX\"} where that is not UTF-8");
    return [options] { return detokenize(*options); };
}

} // namespace fathom::cli
