// File reading by descriptors, so that every failure has its errno; see files.h.
#include "cli/files.h"

#include "base/error.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace fathom::cli {

namespace {

[[noreturn]] void fail(const std::filesystem::path& path) {
    const int error = errno;
    throw Error(
        {.what = "cannot read", .where = printable(path.string(), 4096), .got = std::strerror(error)});
}

std::string read_all(int fd, const std::filesystem::path& path) {
    std::string text;
    std::array<char, 65536> chunk;
    for (;;) {
        const ssize_t count = ::read(fd, chunk.data(), chunk.size());
        if (count == 0) return text;
        if (count > 0)
            text.append(chunk.data(), static_cast<size_t>(count));
        else if (errno != EINTR)
            fail(path);
    }
}

} // namespace

std::string read_text(const std::filesystem::path& path) {
    struct File {
        int fd;
        ~File() {
            if (fd >= 0) ::close(fd);
        }
    } const file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0) fail(path);
    return read_all(file.fd, path);
}

std::string read_stdin() { return read_all(STDIN_FILENO, "standard input"); }

std::filesystem::path expand_home(std::string_view path) {
    const char* home = std::getenv("HOME");
    if (home && path.starts_with("~/")) return std::filesystem::path(home) / path.substr(2);
    return path;
}

} // namespace fathom::cli
