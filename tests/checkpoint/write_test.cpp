// Writing: every dtype comes back bit for bit, and a write that cannot finish leaves the old file and nothing
// else.
#include "base/file.h"
#include "checkpoint/help.h"

#include <cerrno>
#include <csignal>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace fathom;
using namespace help;

namespace {

Bytes noise(size_t size) {
    Bytes bytes(size);
    uint32_t state = 12345;
    for (std::byte& byte : bytes) {
        state = state * 1664525 + 1013904223;
        byte = std::byte(state >> 24);
    }
    return bytes;
}

uint64_t header_bytes(const std::string& file) {
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    return length;
}

// For its lifetime no file of this process may grow past `bytes`: a full disk that needs no privileges.
class FileSizeLimit {
  public:
    explicit FileSizeLimit(rlim_t bytes) {
        REQUIRE(getrlimit(RLIMIT_FSIZE, &old_) == 0);
        handler_ = std::signal(SIGXFSZ, SIG_IGN);
        const rlimit small{bytes, old_.rlim_max};
        REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    }
    ~FileSizeLimit() {
        setrlimit(RLIMIT_FSIZE, &old_);
        std::signal(SIGXFSZ, handler_);
    }

  private:
    rlimit old_{};
    void (*handler_)(int) = nullptr;
};

} // namespace

TEST_CASE("write_safetensors: all dtypes and odd shapes come back as they went") {
    const TemporaryFolder folder;
    const Bytes data = noise(4096);
    const std::vector<std::vector<uint64_t>> shapes = {{}, {1}, {7}, {3, 5}, {2, 0, 9}, {1, 2, 3, 4}};
    std::vector<TensorView> tensors;
    for (int dtype = 0; dtype <= static_cast<int>(DType::boolean); ++dtype)
        for (const auto& shape : shapes) {
            uint64_t bytes = bytes_of(static_cast<DType>(dtype));
            for (const uint64_t size : shape) bytes *= size;
            tensors.push_back({fmt::format("t.{}.{}", name_of(static_cast<DType>(dtype)), shape_text(shape)),
                               static_cast<DType>(dtype), shape,
                               std::span(data).subspan(tensors.size(), bytes), ""});
        }
    tensors.push_back(
        {"\"quoted\" \\ \x01 \xE6\xB7\xB1 ../../x", DType::u8, {3}, std::span(data).first(3), ""});
    tensors.push_back({"", DType::u8, {1}, std::span(data).first(1), ""});
    write_safetensors(folder / "all.safetensors", tensors);
    CHECK(header_bytes(read(folder / "all.safetensors")) % 8 == 0);
    CHECK(folder.files() == 1);
    const Checkpoint back = Checkpoint::open(folder / "all.safetensors");
    REQUIRE(back.tensors().size() == tensors.size());
    for (const TensorView& tensor : tensors) {
        INFO(tensor.name);
        const TensorView* found = back.find(tensor.name);
        REQUIRE(found);
        CHECK(found->dtype == tensor.dtype);
        CHECK(found->shape == tensor.shape);
        CHECK(std::equal(found->data.begin(), found->data.end(), tensor.data.begin(), tensor.data.end()));
    }
    CHECK(back.find("t") == nullptr);
    write_safetensors(folder / "none.safetensors", {});
    CHECK(Checkpoint::open(folder / "none.safetensors").tensors().empty());
}

TEST_CASE("write_safetensors: large tensors stream through, and our own mistakes are no file errors") {
    const TemporaryFolder folder;
    const Bytes data = noise(3'000'001);
    const TensorView big{"big", DType::u8, {data.size()}, data, ""},
        small{"small", DType::u8, {5}, std::span(data).first(5), ""};
    const std::vector<TensorView> tensors = {small, big};
    write_safetensors(folder / "big.safetensors", tensors);
    const Checkpoint back = Checkpoint::open(folder / "big.safetensors");
    CHECK(std::equal(data.begin(), data.end(), back.find("big")->data.begin(), back.find("big")->data.end()));
    const std::vector<TensorView> twice = {small, small},
                                  wrong = {{"w", DType::f32, {5}, std::span(data).first(5), ""}};
    CHECK_THROWS_AS(write_safetensors(folder / "twice", twice), std::logic_error);
    CHECK_THROWS_AS(write_safetensors(folder / "wrong", wrong), std::logic_error);
    CHECK(folder.files() == 1);
}

