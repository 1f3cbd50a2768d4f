// tokenizer.json read strictly: what is accepted, and one error for each thing that is not.
#include "help.h"

using namespace help;

namespace {

// Loading small() after `change` fails with a message that holds `part`.
template <class Change> void refused(const std::string& part, const Change& change) {
    json spec = small();
    change(spec);
    const std::string message = error_of_json(spec.dump());
    CHECK_MESSAGE(message.find(part) != std::string::npos, "expected \"" << part << "\" in: " << message);
}
// The same with `value` at `pointer`.
void refused_value(const std::string& pointer, const json& value, const std::string& part) {
    refused(part, [&](json& spec) { spec[json::json_pointer(pointer)] = value; });
}
void accepted(const std::string& pointer, const json& value) {
    json spec = small();
    spec[json::json_pointer(pointer)] = value;
    const std::string message = error_of_json(spec.dump());
    CHECK_MESSAGE(message == "", pointer << ": " << message);
}

const json BYTE_LEVEL = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};

json split(const json& pattern, const json& behaviour, const json& invert) {
    return {{"type", "Split"}, {"pattern", pattern}, {"behavior", behaviour}, {"invert", invert}};
}
json sequence(std::vector<json> parts) { return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}}; }

} // namespace

TEST_CASE("malformed and odd files of the shared data") {
    if (!have_shared("data/malformed/manifest.json")) return;
    // Where peers differ, Fathom refuses; ids with a hole, however wide, are fine.
    const std::map<std::string, std::string> policy = {{"tj_id_huge_sparse", ""},
                                                       {"tj_redos_regex", "ends with ByteLevel"},
                                                       {"tj_deep_sequence", "nested too deeply"},
                                                       {"tj_added_dup_content", "the same added token twice"},
                                                       {"tj_added_id_clash", "disagrees with its place"},
                                                       {"tj_added_empty", "1 to 1024 bytes"}};
    size_t files = 0;
    for (const json& row : json::parse(shared("data/malformed/manifest.json"))) {
        if (row["format"] != "tokenizer") continue;
        ++files;
        const std::string file = row["file"], verdict = row["verdict"];
        const std::string message = error_of_json(shared("data/malformed/" + file));
        INFO(file << ": " << message);
        if (verdict == "accept") {
            CHECK(message == "");
            CHECK(Tokenizer::from_json(shared("data/malformed/" + file), file).encode("abc") == Tokens{257});
        } else if (verdict == "reject") {
            CHECK(message.find("t.json") != std::string::npos);
        } else {
            const std::string stem = file.substr(10, file.find('.') - 10);
            REQUIRE(policy.count(stem) == 1);
            CHECK((policy.at(stem).empty() ? message == ""
                                           : message.find(policy.at(stem)) != std::string::npos));
        }
    }
    CHECK(files == 16);
}

TEST_CASE("published fixtures of other programs") {
    const std::string folder = "data/tokenizers/tiny/";
    if (!have_shared(folder + "dynamo-mock-deepseek-r1.tokenizer.json")) return;
    const std::string mock = shared(folder + "dynamo-mock-deepseek-r1.tokenizer.json");
    const Tokenizer tokenizer = Tokenizer::from_json(mock, "mock");
    CHECK(tokenizer.encode("Hi<｜User｜>") == Tokens{'H', 'i', 100002});
    CHECK(tokenizer.size() == 100011);
    // States ids that Hugging Face would not give: refused, as nobody can tell which are meant.
    const std::string message = error_of_json(shared(folder + "ollama-mini_llama.tokenizer.json"));
    CHECK(message.find("added_tokens[0].id") != std::string::npos);
}

TEST_CASE("the parts of the file that change nothing may be there") {
    accepted("/version", nullptr);
    accepted("/normalizer", {{"type", "Sequence"}, {"normalizers", json::array()}});
    accepted("/post_processor", {{"type", "ByteLevel"}, {"trim_offsets", false}});
    const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
    const json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
    const json processor = {{"type", "TemplateProcessing"}, {"single", {bos, text}}, {"pair", json::array()}};
    accepted("/post_processor", processor);
    accepted("/post_processor", {{"type", "Sequence"}, {"processors", {processor, {{"type", "ByteLevel"}}}}});
    accepted("/decoder", {{"type", "Sequence"}, {"decoders", {{{"type", "ByteLevel"}}}}});
    accepted("/added_tokens", nullptr);
    accepted("/model/dropout", nullptr);
    accepted("/model/dropout", 0.0);
    accepted("/model/unk_token", nullptr);
    accepted("/model/end_of_word_suffix", "");
    accepted("/model/merges", json::array());
    accepted("/model/merges", json::array({json::array({"a", "b"}), json::array({"ab", "c"})}));
    accepted("/pre_tokenizer/trim_offsets", true);
}

