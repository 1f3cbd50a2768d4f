// Checkpoint folders: shards and their index, attacks through the index, the files of a model, the embedded
// model, pages that leave memory again.
#include "checkpoint/help.h"

#include "base/json.h"

#include <map>
#include <set>

using namespace fathom;
using namespace help;

namespace {

const std::string index_name = "model.safetensors.index.json";

// A shard with one U8 tensor of one byte for each name.
std::string shard(const std::vector<std::string>& names) {
    std::string header = "{";
    for (size_t i = 0; i < names.size(); ++i)
        header += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[],"data_offsets":[{},{}]}})", i ? "," : "",
                              names[i], i, i + 1);
    return safetensors(header + "}", std::string(names.size(), 'x'));
}

std::string refusal(const fs::path& path) {
    return error_of([&] { Checkpoint::open(path); });
}

// Memory of this process that is mapped from files and present, in KiB.
long resident_file_kib() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("RssFile:")) return std::stol(line.substr(8));
    return -1;
}

} // namespace

TEST_CASE("folder: shards are joined by their index") {
    const TemporaryFolder folder;
    write(folder / "one.safetensors", shard({"b", "a"}));
    write(folder / "two.safetensors", shard({"c"}));
    write(folder / index_name, R"({"metadata":{"total_size":"wrong, and only a hint"},"weight_map":)"
                               R"({"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"}})");
    const Checkpoint checkpoint = Checkpoint::open(folder.path);
    REQUIRE(checkpoint.tensors().size() == 3);
    for (size_t i = 0; i < 3; ++i)
        CHECK(checkpoint.tensors()[i].name == std::string(1, static_cast<char>('a' + i)));
    CHECK(checkpoint.bytes() == 3);
    CHECK(checkpoint.find("c")->file.ends_with("two.safetensors"));
    write(folder / "model.safetensors", shard({"single"}));
    CHECK(Checkpoint::open(folder.path).find("single")); // comes first, as in transformers
}

TEST_CASE("folder: an index that lies about its shards") {
    const TemporaryFolder folder;
    write(folder / "one.safetensors", shard({"a", "b"}));
    write(folder / "two.safetensors", shard({"c"}));
    const auto with_map = [&](const std::string& map) {
        write(folder / index_name, R"({"weight_map":)" + map + "}");
        return refusal(folder.path);
    };
    const std::string rest = R"("a":"one.safetensors","b":"one.safetensors","c":"two.safetensors")";
    CHECK(with_map("{" + rest + "}") == "");
    CHECK(with_map("{" + rest + R"(,"d":"two.safetensors"})").find("\"d\"") !=
          std::string::npos); // not in it
    CHECK(with_map("{" + rest + R"(,"d":"three.safetensors"})").find("three") !=
          std::string::npos); // no such shard
    CHECK(with_map(R"({"a":"one.safetensors","c":"two.safetensors"})").find("\"b\"") != std::string::npos);
    CHECK(with_map(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})").find("\"b\"") !=
          std::string::npos); // there, but in the other shard
    write(folder / "two.safetensors", shard({"c", "a"}));
    CHECK(with_map("{" + rest + "}").find("\"a\"") != std::string::npos); // in both
    for (const char* name :
         {"../x.safetensors", "/x.safetensors", "a/x.safetensors", "a\\\\x.safetensors", ".x.safetensors",
          "c:x.safetensors", "x.bin", "", ".safetensors", "x.safetensors\\u0000", "x.SAFETENSORS"}) {
        INFO(name);
        CHECK(with_map(fmt::format(R"({{"a":"{}"}})", name)).find("in the folder") != std::string::npos);
    }
    for (const char* map : {"[]", "null", "1", R"({"a":["one.safetensors"]})", R"({"a":null})"})
        CHECK(with_map(map) != "");
    for (const char* text :
         {"", "[]", "null", "{}", "{\"weight_map\":{}} x", "\xFF", "{\"weight_map\":{}}\n\x01"}) {
        write(folder / index_name, text);
        CHECK(refusal(folder.path).find(index_name) != std::string::npos);
    }
    write(folder / index_name,
          R"({"metadata":)" + std::string(5000, '[') + std::string(5000, ']') + R"(,"weight_map":{}})");
    CHECK(refusal(folder.path).find("levels") != std::string::npos);
}

