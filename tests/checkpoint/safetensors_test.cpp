// The safetensors reader against files that lie: the shared collection with its verdicts, every truncation,
// every bit flip of the headers, and the rules that the collection does not reach. Buffers are exactly as
// long as the file, so that the address sanitizer sees any byte read past it.
#include "checkpoint/help.h"

#include <map>

using namespace fathom;
using namespace help;
using namespace std::string_literals;

namespace {

// Our choice where the collection leaves it to the reader.
const std::map<std::string, bool> accepted_by_policy = {
    {"safetensors/up_f4.safetensors", false},            // no 4-bit dtype in this engine
    {"safetensors/x_extra_field.safetensors", false},    // what an unknown member changes is unknown
    {"safetensors/x_path_name.safetensors", true},       // a name is only a name
    {"safetensors/x_many_dims.safetensors", false},      // at most 16 dimensions
    {"safetensors/x_zero_times_huge.safetensors", true}, // 0 absorbs what follows it, as in the reference
};

struct Case {
    fs::path path;
    std::string file, why;
    bool accept;
};

std::vector<Case> cases() {
    const fs::path folder = fs::path(FATHOM_SHARED_DIR) / "data/malformed";
    std::vector<Case> all;
    for (const auto& entry : nlohmann::json::parse(read(folder / "manifest.json"))) {
        if (entry["format"] != "safetensors") continue;
        const std::string file = entry["file"], verdict = entry["verdict"];
        const auto policy = accepted_by_policy.find(file);
        REQUIRE_MESSAGE((verdict != "policy" || policy != accepted_by_policy.end()), file);
        const bool accept = verdict == "policy" ? policy->second : verdict == "accept";
        all.push_back({folder / file, file, entry["why"], accept});
    }
    return all;
}

// Reads everything a caller may read of an accepted file, so that a bad view is noticed.
void walk(const Checkpoint& checkpoint) {
    unsigned sum = 0;
    uint64_t bytes = 0;
    for (const TensorView& tensor : checkpoint.tensors()) {
        for (const std::byte byte : tensor.data) sum += static_cast<unsigned>(byte);
        bytes += tensor.data.size();
        CHECK(checkpoint.find(tensor.name) == &tensor);
    }
    CHECK(bytes == checkpoint.bytes());
    CHECK(sum < 256 * (bytes + 1)); // uses the sum
}

std::string open_bytes(const Bytes& bytes) {
    return error_of([&] { walk(Checkpoint::from_memory(bytes, "test")); });
}

} // namespace

TEST_CASE("safetensors: every file of the collection gets its verdict") {
    if (!have_shared("data/malformed/manifest.json")) return;
    size_t seen = 0;
    for (const Case& test : cases()) {
        INFO(test.file << ": " << test.why);
        const std::string from_file = error_of([&] { walk(Checkpoint::open(test.path)); });
        CHECK((from_file.empty() == test.accept));
        CHECK((open_bytes(bytes_of(read(test.path))).empty() == test.accept));
        if (!test.accept) CHECK(from_file.find(test.path.filename().string()) != std::string::npos);
        ++seen;
    }
    CHECK(seen >= 45);
}

TEST_CASE("safetensors: no truncation of a good file is accepted") {
    if (!have_shared("data/malformed/manifest.json")) return;
    for (const Case& test : cases()) {
        const std::string whole = read(test.path);
        if (!test.accept || whole.size() > 64 * 1024) continue;
        INFO(test.file);
        for (size_t length = 0; length < whole.size(); ++length)
            CHECK_FALSE(open_bytes(bytes_of(std::string_view(whole).substr(0, length))).empty());
    }
}

TEST_CASE("safetensors: a flipped bit is an error or a readable file, never anything else") {
    if (!have_shared("data/malformed/manifest.json")) return;
    for (const Case& test : cases()) {
        Bytes bytes = bytes_of(read(test.path));
        if (bytes.size() > 8192) continue;
        for (size_t bit = 0; bit < std::min<size_t>(bytes.size(), 512) * 8; ++bit) {
            bytes[bit / 8] ^= std::byte(1 << bit % 8);
            open_bytes(bytes);
            bytes[bit / 8] ^= std::byte(1 << bit % 8);
        }
    }
}

TEST_CASE("safetensors: rules beside the collection") {
    const std::string one = R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
    const auto refusal = [](const std::string& header, const std::string& data = "") {
        return open_bytes(bytes_of(safetensors(header, data)));
    };
    CHECK(refusal("{" + one + "}", "xy") == "");
    CHECK(refusal(" \t\r\n{" + one + "} \n", "xy") == ""); // white space around the header
    CHECK(refusal("{" + one + "}\0"s + " ", "xy").find("one JSON object") != std::string::npos);
    CHECK(refusal("{" + one + "}\0}"s, "xy").find("one JSON object") !=
          std::string::npos);                                // NUL ends no text
    CHECK(refusal("\xEF\xBB\xBF{" + one + "}", "xy") != ""); // byte order mark
    CHECK(refusal("{" + one + ",}", "xy") != "");
    CHECK(refusal("{/**/" + one + "}", "xy") != "");
    CHECK(refusal("{" + one + "}", "xyz").find("after the header") != std::string::npos);
    CHECK(refusal(R"({"a":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "xy") != "");
    CHECK(refusal(R"({"a":{"dtype":"U8","shape":[-0,2],"data_offsets":[0,0]}})") != "");
    CHECK(refusal(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0]}})", "xy").find("\"a\"") !=
          std::string::npos);
    CHECK(refusal(R"({"a":{"dtype":"U8","shape":{},"data_offsets":[0,2]}})", "xy") != "");
    CHECK(refusal(R"({"a":{"dtype":"U8","shape":[[2]],"data_offsets":[0,2]}})", "xy") != "");
    CHECK(refusal(R"({"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,2]}})", "xy") != "");
    CHECK(refusal(R"({"__metadata__":{"k":"1"},"__metadata__":{}})") != "");
    CHECK(refusal(R"({"__metadata__":{"k":"1","k":"2"}})") != "");
    CHECK(refusal(R"({"__metadata__":{"k":"1"}})") == "");
    CHECK(refusal(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[],)"
                  R"("data_offsets":[2,6]}})",
                  "123456")
              .find("\"b\"") != std::string::npos); // overlap
    CHECK(refusal("{\"a\":" + std::string(100000, '[')) != "");
    CHECK(open_bytes(bytes_of("version https://lfs/spec/v1\nsize 1")).find("git lfs pull") !=
          std::string::npos);
}

TEST_CASE("safetensors: what is no regular file is refused without waiting") {
    const TemporaryFolder folder;
    const fs::path pipe = folder / "pipe.safetensors";
    REQUIRE(std::system(("mkfifo " + pipe.string()).c_str()) == 0);
    CHECK(error_of([&] { Checkpoint::open(pipe); }).find("regular file") != std::string::npos);
    CHECK(error_of([&] { Checkpoint::open("/dev/zero"); }).find("regular file") != std::string::npos);
    CHECK(error_of([&] { Checkpoint::open(folder / "none.safetensors"); }) != "");
}