TEST_CASE("order of members is free") {
    const json spec = small();
    std::string text = "{\"model\":" + spec["model"].dump();
    for (const char* key : {"decoder", "pre_tokenizer", "added_tokens"})
        text += std::string(",\"") + key + "\":" + spec[key].dump();
    CHECK(Tokenizer::from_json(text + "}", "t").encode("<s>abc") == Tokens{259, 257});
}

TEST_CASE("unknown members, types and values are named") {
    refused_value("/surprise", 1, "t.json: surprise\n  expected: no such member\n  got: 1");
    refused_value("/version", "2.0", "t.json: version");
    refused_value("/truncation", json::object(), "t.json: truncation");
    refused_value("/padding", 5, "t.json: padding");
    refused_value("/normalizer", {{"type", "NFC"}}, "got: NFC");
    refused_value("/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}},
                  "normalizer.normalizers");
    refused_value("/normalizer", "NFC", "normalizer.type");
    refused_value("/decoder", nullptr, "decoder.type");
    refused_value("/decoder", {{"type", "WordPiece"}}, "got: WordPiece");
    refused_value("/decoder", {{"type", "Sequence"}, {"decoders", json::array()}}, "decoder.decoders");
    refused_value("/post_processor", {{"type", "BertProcessing"}}, "got: BertProcessing");
    const json a = {{"Sequence", {{"id", "A"}}}}, b = {{"Sequence", {{"id", "B"}}}};
    for (const json& single : {json::array({a, a}), json::array(), json::array({b}), json("A")})
        refused_value("/post_processor", {{"type", "TemplateProcessing"}, {"single", single}},
                      "post_processor.single");
    refused_value("/model/type", "Unigram", "t.json: model.type\n  expected: BPE\n  got: Unigram");
    refused_value("/model", nullptr, "model.type");
    refused_value("/model/dropout", 0.1, "model.dropout");
    refused_value("/model/unk_token", "<unk>", "model.unk_token");
    refused_value("/model/continuing_subword_prefix", "##", "model.continuing_subword_prefix");
    refused_value("/model/end_of_word_suffix", "</w>", "model.end_of_word_suffix");
    refused_value("/model/fuse_unk", true, "model.fuse_unk");
    refused_value("/model/byte_fallback", true, "model.byte_fallback");
    refused_value("/model/ignore_merges", "yes", "model.ignore_merges");
    refused_value("/model/novelty", json::array(), "got: an array of 0");
}

TEST_CASE("pre-tokenizers: what is run and what is refused") {
    const json isolated = split({{"Regex", "-"}}, "Isolated", false);
    accepted("/pre_tokenizer", sequence({isolated, sequence({BYTE_LEVEL})}));
    accepted("/pre_tokenizer", sequence({split({{"String", "--"}}, "MergedWithNext", true), BYTE_LEVEL}));
    refused_value("/pre_tokenizer", nullptr, "pre_tokenizer.type");
    refused_value("/pre_tokenizer", isolated, "ends with ByteLevel");
    refused_value("/pre_tokenizer", sequence({}), "ends with ByteLevel");
    refused_value("/pre_tokenizer", sequence({BYTE_LEVEL, isolated}), "pre_tokenizer.pretokenizers[1]");
    refused_value("/pre_tokenizer", sequence({{{"type", "Metaspace"}}, BYTE_LEVEL}), "got: Metaspace");
    refused_value("/pre_tokenizer/add_prefix_space", true, "pre_tokenizer.add_prefix_space");
    refused_value("/pre_tokenizer/add_prefix_space", nullptr, "pre_tokenizer.add_prefix_space");
    const auto refused_split = [](const json& bad, const std::string& part) {
        refused_value("/pre_tokenizer", sequence({bad, BYTE_LEVEL}), "pre_tokenizer.pretokenizers[0]" + part);
    };
    refused_split(split({{"Regex", "-"}}, "Shuffled", false), ".behavior");
    refused_split(split({{"Regex", "-"}}, "Isolated", nullptr), ".invert");
    refused_split(split({{"Regex", "-"}, {"String", "-"}}, "Isolated", false), ".pattern");
    refused_split(split(json::object(), "Isolated", false), ".pattern");
    refused_split(split("-", "Isolated", false), ".pattern");
    refused_split(split({{"Regex", "("}}, "Isolated", false), "");
    refused_split(split({{"Regex", "[^a&&b]"}}, "Isolated", false), "");
    refused_split({{"type", "Digits"}}, ".individual_digits");
    refused_value("/pre_tokenizer", sequence(std::vector<json>(65, isolated)), "at most 64 splits");
}

