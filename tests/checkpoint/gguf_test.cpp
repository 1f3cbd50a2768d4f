// The GGUF reader against files that lie: the shared collection with its verdicts, every truncation and every
// changed byte of small files, typed values, and models in parts. Buffers are exactly as long as the file.
#include "checkpoint/gguf.h"

#include "checkpoint/gguf_bytes.h"

#include <map>

using namespace fathom;
using namespace help;

namespace {

// Our choice where the collection leaves it to the reader.
const std::map<std::string, bool> accepted_by_policy = {
    {"gguf/kv_arr_of_arr.gguf", false},      // no model has one
    {"gguf/kv_key_non_ascii.gguf", false},   // the description of the format forbids it
    {"gguf/kv_key_70000.gguf", false},       // so it does this
    {"gguf/t_name_64.gguf", true},           // 64 bytes are allowed
    {"gguf/t_zero_dim.gguf", false},         // nothing to run
    {"gguf/d_last_unpadded.gguf", true},     // all of the tensor is there
    {"gguf/d_trailing_bytes.gguf", true},    // nobody reads them
    {"gguf/kv_block_count_huge.gguf", true}, // for the configuration to refuse
    {"gguf/zackshen_be_v3.gguf", false},     // big-endian
};

std::string open_bytes(const Bytes& bytes) {
    return error_of([&] {
        const Checkpoint checkpoint = Checkpoint::from_memory(bytes, "test");
        unsigned sum = 0;
        for (const TensorView& tensor : checkpoint.tensors())
            for (const std::byte byte : tensor.data) sum += static_cast<unsigned>(byte);
        for (const auto& [name, value] : checkpoint.gguf()->keys()) sum += text_of(value).size();
        CHECK(sum < UINT32_MAX);
    });
}

std::string four_floats(float first) { return raw(first) + raw(2.f) + raw(3.f) + raw(4.f); }

GgufBytes sample() {
    GgufBytes file;
    file.u32("a.count", 7)
        .i32("a.negative", -7)
        .f32("a.factor", 0.5f)
        .flag("a.flag", true)
        .text("a.name", "x");
    file.key("a.list", 9, raw(8u) + raw<uint64_t>(2) + gguf_text("one") + gguf_text(""));
    file.key("a.ids", 9, raw(5u) + raw<uint64_t>(2) + raw(-1) + raw(5));
    file.tensor("w", {2, 1, 2}, 0, four_floats(1)).tensor("b", {32}, 8, std::string(34, '\1'));
    return file;
}

} // namespace

TEST_CASE("gguf: the malformed collection") {
    if (!have_shared("data/malformed")) return;
    const fs::path folder = fs::path(FATHOM_SHARED_DIR) / "data/malformed";
    int seen = 0;
    for (const auto& entry : nlohmann::json::parse(read(folder / "manifest.json"))) {
        const std::string file = entry["file"], verdict = entry["verdict"];
        if (entry["format"] != "gguf" || file.starts_with("gguf/tok_")) continue; // those: tests/cli
        const auto policy = accepted_by_policy.find(file);
        REQUIRE_MESSAGE((verdict != "policy" || policy != accepted_by_policy.end()), file);
        const bool accept = verdict == "policy" ? policy->second : verdict == "accept";
        const std::string error =
            error_of([&] { parse_gguf(bytes_of(read(folder / file)), file); }); // by contents alone
        CHECK_MESSAGE(error.empty() == accept, file << ": " << error);
        CHECK((accept || error.find(file) != std::string::npos));
        ++seen;
    }
    MESSAGE(seen << " files of the collection");
    CHECK(seen >= 50);
}

TEST_CASE("gguf: no truncation and no changed byte is more than an Error") {
    const std::string file = sample().bytes();
    REQUIRE(open_bytes(bytes_of(file)) == "");
    for (size_t size = 0; size < file.size() - 30; ++size) // all but the padding of the last tensor
        CHECK(open_bytes(bytes_of(file.substr(0, size))) != "");
    for (size_t at = 0; at < file.size(); ++at)
        for (const int bit : {0, 5, 7}) {
            std::string changed = file;
            changed[at] = static_cast<char>(changed[at] ^ 1 << bit);
            open_bytes(bytes_of(changed));
        }
}

