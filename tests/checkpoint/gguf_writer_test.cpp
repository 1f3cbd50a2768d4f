// What GgufWriter writes, parse_gguf reads: keys of every kind, shapes, data in parts, alignment.
#include "checkpoint/gguf_writer.h"

#include "checkpoint/gguf_bytes.h"

using namespace fathom;
using namespace help;

TEST_CASE("gguf writer: what is written is read again") {
    const TemporaryFolder folder;
    const fs::path path = folder / "f.gguf", copy = folder / "copy.gguf";
    const Bytes first(6 * 4, std::byte{1}), second(2 * 34, std::byte{2});
    const auto write_tensors = [&](GgufWriter& writer) {
        writer.tensor("first", DType::f32, std::vector<uint64_t>{2, 3});
        writer.tensor("second", DType::q8_0, std::vector<uint64_t>{2, 32});
        writer.write(std::span(first).first(7));
        writer.write(std::span(first).subspan(7));
        writer.write(second);
        writer.commit();
    };
    {
        GgufWriter writer(path);
        writer.text("a.text", "\xE4\xBD\xA0");
        writer.whole("a.whole", 7);
        writer.number("a.number", 0.707);
        writer.flag("a.flag", true);
        writer.texts("a.texts", std::vector<std::string_view>{"x", "", "yz"});
        writer.integers("a.integers", std::vector<int32_t>{-1, 1});
        write_tensors(writer);
    }
    const Checkpoint read = Checkpoint::open(path);
    const Gguf& keys = *read.gguf();
    CHECK((keys.text("a.text") == "\xE4\xBD\xA0" && keys.whole("a.whole", 0, 9) == 7 && keys.flag("a.flag")));
    CHECK(keys.number("a.number", 0, 1) == 0.707f);
    CHECK(keys.texts("a.texts") == std::vector<std::string_view>{"x", "", "yz"});
    CHECK(keys.integers("a.integers") == std::vector<int32_t>{-1, 1});
    REQUIRE(read.tensors().size() == 2);
    CHECK(read.find("first")->shape == std::vector<uint64_t>{2, 3});
    CHECK(std::ranges::equal(read.find("first")->data, first));
    CHECK(
        (read.find("second")->dtype == DType::q8_0 && std::ranges::equal(read.find("second")->data, second)));
    CHECK(fs::file_size(path) % 32 == 0);
    GgufWriter writer(copy);
    for (const auto& [name, value] : keys.keys()) writer.copy(name, value);
    write_tensors(writer);
    const Checkpoint again = Checkpoint::open(copy);
    REQUIRE(again.gguf()->keys().size() == keys.keys().size());
    for (size_t i = 0; i < keys.keys().size(); ++i)
        CHECK(again.gguf()->keys()[i].value.bytes == keys.keys()[i].value.bytes);
}

TEST_CASE("gguf writer: an empty file, and one that is not finished") {
    const TemporaryFolder folder;
    {
        GgufWriter empty(folder / "empty.gguf");
        empty.commit();
        GgufWriter unfinished(folder / "unfinished.gguf");
        unfinished.tensor("t", DType::f32, std::vector<uint64_t>{8});
        unfinished.write(Bytes(16));
        CHECK_THROWS(unfinished.commit());
        CHECK_THROWS(unfinished.write(Bytes(17)));
    }
    CHECK(Checkpoint::open(folder / "empty.gguf").tensors().empty());
    CHECK(folder.files() == 1);
}