TEST_CASE("Digits and the regex of ByteLevel take part") {
    json spec = small();
    spec["model"]["vocab"]["12"] = 300;
    spec["model"]["vocab"][letter(' ') + "a"] = 301;
    spec["model"]["merges"] = {"1 2", letter(' ') + " a"};
    spec["added_tokens"] = json::array();
    CHECK(make(spec).encode("12  a") == Tokens{300, ' ', 301});
    spec["pre_tokenizer"] = sequence({{{"type", "Digits"}, {"individual_digits", true}}, BYTE_LEVEL});
    CHECK(make(spec).encode("12 a") == Tokens{'1', '2', 301});
    spec["pre_tokenizer"] = sequence({{{"type", "Digits"}, {"individual_digits", false}}, BYTE_LEVEL});
    CHECK(make(spec).encode("12 a") == Tokens{300, 301});
    spec["pre_tokenizer"] = sequence({split({{"String", " "}}, "Removed", false), BYTE_LEVEL});
    CHECK(make(spec).encode("12 a") == Tokens{300, 'a'});
    spec["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}}; // use_regex: true
    CHECK(make(spec).encode("a a\n a") == Tokens{'a', 301, '\n', 301});
}

TEST_CASE("vocabulary and merges: every contradiction is an error") {
    refused("two tokens with one id", [](json& spec) { spec["model"]["vocab"]["abc"] = 256; });
    for (const json& id : {json(-1), json(1.0), json("1"), json(nullptr), json(4294967296), json::array({1}),
                           json::object(), json(true)})
        refused("model.vocab[\"abc\"]", [&](json& spec) { spec["model"]["vocab"]["abc"] = id; });
    refused("an empty token", [](json& spec) { spec["model"]["vocab"][""] = 300; });
    refused("none for byte 0x61", [](json& spec) {
        spec["model"]["vocab"].erase("a");
        spec.erase("added_tokens");
    });
    refused_value("/model/vocab", json::array(), "model.vocab");
    refused_value("/model/vocab", nullptr, "model.vocab");
    refused_value("/model/merges", json::object(), "model.merges");
    refused_value("/model/merges", nullptr, "model.merges");
    refused_value("/model/merges", {"a b", "ab x"}, "model.merges[1]");
    refused_value("/model/merges", {"x y"}, "\"xy\" in the merge of \"x\" and \"y\"");
    refused_value("/model/merges", {"\u4f60 a"}, "model.merges[0]");
    refused_value("/model/merges", {"a b", "a b"}, "the same merge twice: t.json: model.merges[1]");
    for (const char* merge : {"ab", " ab", "ab ", "a  b", "a b c", "", " "})
        refused_value("/model/merges", {merge}, "model.merges[0]");
    refused_value("/model/merges", json::array({json::array({"a", "b"}), json::array({"a"})}),
                  "model.merges[1]");
    refused_value("/model/merges", json::array({json::array({"a", "b", "c"})}), "model.merges[0]");
    refused_value("/model/merges", json::array({json::array({"a", 5})}), "model.merges[0]");
    refused_value("/model/merges", json::array({json::array({json::array({"a"}), "b"})}), "model.merges[0]");
    refused_value("/model/merges", json::array({json::object()}), "model.merges[0]");
    refused_value("/model/merges", {json::array({"a", "b"}), "ab c"}, "merges of both forms");
    refused_value("/model/merges", {"a b", json::array({"ab", "c"})}, "merges of both forms");
    refused_value("/model/merges", {7}, "model.merges[0]");
}

TEST_CASE("added tokens: every contradiction is an error") {
    const auto refused_added = [](const std::vector<json>& list, const std::string& part) {
        refused_value("/added_tokens", list, part);
    };
    refused_added({added(260, "<s>", true)}, "expected: 259");
    refused_added({added(259, "<s>", true), added(261, "<t>", true)}, "added_tokens[1].id");
    refused_added({added(300, "ab", false)}, "expected: 256");
    refused_added({added(259, "<s>", true), added(260, "<s>", true)}, "the same added token twice");
    refused_added({added(256, "ab", true), added(256, "ab", true)}, "the same added token twice");
    refused_added({added(0xFC, "\u00fc", false)}, "bytes and for a text");
    refused_added({added(259, "", true)}, "added_tokens[0].content");
    refused_added({added(259, std::string(1025, 'x'), true)}, "added_tokens[0].content");
    refused_added({5}, "added_tokens[0]");
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
        json token = added(259, "<s>", true);
        token[key] = true;
        refused_added({token}, std::string("added_tokens[0].") + key);
    }
    json token = added(259, "<s>", true);
    token["id"] = -1;
    refused_added({token}, "added_tokens[0].id");
    // Numbered past a hole, an id can meet one of the vocabulary.
    refused("two tokens with one id", [](json& spec) {
        spec["model"]["vocab"].erase("bc");
        spec["model"]["vocab"]["zz"] = 258;
        spec["model"]["vocab"]["zy"] = 260;
        spec["model"]["merges"] = json::array();
        spec["added_tokens"] = {added(260, "<s>", true)};
    });
    accepted("/added_tokens", {added(256, "ab", true), added(259, "<s>", true)});
    json spec = small();
    spec["added_tokens"] = {added(256, "ab", true)};
    CHECK(make(spec).is_special(256));
}

