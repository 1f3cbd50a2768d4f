// Reads tokenizer.json. The text streams through a SAX handler: vocabulary and merges, which are nearly all
// of it, go straight into the spec; the rest becomes a small JSON tree of bounded size and depth, which is
// then read strictly: an unknown member, type or value is an Error naming key and value, and a key that comes
// twice is one too.
#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer_spec.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace fathom {

namespace {

using nlohmann::json;

constexpr size_t DEPTH_LIMIT = 64;
constexpr size_t TREE_LIMIT = 1 << 20; // values outside vocabulary and merges; published files: about 10^4
constexpr size_t SPLIT_LIMIT = 64;
// The splits of ByteLevel with use_regex, GPT-2's.
constexpr std::string_view GPT2_REGEX =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string shown(const json& value) { // nested values could make a message of any length
    if (value.is_array()) return fmt::format("an array of {}", value.size());
    return value.is_object() ? "an object" : json_text(value);
}

// ---- the text ----

class Handler final : public nlohmann::json_sax<json> {
  public:
    explicit Handler(TokenizerSpec& spec) : spec_(spec) {}
    json tree;

    bool null() override { return scalar(nullptr); }
    bool boolean(bool value) override { return scalar(value); }
    bool number_integer(number_integer_t value) override { return scalar(value); }
    bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
    bool binary(binary_t&) override { return true; } // never in JSON text
    bool number_unsigned(number_unsigned_t value) override {
        if (mode_ != Mode::vocab) return scalar(value);
        if (value > UINT32_MAX) return scalar(value);
        spec_.vocab.back().id = static_cast<Token>(value);
        return true;
    }
    bool string(string_t& value) override {
        if (mode_ == Mode::merges) return merge_text(value);
        if (mode_ == Mode::merge_pair) return merge_part(std::move(value));
        return scalar(std::move(value));
    }
    bool key(string_t& name) override {
        if (mode_ == Mode::vocab) {
            spec_.vocab.push_back({std::move(name), 0});
            return true;
        }
        Frame& frame = frames_.back();
        frame.key = std::move(name);
        if (frame.node->contains(frame.key)) fail("the same key twice", path(), {}, {});
        return true;
    }
    bool start_object(size_t) override {
        enter(json::object());
        if (at_model_member("vocab")) mode_ = Mode::vocab;
        return true;
    }
    bool end_object() override { return leave(); }
    bool start_array(size_t) override {
        if (mode_ == Mode::merges) {
            if (!spec_.merges.empty() && !pairs_) fail("merges of both forms in one list", path(), {}, {});
            pairs_ = true;
            parts_ = 0;
            spec_.merges.emplace_back();
            mode_ = Mode::merge_pair;
            return true;
        }
        enter(json::array());
        if (at_model_member("merges")) mode_ = Mode::merges;
        return true;
    }
    bool end_array() override {
        if (mode_ != Mode::merge_pair) return leave();
        if (parts_ != 2) fail("malformed merge", path(), "two parts", std::to_string(parts_));
        mode_ = Mode::merges;
        return true;
    }
    bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
        fail("malformed JSON", {}, {}, json_reason(error.what()));
    }

  private:
    enum class Mode { tree, vocab, merges, merge_pair };
    struct Frame {
        json* node;
        std::string key; // of the member being read, when node is an object
    };

    [[noreturn]] void fail(std::string what, std::string_view where, std::string expected,
                           std::string got) const {
        throw Error({.what = std::move(what),
                     .where = fmt::format("{}{}{}", spec_.where, where.empty() ? "" : ": ", where),
                     .expected = std::move(expected),
                     .got = std::move(got)});
    }

    std::string path() const {
        std::string text;
        for (const Frame& frame : frames_) {
            if (frame.node->is_object()) {
                text += (text.empty() ? "" : ".") + printable(frame.key);
            } else if (mode_ == Mode::tree) {
                text += fmt::format("[{}]", frame.node->size());
            }
        }
        if (mode_ == Mode::vocab) text.pop_back(); // the vocabulary's own frame has no key
        if (mode_ == Mode::vocab && !spec_.vocab.empty())
            text += fmt::format("[\"{}\"]", printable(spec_.vocab.back().text));
        if (mode_ == Mode::merges) text += fmt::format("[{}]", spec_.merges.size());
        if (mode_ == Mode::merge_pair) text += fmt::format("[{}]", spec_.merges.size() - 1);
        return text;
    }

