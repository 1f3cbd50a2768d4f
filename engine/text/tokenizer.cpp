// The tokenizer: checks that the parts of a spec agree with each other, and runs them. See tokenizer.h for
// the contract; splits are in split.cpp, merging in bpe.cpp, the file formats in tokenizer_json.cpp,
// tiktoken.cpp and gguf_vocabulary.cpp.
//
// Vocabulary entries are kept as the bytes they stand for. An entry with a character outside the byte-level
// alphabet (the name of a special token) cannot come out of merging; it stands for its own UTF-8, as in
// Hugging Face's decoder.
#include "text/tokenizer.h"

#include "base/error.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/token_index.h"
#include "text/tokenizer_spec.h"
#include "text/utf8.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace fathom {

namespace {

constexpr size_t TEXT_LIMIT = size_t{1} << 31;

bool never_in_utf8(unsigned byte) { return byte == 0xC0 || byte == 0xC1 || byte >= 0xF5; }

// Finds added tokens in a text: leftmost, longest first.
class AddedMatcher {
  public:
    struct Name {
        std::string_view text;
        Token id;
        bool special, letter; // see Added

        bool wanted(Added which) const {
            return letter || which == Added::all || (which == Added::ordinary && !special);
        }
    };
    struct Match {
        size_t at;
        const Name* name; // null: no match, and `at` is the end
    };

    void add(const Name& name) { names_.push_back(name); }
    void finish() {
        std::sort(names_.begin(), names_.end(), [](const Name& a, const Name& b) { return a.text < b.text; });
        for (const Name& name : names_) first_[static_cast<unsigned char>(name.text[0])] = true;
    }
    Match find(std::string_view text, size_t from) const {
        for (size_t at = from; at < text.size(); ++at)
            if (first_[static_cast<unsigned char>(text[at])])
                if (const Name* name = longest(text.substr(at))) return {at, name};
        return {text.size(), nullptr};
    }

  private:
    // The longest name that begins `text`: narrows the sorted names byte by byte.
    const Name* longest(std::string_view text) const {
        const Name* best = nullptr;
        auto low = names_.begin(), high = names_.end();
        for (size_t i = 0; low != high && i < text.size(); ++i) {
            const auto byte = static_cast<unsigned char>(text[i]);
            low = std::partition_point(low, high, [&](const Name& name) {
                return name.text.size() <= i || static_cast<unsigned char>(name.text[i]) < byte;
            });
            high = std::partition_point(low, high, [&](const Name& name) {
                return static_cast<unsigned char>(name.text[i]) == byte;
            });
            if (low != high && low->text.size() == i + 1) best = &*low;
        }
        return best;
    }

    std::vector<Name> names_; // sorted by text
    std::array<bool, 256> first_{};
};

} // namespace

struct Tokenizer::Impl {
    struct Entry {
        Token id;
        bool added, special;
        size_t offset, length; // in `arena`
    };

    static constexpr size_t NOT_FOUND = SIZE_MAX;

    std::string where;
    std::string arena;          // the bytes of all entries
    std::vector<Entry> entries; // sorted by id
    TokenIndex words;           // byte-level entries of the vocabulary by their bytes
    TokenIndex others;          // the rest of the vocabulary by its text
    TokenIndex added;           // added tokens by their text
    AddedMatcher raw, normalized;
    Splitter splitter;
    std::optional<Bpe> bpe;
    bool ignore_merges;

    explicit Impl(TokenizerSpec spec);
    void add_vocab(const TokenizerSpec& spec);
    void add_added(const TokenizerSpec& spec);
    std::optional<Token> vocab_id(const TokenizerSpec::Added& token, std::string_view key) const;
    void sort_entries(const std::vector<TokenizerSpec::Added>& added_tokens);
    void make_bpe(const TokenizerSpec& spec);
    std::unique_ptr<Merges> list_merges(const TokenizerSpec& spec) const;
    bool is_letter(std::string_view added_text) const;
    size_t find(Token id) const; // index of the entry, or NOT_FOUND
    std::string_view bytes(const Entry& entry) const {
        return std::string_view(arena).substr(entry.offset, entry.length);
    }
};