TEST_CASE("hostile JSON is one clean error") {
    const std::string good = small().dump();
    for (const char* text : {"", " ", "{", "[]", "null", "5", "\"x\"", "{\"a\":1,}", "{} {}", "\xFF",
                             "{\"\xFF\":1}", "{\"a\":\"\\ud800\"}", "{\"model\":{\"vocab\":{\"a\":1e999}}}"})
        CHECK_MESSAGE(error_of_json(text).find("t.json") != std::string::npos, text);
    for (size_t cut = 0; cut < good.size(); cut += 7) CHECK(error_of_json(good.substr(0, cut)) != "");

    CHECK(error_of_json(good + std::string(1, '\0') + "x").find("a NUL byte") != std::string::npos);

    const size_t deep = 2'000'000;
    for (const std::string& open : {std::string("["), std::string("{\"a\":")}) {
        std::string text;
        while (text.size() < deep * open.size()) text += open;
        CHECK(error_of_json(text).find("nested too deeply") != std::string::npos);
    }
    std::string sequences;
    for (int i = 0; i < 100; ++i) sequences += R"({"type":"Sequence","pretokenizers":[)";
    CHECK(error_of_json("{\"pre_tokenizer\":" + sequences).find("nested too deeply") != std::string::npos);

    std::string wide = "[0";
    for (int i = 0; i < 1'100'000; ++i) wide += ",0";
    CHECK(error_of_json(wide + "]").find("too many values") != std::string::npos);

    CHECK(error_of_json(R"({"version":"1.0","version":"1.0"})").find("the same key twice: t.json: version") ==
          0);
    CHECK(error_of_json(R"({"model":{"vocab":{},"vocab":{}}})").find("model.vocab") != std::string::npos);
    CHECK(error_of_json(R"({"model":{"merges":[],"merges":[]}})").find("model.merges") != std::string::npos);
    std::string twice = good;
    twice.replace(twice.find("\"ab\":256"), 8, "\"ab\":256,\"ab\":300");
    CHECK(error_of_json(twice).find("the same token twice: t.json: model.vocab[\"ab\"]") == 0);
    CHECK(error_of_json("{\"" + std::string(1 << 20, 'k') + "\":1}").size() < 500);
}
