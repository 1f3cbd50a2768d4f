// Small files read whole, and files written so that a reader only ever sees the old content or the complete
// new one: a temporary file beside the target, synced, then renamed over it. Big read-only files are mapped
// elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// The content of a regular file of at most `limit` bytes. Throws Error when it is missing, larger or not a
// file.
std::string read_file(const std::filesystem::path& path, uint64_t limit);

// Opens `path` for reading without ever blocking and checks that it is a regular file. Returns the
// descriptor, which the caller closes; `size` is taken once, here. Throws Error.
int open_regular(const std::filesystem::path& path, uint64_t& size);

// A file being replaced: write() any number of times, then commit(). Until commit() returns, the target is
// untouched; a full disk, an exception or a missing commit() leave nothing behind. The target must be a
// regular file or absent.
class AtomicFile {
  public:
    explicit AtomicFile(std::filesystem::path path);
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    ~AtomicFile(); // removes the temporary file unless committed

    void write(std::span<const std::byte> bytes); // small pieces are gathered, large ones go straight through
    void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
    void commit();

  private:
    void flush();
    void write_through(std::span<const std::byte> bytes);
    [[noreturn]] void fail(const char* doing);

    std::filesystem::path path_, temporary_;
    std::vector<std::byte> gathered_;
    int file_ = -1; // closed: -1
};

} // namespace fathom