Tokenizer::Impl::Impl(TokenizerSpec spec)
    : where(spec.where), splitter(std::move(spec.splits)), ignore_merges(spec.ignore_merges) {
    size_t room = 0; // views into the arena are taken while it fills, so it must not move
    for (const auto& word : spec.vocab) room += word.text.size();
    for (const auto& token : spec.added) room += token.text.size();
    arena.reserve(room);
    add_vocab(spec);
    add_added(spec);
    sort_entries(spec.added);
    make_bpe(spec);
}

void Tokenizer::Impl::add_vocab(const TokenizerSpec& spec) {
    entries.reserve(spec.vocab.size());
    for (const auto& word : spec.vocab) {
        const size_t offset = arena.size();
        const bool byte_level = append_bytes(arena, word.text);
        if (!byte_level) arena += word.text;
        entries.push_back({word.id, false, false, offset, arena.size() - offset});
        if (word.text.empty() || !(byte_level ? words : others).emplace(bytes(entries.back()), word.id))
            throw Error(
                {.what = word.text.empty() ? "an empty token" : "the same token twice",
                 .where = fmt::format("{}: {}[\"{}\"]", where, spec.vocab_key, printable(word.text))});
    }
}

// The id the vocabulary gives the text of an added token, if it holds it.
std::optional<Token> Tokenizer::Impl::vocab_id(const TokenizerSpec::Added& token,
                                               std::string_view key) const {
    std::string as_bytes;
    const bool byte_level = append_bytes(as_bytes, token.text);
    const std::optional<Token> found = byte_level ? words.find(as_bytes) : others.find(token.text);
    if (found && byte_level && as_bytes != token.text)
        throw Error({.what = "a token that stands for bytes and for a text that differs from them",
                     .where = std::string(key),
                     .got = fmt::format("\"{}\"", printable(token.text))});
    return found;
}

// Hugging Face ignores the ids stated in tokenizer.json (added_in_order): a token of the vocabulary keeps
// that id, others are numbered in order after the vocabulary. Where that differs from what is stated, it is
// unknown which ids the model was trained with: an Error.
void Tokenizer::Impl::add_added(const TokenizerSpec& spec) {
    uint64_t next = spec.vocab.size();
    for (size_t i = 0; i < spec.added.size(); ++i) {
        const auto& token = spec.added[i];
        const std::string key = fmt::format("{}: {}[{}]", where, spec.added_key, i);
        const std::optional<Token> in_vocab = spec.added_in_order ? vocab_id(token, key) : std::nullopt;
        const uint64_t expected = in_vocab ? *in_vocab : spec.added_in_order ? next : token.id;
        if (token.id != expected)
            throw Error({.what = "the id of an added token disagrees with its place",
                         .where = key + ".id",
                         .expected = std::to_string(expected),
                         .got = fmt::format("{} for \"{}\"", token.id, printable(token.text))});
        next = std::max(next, expected + 1);
        const size_t offset = arena.size();
        arena += token.text;
        const std::string_view text = std::string_view(arena).substr(offset);
        if (!added.emplace(text, token.id))
            throw Error({.what = "the same added token twice",
                         .where = key,
                         .got = fmt::format("\"{}\"", printable(token.text))});
        if (!in_vocab) entries.push_back({token.id, true, token.special, offset, text.size()});
        (token.normalized ? normalized : raw).add({text, token.id, token.special, is_letter(text)});
    }
    raw.finish();
    normalized.finish();
}

// One character, for a byte that neither UTF-8 nor the vocabulary has.
bool Tokenizer::Impl::is_letter(std::string_view added_text) const {
    std::string byte;
    return append_bytes(byte, added_text) && byte.size() == 1 &&
           never_in_utf8(static_cast<unsigned char>(byte[0])) && !words.find(byte);
}