TEST_CASE("gguf: values and tensors") {
    const Bytes bytes = bytes_of(sample().bytes());
    const GgufFile file = parse_gguf(bytes, "f.gguf");
    const Gguf& keys = file.keys;
    CHECK((keys.whole("a.count", 0, 7) == 7 && keys.number("a.count", 0, 10) == 7));
    CHECK((keys.number("a.factor", 0, 1) == 0.5 && keys.flag("a.flag") && keys.text("a.name") == "x"));
    CHECK(keys.texts("a.list") == std::vector<std::string_view>{"one", ""});
    CHECK(keys.integers("a.ids") == std::vector<int32_t>{-1, 5});
    CHECK((text_of(*keys.find("a.list")) == "2 strings" && text_of(*keys.find("a.negative")) == "-7"));
    const auto refused = [](auto&& get) { return error_of(get); };
    CHECK(refused([&] { keys.whole("a.count", 8, 9); }) ==
          "unsupported GGUF value: f.gguf: a.count\n  expected: a whole number from 8 to 9\n  got: 7, u32");
    CHECK(refused([&] { keys.whole("a.none", 0, 9); }).find("GGUF key missing: f.gguf: a.none") == 0);
    CHECK(refused([&] { keys.whole("a.negative", 0, UINT64_MAX); }) != "");
    CHECK(refused([&] { keys.whole("a.factor", 0, 9); }) != "");
    CHECK(refused([&] { keys.flag("a.count"); }) != "");
    CHECK(refused([&] { keys.text("a.list"); }) != "");
    CHECK(refused([&] { keys.texts("a.ids"); }) != "");
    CHECK(refused([&] { keys.integers("a.list"); }) != "");
    REQUIRE(file.tensors.size() == 2);
    const TensorView &b = file.tensors[0], &w = file.tensors[1];
    CHECK((b.name == "b" && b.dtype == DType::q8_0 && b.data.size() == 34));
    CHECK((w.name == "w" && w.shape == std::vector<uint64_t>{2, 1, 2} && w.data.size() == 16));
    CHECK(open_bytes(bytes_of(GgufBytes().u32("a", 1).u32("a", 1).bytes())).find("twice") !=
          std::string::npos);
    const std::string twice = GgufBytes().tensor("w", {1}, 0, "1234").tensor("w", {1}, 0, "1234").bytes();
    CHECK(open_bytes(bytes_of(twice)).find("two tensors") != std::string::npos);
    for (uint32_t id = 0; id < 64; ++id)
        if (const auto dtype = dtype_of_ggml(id)) CHECK(ggml_id_of(*dtype) == id);
}

TEST_CASE("gguf: models in parts, and folders") {
    const TemporaryFolder folder;
    const auto part = [](uint16_t number, uint16_t count, int32_t tensors, const char* tensor) {
        GgufBytes file;
        if (number == 0) file.text("tokenizer.chat_template", "T");
        file.u16("split.no", number).u16("split.count", count).i32("split.tensors.count", tensors);
        return file.tensor(tensor, {4}, 0, four_floats(number)).bytes();
    };
    const fs::path first = folder / "m-00001-of-00002.gguf", second = folder / "m-00002-of-00002.gguf";
    const auto refused = [&](const fs::path& path) { return error_of([&] { open_model(path); }); };
    write(first, part(0, 2, 2, "b"));
    CHECK(refused(first).find("shard missing: " + second.string()) == 0);
    write(second, part(1, 2, 2, "a"));
    for (const fs::path& path : {folder.path, first, second}) {
        const ModelFiles model = open_model(path);
        CHECK((model.checkpoint.tensors().size() == 2 && model.checkpoint.bytes() == 32));
        CHECK((model.gguf() && model.chat_template == "T" && model.config.empty()));
        float value = -1;
        std::memcpy(&value, model.checkpoint.find("a")->data.data(), 4);
        CHECK(value == 1);
    }
    write(second, part(1, 2, 2, "b"));
    CHECK(refused(first).find("in two parts") != std::string::npos);
    write(second, part(0, 2, 2, "a"));
    CHECK(refused(first).find("split.no") != std::string::npos);
    write(second, part(1, 3, 2, "a"));
    CHECK(refused(first).find("split.count") != std::string::npos);
    write(second, part(1, 2, 2, "a"));
    write(first, part(0, 2, 3, "b"));
    CHECK(refused(first).find("split.tensors.count") != std::string::npos);
    write(first, part(0, 2, 2, "b"));
    fs::copy_file(first, folder / "other.gguf");
    CHECK(refused(folder / "other.gguf").find("split.no") != std::string::npos);
    CHECK(refused(folder.path).find("several models") != std::string::npos);
    write(folder / "config.json", "{}"); // a Hugging Face folder, then
    CHECK(refused(folder.path).find("no weights") != std::string::npos);
}