TEST_CASE("folder: every index of the collection gets its verdict") {
    if (!have_shared("data/malformed/manifest.json")) return;
    const std::map<std::string, bool> accepted_by_policy = {
        {"index/ix_total_size_string.index.json", true}}; // a hint
    const fs::path collection = fs::path(FATHOM_SHARED_DIR) / "data/malformed";
    size_t seen = 0;
    for (const auto& entry : nlohmann::json::parse(read(collection / "manifest.json"))) {
        if (entry["format"] != "index") continue;
        const std::string file = entry["file"], verdict = entry["verdict"];
        INFO(file);
        REQUIRE((verdict != "policy" || accepted_by_policy.contains(file)));
        const bool accept = verdict == "policy" ? accepted_by_policy.at(file) : verdict == "accept";
        const TemporaryFolder folder;
        write(folder / index_name, read(collection / file));
        if (accept) { // its shards are not in the collection
            CHECK(refusal(folder.path).find("shard missing") != std::string::npos);
            std::map<std::string, std::vector<std::string>> shards;
            const auto index = nlohmann::json::parse(read(collection / file));
            for (const auto& [tensor, name] : index["weight_map"].items()) shards[name].push_back(tensor);
            for (const auto& [name, tensors] : shards) write(folder / name, shard(tensors));
        }
        CHECK((refusal(folder.path).empty() == accept));
        ++seen;
    }
    CHECK(seen >= 8);
}

TEST_CASE("folder: a published index of thousands of tensors") {
    const std::string file = "data/configs/index/DeepSeek-OCR-2.model.safetensors.index.json";
    if (!have_shared(file)) return;
    const std::string text = read(fs::path(FATHOM_SHARED_DIR) / file);
    const TemporaryFolder folder;
    write(folder / index_name, text);
    std::map<std::string, std::vector<std::string>> shards;
    const auto index = nlohmann::json::parse(text);
    for (const auto& [tensor, name] : index["weight_map"].items()) shards[name].push_back(tensor);
    for (const auto& [name, tensors] : shards) write(folder / name, shard(tensors));
    CHECK(Checkpoint::open(folder.path).tensors().size() == index["weight_map"].size());
}

TEST_CASE("model: the embedded one opens and is the one in the repository") {
    const ModelFiles model = open_model("");
    const fs::path folder = fs::path(FATHOM_SOURCE_DIR) / "models/tiny";
    CHECK(model.name == "fathom-tiny");
    CHECK(model.config == read(folder / "config.json"));
    CHECK(model.tokenizer == read(folder / "tokenizer.json"));
    const ModelFiles same = open_model(folder);
    CHECK(same.name == "tiny");
    REQUIRE(same.checkpoint.tensors().size() == model.checkpoint.tensors().size());
    CHECK(model.checkpoint.bytes() + 8 < fs::file_size(folder / "model.safetensors"));
    for (const TensorView& tensor : model.checkpoint.tensors()) {
        const TensorView* other = same.checkpoint.find(tensor.name);
        REQUIRE(other);
        CHECK((other->shape == tensor.shape && other->data.size() == tensor.data.size()));
        CHECK(std::memcmp(other->data.data(), tensor.data.data(), tensor.data.size()) == 0);
        model.checkpoint.drop(tensor); // nothing, for bytes in memory
    }
}