void Tokenizer::Impl::sort_entries(const std::vector<TokenizerSpec::Added>& added_tokens) {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.id < b.id; });
    for (size_t i = 1; i < entries.size(); ++i)
        if (entries[i - 1].id == entries[i].id)
            throw Error({.what = "two tokens with one id",
                         .where = where,
                         .got = fmt::format("\"{}\" and \"{}\" with id {}", printable(bytes(entries[i - 1])),
                                            printable(bytes(entries[i])), entries[i].id)});
    for (const auto& token : added_tokens) { // some are entries of the vocabulary
        Entry& entry = entries[find(token.id)];
        entry.added = true;
        entry.special = token.special;
    }
}

void Tokenizer::Impl::make_bpe(const TokenizerSpec& spec) {
    std::array<Token, 256> byte_token{};
    std::array<bool, 256> present{};
    for (unsigned byte = 0; byte < 256; ++byte) {
        const char text = static_cast<char>(byte);
        const std::optional<Token> found = words.find({&text, 1});
        present[byte] = found.has_value();
        byte_token[byte] = found.value_or(0);
        if (!present[byte] && !never_in_utf8(byte))
            throw Error({.what = "the vocabulary is not byte-level",
                         .where = fmt::format("{}: {}", where, spec.vocab_key),
                         .expected = "a token for every byte",
                         .got = fmt::format("none for byte 0x{:02X}", byte)});
    }
    if (!spec.ranked) return void(bpe.emplace(byte_token, present, list_merges(spec)));
    std::vector<std::string_view> by_rank; // the entries before the added ones
    for (size_t i = 0; i < spec.vocab.size(); ++i) by_rank.push_back(bytes(entries[i]));
    bpe.emplace(byte_token, present, std::make_unique<RankedMerges>(std::move(by_rank), words));
}

std::unique_ptr<Merges> Tokenizer::Impl::list_merges(const TokenizerSpec& spec) const {
    std::vector<ListedMerges::Entry> by_id;
    by_id.reserve(spec.merges.size());
    std::string text;
    for (const auto& merge : spec.merges) {
        const auto id_of = [&](std::string_view part, size_t begin) {
            const std::optional<Token> found = words.find(std::string_view(text).substr(begin));
            if (!found)
                throw Error({.what = "a merge of or into a token that is not in the vocabulary",
                             .where = fmt::format("{}: {}[{}]", where, spec.merges_key, by_id.size()),
                             .got = fmt::format("\"{}\" in the merge of \"{}\" and \"{}\"", printable(part),
                                                printable(merge.left), printable(merge.right))});
            return *found;
        };
        text.clear();
        const bool left_known = append_bytes(text, merge.left);
        const Token left = id_of(merge.left, left_known ? 0 : text.size());
        const size_t middle = text.size();
        const bool right_known = append_bytes(text, merge.right);
        const Token right = id_of(merge.right, right_known ? middle : text.size());
        by_id.push_back({left, right, id_of(merge.left + merge.right, 0)});
    }
    return std::make_unique<ListedMerges>(by_id, fmt::format("{}: {}", where, spec.merges_key));
}

size_t Tokenizer::Impl::find(Token id) const {
    if (id < entries.size() && entries[id].id == id) return id; // no holes before it
    const auto found = std::lower_bound(entries.begin(), entries.end(), id,
                                        [](const Entry& entry, Token key) { return entry.id < key; });
    return found != entries.end() && found->id == id ? found - entries.begin() : NOT_FOUND;
}

namespace {

// One call of encode.
class Encoding {
  public:
    Encoding(const Splitter& splitter, const Bpe& bpe, const TokenIndex* whole_pieces)
        : bpe_(bpe), whole_pieces_(whole_pieces), run_(splitter) {}

    std::vector<Token> tokens;