    bool at_model_member(std::string_view name) const {
        return frames_.size() == 3 && frames_[0].node->is_object() && frames_[0].key == "model" &&
               frames_[1].node->is_object() && frames_[1].key == name;
    }

    json* place(json value) {
        if (++values_ > TREE_LIMIT)
            fail("too many values", path(), fmt::format("at most {}", TREE_LIMIT), {});
        if (frames_.empty()) return &(tree = std::move(value));
        Frame& frame = frames_.back();
        if (frame.node->is_object()) return &((*frame.node)[frame.key] = std::move(value));
        frame.node->push_back(std::move(value));
        return &frame.node->back();
    }

    bool scalar(json value) {
        if (mode_ == Mode::vocab)
            fail("malformed id of a token", path(), "an integer from 0 to 4294967295", shown(value));
        if (mode_ != Mode::tree)
            fail("malformed merge", path(), "\"LEFT RIGHT\" or [\"LEFT\", \"RIGHT\"]", shown(value));
        place(std::move(value));
        return true;
    }

    void enter(json container) {
        if (mode_ != Mode::tree) scalar(std::move(container));
        if (frames_.size() == DEPTH_LIMIT)
            fail("JSON nested too deeply", path(), fmt::format("at most {} levels", DEPTH_LIMIT), {});
        frames_.push_back({place(std::move(container)), {}});
    }
    bool leave() {
        mode_ = Mode::tree;
        frames_.pop_back();
        return true;
    }

    bool merge_text(const std::string& text) {
        const size_t space = text.find(' ');
        if (space == 0 || space == std::string::npos || space + 1 == text.size() ||
            text.find(' ', space + 1) != std::string::npos)
            fail("malformed merge", path(), "\"LEFT RIGHT\" with one space",
                 fmt::format("\"{}\"", printable(text)));
        if (pairs_) fail("merges of both forms in one list", path(), {}, {});
        spec_.merges.push_back({text.substr(0, space), text.substr(space + 1)});
        return true;
    }
    bool merge_part(std::string text) {
        if (parts_ < 2)
            (parts_ == 0 ? spec_.merges.back().left : spec_.merges.back().right) = std::move(text);
        ++parts_;
        return true;
    }

    TokenizerSpec& spec_;
    std::vector<Frame> frames_;
    size_t values_ = 0, parts_ = 0;
    bool pairs_ = false; // the merges are [left, right]
    Mode mode_ = Mode::tree;
};

// ---- the tree ----

// A value and the path to it. Members that are null are as good as absent, as in Hugging Face's reader.
class Node {
  public:
    Node(const json& value, std::string where) : value_(&value), where_(std::move(where)) {}

    const std::string& where() const { return where_; }
    [[noreturn]] void fail(std::string expected) const {
        throw Error({.what = "tokenizer not understood",
                     .where = where_,
                     .expected = std::move(expected),
                     .got = shown(*value_)});
    }
    void members(std::initializer_list<std::string_view> known) const {
        if (!value_->is_object()) fail("an object");
        for (const auto& [key, value] : value_->items())
            if (std::find(known.begin(), known.end(), key) == known.end())
                Node(value, below(printable(key))).fail("no such member");
    }
    bool has(const char* key) const { return value_->contains(key) && !value_->at(key).is_null(); }
    Node operator[](const char* key) const {
        static const json absent;
        return {has(key) ? value_->at(key) : absent, below(key)};
    }
    Node at(size_t i) const { return {value_->at(i), fmt::format("{}[{}]", where_, i)}; }
    size_t size() const {
        if (!value_->is_array()) fail("an array");
        return value_->size();
    }
    const std::string& text() const {
        if (!value_->is_string()) fail("a string");
        return value_->get_ref<const std::string&>();
    }
    bool flag() const {
        if (!value_->is_boolean()) fail("true or false");
        return value_->get<bool>();
    }
    Token id() const {
        if (!value_->is_number_unsigned() || value_->get<uint64_t>() > UINT32_MAX)
            fail("an id from 0 to 4294967295");
        return value_->get<Token>();
    }
    const std::string& type() const { return (*this)["type"].text(); }
    void expect_absent(const char* key) const {
        if (has(key)) (*this)[key].fail("null");
    }
    void expect_false(const char* key) const {
        if (has(key) && (*this)[key].flag()) (*this)[key].fail("false");
    }
    void expect_empty_text(const char* key) const {
        if (has(key) && !(*this)[key].text().empty()) (*this)[key].fail("null or \"\"");
    }
    bool is_zero() const { return value_->is_number() && value_->get<double>() == 0; }