TEST_CASE("model: what is missing is named") {
    const TemporaryFolder folder;
    const auto refused = [](const fs::path& path) { return error_of([&] { open_model(path); }); };
    CHECK(refused(folder / "nothing").find("no such model") != std::string::npos);
    CHECK(refused(folder.path).find("no config.json") != std::string::npos);
    write(folder / "config.json", "{}");
    CHECK(refused(folder.path).find("no weights") != std::string::npos);
    write(folder / "model.gguf", "GGUF");
    CHECK(refused(folder / "model.gguf").find("broken GGUF file") != std::string::npos);
    fs::remove(folder / "model.gguf");
    write(folder / "model.bin", "other");
    CHECK(refused(folder / "model.bin").find("not a model") != std::string::npos);
    write(folder / "model.safetensors", shard({"a"}));
    const ModelFiles model = open_model(folder.path / ""); // with a slash at the end
    CHECK(model.name == folder.path.filename());
    CHECK(model.tokenizer.empty());
    write(folder / "other.safetensors", shard({"b"}));
    write(folder / "tokenizer.json", "T");
    write(folder / "tokenizer_config.json", "C");
    const ModelFiles other = open_model(folder / "other.safetensors");
    CHECK(other.checkpoint.find("b"));
    CHECK((other.config == "{}" && other.tokenizer == "T" && other.tokenizer_config == "C"));
    CHECK(refused(std::string(5000, 'x')).find("no such model") != std::string::npos);
}

TEST_CASE("drop: pages of uploaded tensors leave this process, and come back when read") {
    const TemporaryFolder folder;
    constexpr size_t count = 1024, bytes = 40'000; // no multiple of a page: neighbours share pages
    const Bytes data(bytes, std::byte{7});
    std::vector<TensorView> tensors;
    for (size_t i = 0; i < count; ++i)
        tensors.push_back({fmt::format("{:04}", i), DType::u8, {bytes}, data, ""});
    write_safetensors(folder / "model.safetensors", tensors);
    const Checkpoint checkpoint = Checkpoint::open(folder.path);
    const auto sum = [](const TensorView& tensor) {
        uint64_t total = 0;
        for (const std::byte byte : tensor.data) total += static_cast<uint64_t>(byte);
        return total;
    };
    const long before = resident_file_kib();
    for (const TensorView& tensor : checkpoint.tensors()) CHECK(sum(tensor) == 7 * bytes);
    const long mapped = resident_file_kib() - before;
    for (const TensorView& tensor : checkpoint.tensors()) checkpoint.drop(tensor);
    long most = 0;
    for (const TensorView& tensor : checkpoint.tensors()) { // as a loader does it
        CHECK(sum(tensor) == 7 * bytes);
        checkpoint.drop(tensor.data.first(bytes / 2));
        checkpoint.drop(tensor.data.subspan(bytes / 2));
        most = std::max(most, resident_file_kib() - before);
    }
    if (mapped < 30'000) {
        MESSAGE("SKIPPED: this kernel does not count mapped pages (" << mapped << " KiB for 40 MB)");
        return;
    }
    CHECK(most < 2'000);
}

TEST_CASE("json: the strict parser refuses what nlohmann-json lets through") {
    const auto refused = [](std::string_view text) { return error_of([&] { parse_json(text, "here"); }); };
    CHECK(refused(R"({"a":1,"b":{"a":2},"c":[{"a":1},{"a":1}]})") == "");
    CHECK(refused(R"({"a":1,"a":2})").find("a twice") != std::string::npos);
    CHECK(refused(R"({"x":[{"a":1,"\u0061":2}]})").find("a twice") != std::string::npos);
    CHECK(refused(std::string("{}\0", 3)).find("NUL") != std::string::npos);
    CHECK(refused(std::string(64, '[') + std::string(64, ']')) == "");
    CHECK(refused(std::string(65, '[') + std::string(65, ']')).find("64 levels") != std::string::npos);
    CHECK(refused(std::string(1'000'000, '[')) != "");
    for (const char* text :
         {"", "{", "{} {}", "{,}", "[1,]", "// x\n1", "NaN", "\"\xC0\xAF\"", R"("\ud800")", "1e999"})
        CHECK(refused(text).find("here") != std::string::npos);
}
