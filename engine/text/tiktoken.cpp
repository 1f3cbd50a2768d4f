// Reads a rank file of tiktoken, as Moonlight and Kimi ship it (tiktoken.model): on each line a token in
// base64 and its rank, which is its id. Everything else about the tokenizer is a program beside the file
// there; what that program does is known here: the splits, the 256 ids reserved after the last rank, and
// their names, which tokenizer_config.json gives for some. Left out: that program cuts texts at 400,000
// characters and in runs of 25,000 without (or of) white space before it encodes them, which its own library
// needs and which changes tokens at those places.
#include "base/error.h"
#include "base/json.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/pre_tokenizers.h"
#include "text/tokenizer_spec.h"

#include <charconv>
#include <fmt/format.h>

namespace fathom {

namespace {

using nlohmann::json;

constexpr size_t RESERVED = 256;

int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// The bytes of canonical base64 (padded, no spare bits), or "" for anything else.
std::string from_base64(std::string_view text) {
    if (text.size() % 4 != 0) return "";
    std::string bytes;
    size_t digits = text.size();
    while (digits > 0 && text.size() - digits < 2 && text[digits - 1] == '=') --digits;
    unsigned bits = 0, held = 0;
    for (const char c : text.substr(0, digits)) {
        const int digit = base64_digit(c);
        if (digit < 0) return "";
        bits = (bits << 6 | static_cast<unsigned>(digit)) & 0xFFFF;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        bytes += static_cast<char>(bits >> held);
    }
    return (bits & ((1u << held) - 1)) == 0 ? bytes : "";
}

class Reader {
  public:
    Reader(std::string_view text, std::string_view where) : text_(text), where_(where) {}

    std::vector<TokenizerSpec::Word> words() {
        std::vector<TokenizerSpec::Word> out;
        while (!text_.empty()) {
            ++line_;
            const size_t end = std::min(text_.find('\n'), text_.size());
            std::string_view line = text_.substr(0, end);
            text_.remove_prefix(std::min(end + 1, text_.size()));
            if (line.ends_with('\r')) line.remove_suffix(1);
            if (line.empty()) continue;
            out.push_back(word(line));
            if (out.back().id != out.size() - 1)
                fail("ranks from 0 in order",
                     fmt::format("rank {} after {} others", out.back().id, out.size() - 1));
        }
        if (out.empty()) fail("lines \"BASE64 RANK\"", "nothing");
        return out;
    }

  private:
    [[noreturn]] void fail(std::string expected, std::string got) const {
        throw Error({.what = "malformed rank file",
                     .where = fmt::format("{}: line {}", where_, line_),
                     .expected = std::move(expected),
                     .got = std::move(got)});
    }

    TokenizerSpec::Word word(std::string_view line) const {
        const size_t space = std::min(line.find(' '), line.size());
        const std::string_view number = line.substr(std::min(space + 1, line.size()));
        TokenizerSpec::Word out{{}, 0};
        const auto parsed = std::from_chars(number.data(), number.data() + number.size(), out.id);
        const std::string bytes = from_base64(line.substr(0, space));
        if (bytes.empty() || number.empty() || parsed.ec != std::errc{} ||
            parsed.ptr != number.data() + number.size())
            fail("\"BASE64 RANK\"", fmt::format("\"{}\"", printable(line)));
        if (bytes.size() > RankedMerges::LONGEST)
            fail(fmt::format("a token of at most {} bytes", RankedMerges::LONGEST),
                 fmt::format("{} bytes", bytes.size()));
        append_letters(out.text, bytes);
        return out;
    }

    std::string_view text_, where_;
    size_t line_ = 0;
};

// The names that tokenizer_config.json gives to reserved ids.
class Names {
  public:
    Names(std::string_view config, std::string_view where)
        : tree_(parse_json(config, where)), where_(where) {}

    // All ids reserved from `first` on; those without a name in the configuration have one made of the id.
    std::vector<TokenizerSpec::Added> reserved(size_t first) const {
        std::vector<TokenizerSpec::Added> out;
        for (size_t id = first; id < first + RESERVED; ++id)
            out.push_back({fmt::format("<|reserved_token_{}|>", id), static_cast<Token>(id), true, false});
        const json list = tree_.is_object() ? tree_.value("added_tokens_decoder", json()) : json();
        if (!list.is_object()) fail("", "an object from ids to names", list);
        for (const auto& [key, token] : list.items()) {
            const std::string path = fmt::format("[\"{}\"]", printable(key));
            size_t id = 0;
            const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
            if (parsed.ec != std::errc{} || parsed.ptr != key.data() + key.size() || id < first ||
                id >= first + RESERVED)
                fail(path, fmt::format("an id from {} to {}", first, first + RESERVED - 1), key);
            out[id - first].text = name(path, token);
            out[id - first].special = flag(path, token, "special");
            for (const char* option : {"single_word", "lstrip", "rstrip"})
                if (flag(path, token, option)) fail(path + "." + option, "false", true);
        }
        return out;
    }

  private:
    [[noreturn]] void fail(std::string_view path, std::string expected, const json& got) const {
        throw Error({.what = "tokenizer not understood",
                     .where = fmt::format("{}: added_tokens_decoder{}", where_, path),
                     .expected = std::move(expected),
                     .got = json_text(got)});
    }
    std::string name(const std::string& path, const json& token) const {
        if (!token.is_object()) fail(path, "an object", token);
        const json content = token.value("content", json());
        const std::string text = content.is_string() ? content.get<std::string>() : "";
        if (text.empty() || text.size() > LONGEST_ADDED)
            fail(path + ".content", fmt::format("a text of 1 to {} bytes", LONGEST_ADDED), content);
        return text;
    }
    bool flag(const std::string& path, const json& token, const char* key) const {
        const json value = token.value(key, json(false));
        if (!value.is_boolean()) fail(path + "." + key, "true or false", value);
        return value.get<bool>();
    }

    json tree_;
    std::string_view where_;
};

} // namespace

TokenizerSpec read_tiktoken(std::string_view ranks, std::string_view where, std::string_view config,
                            std::string_view config_where) {
    TokenizerSpec spec{.where = std::string(where),
                       .vocab_key = "ranks",
                       .added_key = "added_tokens_decoder",
                       .vocab = Reader(ranks, where).words(),
                       .ranked = true,
                       .splits = splits_of(PreTokenizer::kimi, fmt::format("{}: the splits of Kimi", where)),
                       .ignore_merges = true};
    if (!config.empty()) spec.added = Names(config, config_where).reserved(spec.vocab.size());
    return spec;
}

} // namespace fathom