TEST_CASE("write_safetensors: a disk that fills up is an error, and the old file stays") {
    const TemporaryFolder folder;
    const fs::path path = folder / "saved.safetensors";
    const Bytes data = noise(1 << 20);
    const std::vector<TensorView> tensors = {{"a", DType::u8, {data.size()}, data, ""}};
    for (const bool existed : {false, true}) {
        if (existed) write(path, "old");
        std::string message;
        {
            const FileSizeLimit limit(256 * 1024);
            message = error_of([&] { write_safetensors(path, tensors); });
        }
        CHECK(message.find("saved.safetensors") != std::string::npos);
        CHECK(message.find("limit") != std::string::npos);
        CHECK(folder.files() == (existed ? 1 : 0));
        if (existed) CHECK(read(path) == "old");
    }
    // A real full file system, where this user may make one.
    const fs::path disk = folder / "disk";
    fs::create_directory(disk);
    if (mount("none", disk.c_str(), "tmpfs", 0, "size=128k") != 0) {
        MESSAGE("SKIPPED: the tmpfs half of this test (" << std::strerror(errno)
                                                         << "); the limit above was tested");
        return;
    }
    write(disk / "saved.safetensors", "old");
    const std::string message = error_of([&] { write_safetensors(disk / "saved.safetensors", tensors); });
    CHECK(message.find("free some space") != std::string::npos);
    CHECK(read(disk / "saved.safetensors") == "old");
    CHECK(std::distance(fs::directory_iterator(disk), fs::directory_iterator()) == 1);
    CHECK(umount(disk.c_str()) == 0);
}

TEST_CASE("AtomicFile: the target changes at commit, all at once") {
    const TemporaryFolder folder;
    const fs::path path = folder / "f";
    write(path, "old");
    REQUIRE(chmod(path.c_str(), 0600) == 0);
    {
        AtomicFile file(path);
        file.write("half");
        CHECK(read(path) == "old");
        CHECK(folder.files() == 2);
    }
    CHECK(read(path) == "old");
    CHECK(folder.files() == 1);
    AtomicFile file(path);
    std::string expected;
    for (int i = 0; i < 40000; ++i) {
        const std::string piece = fmt::format("{},", i);
        file.write(piece);
        expected += piece;
    }
    CHECK(read(path) == "old");
    file.commit();
    CHECK(read(path) == expected);
    CHECK(folder.files() == 1);
    CHECK((fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write))); // kept
    CHECK_THROWS_AS(file.write("more"), std::logic_error);
    CHECK_THROWS_AS(file.commit(), std::logic_error);
}

TEST_CASE("AtomicFile: what cannot be replaced is refused before anything is written") {
    const TemporaryFolder folder;
    CHECK(error_of([&] { AtomicFile file(folder.path); }).find("a folder") != std::string::npos);
    CHECK(error_of([&] { AtomicFile file("/dev/null"); }).find("device") != std::string::npos);
    CHECK(error_of([&] { AtomicFile file(folder / "no/such/folder"); }).find("create the folder") !=
          std::string::npos);
    CHECK(fs::is_character_file("/dev/null"));
    CHECK(folder.files() == 0);
}

TEST_CASE("read_file: whole files up to a limit") {
    const TemporaryFolder folder;
    write(folder / "f", "12345");
    write(folder / "empty", "");
    CHECK(read_file(folder / "f", 5) == "12345");
    CHECK(read_file(folder / "empty", 5).empty());
    CHECK(error_of([&] { read_file(folder / "f", 4); }).find("at most 4") != std::string::npos);
    CHECK(error_of([&] { read_file(folder / "none", 4); }).find("none") != std::string::npos);
    CHECK(error_of([&] { read_file(folder.path, 4); }).find("a folder") != std::string::npos);
}