  private:
    std::string below(const std::string& key) const {
        return where_ + (where_.ends_with(':') ? " " : ".") + key;
    }

    const json* value_;
    std::string where_; // "FILE:" or "FILE: KEY.KEY..."
};

void read_normalizer(const Node& node) {
    if (node.type() != "Sequence") node["type"].fail("null or an empty Sequence");
    node.members({"type", "normalizers"});
    if (node["normalizers"].size() != 0) node["normalizers"].fail("an empty array");
}

SplitBehaviour read_behaviour(const Node& node) {
    const std::string& name = node.text();
    if (name == "Removed") return SplitBehaviour::removed;
    if (name == "Isolated") return SplitBehaviour::isolated;
    if (name == "MergedWithPrevious") return SplitBehaviour::merged_with_previous;
    if (name == "MergedWithNext") return SplitBehaviour::merged_with_next;
    if (name == "Contiguous") return SplitBehaviour::contiguous;
    node.fail("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

SplitRule read_split(const Node& node) {
    node.members({"type", "pattern", "behavior", "invert"});
    const Node pattern = node["pattern"];
    pattern.members({"String", "Regex"});
    const bool literal = pattern.has("String");
    if (literal == pattern.has("Regex")) pattern.fail("either String or Regex");
    return {.pattern = pattern[literal ? "String" : "Regex"].text(),
            .literal = literal,
            .behaviour = read_behaviour(node["behavior"]),
            .invert = node["invert"].flag(),
            .where = node.where()};
}

// Appends the splits of a pre-tokenizer in the order they run; `bytes` becomes true at ByteLevel, which is
// the last.
void read_pre_tokenizer(const Node& node, std::vector<SplitRule>& splits, bool& bytes) {
    const std::string& type = node.type();
    if (bytes) node.fail("nothing after ByteLevel");
    if (splits.size() == SPLIT_LIMIT) node.fail(fmt::format("at most {} splits", SPLIT_LIMIT));
    if (type == "Sequence") {
        node.members({"type", "pretokenizers"});
        const Node list = node["pretokenizers"];
        for (size_t i = 0; i < list.size(); ++i)
            read_pre_tokenizer(list.at(i), splits, bytes); // depth: DEPTH_LIMIT
    } else if (type == "Split") {
        splits.push_back(read_split(node));
    } else if (type == "Digits") {
        node.members({"type", "individual_digits"});
        const bool each = node["individual_digits"].flag();
        splits.push_back({.pattern = "\\p{N}",
                          .behaviour = each ? SplitBehaviour::isolated : SplitBehaviour::contiguous,
                          .where = node.where()});
    } else if (type == "ByteLevel") {
        node.members({"type", "add_prefix_space", "trim_offsets", "use_regex"});
        if (node["add_prefix_space"].flag()) node["add_prefix_space"].fail("false");
        if (!node.has("use_regex") || node["use_regex"].flag()) // absent in old files, where it always ran
            splits.push_back({.pattern = std::string(GPT2_REGEX), .where = node.where()});
        bytes = true;
    } else {
        node["type"].fail("Sequence, Split, Digits or ByteLevel");
    }
}

// Accepts what leaves the ids of a text alone when special tokens are not asked for, which is how Fathom
// encodes.
void read_post_processor(const Node& node) {
    const std::string& type = node.type();
    if (type == "ByteLevel") return node.members({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (type == "Sequence") {
        node.members({"type", "processors"});
        const Node list = node["processors"];
        for (size_t i = 0; i < list.size(); ++i) read_post_processor(list.at(i)); // depth: DEPTH_LIMIT
        return;
    }
    if (type != "TemplateProcessing") node["type"].fail("ByteLevel, TemplateProcessing or Sequence");
    node.members({"type", "single", "pair", "special_tokens"});
    const Node single = node["single"];
    size_t texts = 0;
    for (size_t i = 0; i < single.size(); ++i) {
        const Node part = single.at(i);
        part.members({"SpecialToken", "Sequence"});
        if (part.has("SpecialToken")) continue;
        if (part["Sequence"]["id"].text() != "A") part["Sequence"]["id"].fail("A");
        ++texts;
    }
    if (texts != 1) single.fail("one Sequence \"A\" among special tokens");
}

void read_decoder(const Node& node) {
    const std::string& type = node.type();
    if (type == "ByteLevel") return node.members({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (type != "Sequence") node["type"].fail("ByteLevel");
    node.members({"type", "decoders"});
    if (node["decoders"].size() != 1) node["decoders"].fail("one decoder");
    read_decoder(node["decoders"].at(0)); // depth: DEPTH_LIMIT
}

void read_added(const Node& list, std::vector<TokenizerSpec::Added>& added) {
    for (size_t i = 0; i < list.size(); ++i) {
        const Node node = list.at(i);
        node.members({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
        for (const char* key : {"single_word", "lstrip", "rstrip"}) node.expect_false(key);
        const std::string& text = node["content"].text();
        if (text.empty() || text.size() > LONGEST_ADDED)
            node["content"].fail(fmt::format("1 to {} bytes", LONGEST_ADDED));
        const auto flag = [&](const char* key) { return node.has(key) && node[key].flag(); };
        added.push_back({text, node["id"].id(), flag("special"), flag("normalized")});
    }
}

void read_model(const Node& node, TokenizerSpec& spec) {
    if (node.type() != "BPE") node["type"].fail("BPE");
    node.members({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                  "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
    if (node.has("dropout") && !node["dropout"].is_zero()) node["dropout"].fail("null or 0");
    node.expect_absent("unk_token");
    node.expect_empty_text("continuing_subword_prefix");
    node.expect_empty_text("end_of_word_suffix");
    node.expect_false("fuse_unk");
    node.expect_false("byte_fallback");
    node["vocab"].members({}); // its entries went to the spec
    node["merges"].size();
    spec.ignore_merges = node.has("ignore_merges") && node["ignore_merges"].flag();
}

} // namespace

TokenizerSpec read_tokenizer_json(std::string_view text, std::string_view where) {
    TokenizerSpec spec{.where = std::string(where), .added_in_order = true};
    if (text.find('\0') != text.npos) // nlohmann-json would take it for the end
        throw Error({.what = "malformed JSON", .where = spec.where, .got = "a NUL byte"});
    Handler handler(spec);
    json::sax_parse(text.begin(), text.end(), &handler);

    const Node root(handler.tree, spec.where + ":");
    root.members({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                  "post_processor", "decoder", "model"});
    if (root.has("version") && root["version"].text() != "1.0") root["version"].fail("\"1.0\"");
    root.expect_absent("truncation");
    root.expect_absent("padding");
    if (root.has("normalizer")) read_normalizer(root["normalizer"]);
    bool bytes = false;
    read_pre_tokenizer(root["pre_tokenizer"], spec.splits, bytes);
    if (!bytes) root["pre_tokenizer"].fail("a pre-tokenizer that ends with ByteLevel");
    if (root.has("post_processor")) read_post_processor(root["post_processor"]);
    read_decoder(root["decoder"]);
    if (root.has("added_tokens")) read_added(root["added_tokens"], spec.added);
    read_model(root["model"], spec);
    return spec;
}

} // namespace fathom