    // Calls rest(part) for what lies between the names `matcher` finds. A name that is not wanted is one
    // piece of plain text: another name inside it is not looked for, as in Hugging Face.
    template <class Rest>
    void added(const AddedMatcher& matcher, Added which, std::string_view text, const Rest& rest) {
        size_t begin = 0;
        for (size_t from = 0;;) {
            const AddedMatcher::Match match = matcher.find(text, from);
            const bool wanted = match.name && match.name->wanted(which);
            if (match.name) from = match.at + match.name->text.size();
            if (match.name && !wanted) continue;
            if (match.at != begin) rest(text.substr(begin, match.at - begin));
            if (!match.name) return;
            tokens.push_back(match.name->id);
            begin = from;
        }
    }

    void plain(std::string_view text) {
        while (!text.empty()) {
            const size_t valid = utf8_valid_prefix(text);
            for (const std::string_view piece : run_.pieces(text.substr(0, valid))) this->piece(piece);
            text.remove_prefix(valid);
            if (text.empty()) return;
            bpe_.encode(text.substr(0, 1), tokens, scratch_); // a byte outside any character
            text.remove_prefix(1);
        }
    }

  private:
    void piece(std::string_view bytes) {
        if (whole_pieces_)
            if (const std::optional<Token> found = whole_pieces_->find(bytes))
                return tokens.push_back(*found);
        bpe_.encode(bytes, tokens, scratch_);
    }

    const Bpe& bpe_;
    const TokenIndex* whole_pieces_; // null unless the vocabulary goes before merging
    Splitter::Run run_;
    Bpe::Scratch scratch_;
};

} // namespace

Tokenizer Tokenizer::from_json(std::string_view json, std::string_view where) {
    return Tokenizer(std::make_unique<Impl>(read_tokenizer_json(json, where)));
}
Tokenizer Tokenizer::from_tiktoken(std::string_view ranks, std::string_view where, std::string_view config,
                                   std::string_view config_where) {
    return Tokenizer(std::make_unique<Impl>(read_tiktoken(ranks, where, config, config_where)));
}
Tokenizer Tokenizer::from_gguf(const GgufVocabulary& vocabulary) {
    return Tokenizer(std::make_unique<Impl>(read_gguf_vocabulary(vocabulary)));
}
Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::vector<Token> Tokenizer::encode(std::string_view text, Added added) const {
    if (text.size() > TEXT_LIMIT)
        throw Error({.what = "the text is too long to tokenize",
                     .expected = fmt::format("at most {} bytes", TEXT_LIMIT),
                     .got = fmt::format("{} bytes", text.size())});
    Encoding encoding(impl_->splitter, *impl_->bpe, impl_->ignore_merges ? &impl_->words : nullptr);
    // Tokens marked normalized come second, as in Hugging Face, whatever stands further left.
    encoding.added(impl_->raw, added, text, [&](std::string_view part) {
        encoding.added(impl_->normalized, added, part, [&](std::string_view rest) { encoding.plain(rest); });
    });
    return std::move(encoding.tokens);
}

std::string_view Tokenizer::bytes(Token token) const {
    const size_t found = impl_->find(token);
    if (found == Impl::NOT_FOUND)
        throw Error({.what = "no such token", .where = impl_->where, .got = fmt::format("id {}", token)});
    return impl_->bytes(impl_->entries[found]);
}

std::string Tokenizer::decode(std::span<const Token> tokens) const {
    std::string text;
    for (const Token token : tokens) text += bytes(token);
    return text;
}

bool Tokenizer::contains(Token token) const { return impl_->find(token) != Impl::NOT_FOUND; }

size_t Tokenizer::size() const { return size_t{impl_->entries.back().id} + 1; }

bool Tokenizer::is_added(Token token) const {
    const size_t found = impl_->find(token);
    return found != Impl::NOT_FOUND && impl_->entries[found].added;
}

bool Tokenizer::is_special(Token token) const {
    const size_t found = impl_->find(token);
    return found != Impl::NOT_FOUND && impl_->entries[found].special;
}

std::optional<Token> Tokenizer::find(std::string_view token) const {
    for (const TokenIndex* index : {&impl_->added, &impl_->words, &impl_->others})
        if (const std::optional<Token> found = index->find(token)) return found;
    return std::nullopt;
}

} // namespace fathom
