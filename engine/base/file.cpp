// Reading and atomic writing of files; see file.h. POSIX calls directly: std::fstream reports neither why a
// write failed nor whether the bytes have reached the disk.
#include "base/file.h"

#include "base/error.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace fathom {

namespace {

constexpr size_t gather_bytes = 64 * 1024;

std::string advice(int error) {
    if (error == ENOSPC || error == EDQUOT) return "free some space, or choose another folder";
    if (error == EFBIG)
        return "raise the limit on the size of files (ulimit -f), or choose another file system";
    if (error == EACCES || error == EPERM || error == EROFS) return "choose a folder that you may write to";
    if (error == ENOENT || error == ENOTDIR) return "create the folder first";
    return "";
}

} // namespace

int open_regular(const std::filesystem::path& path, uint64_t& size) {
    // O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const std::string where = printable(path.string(), 4096);
    if (file < 0) throw Error({.what = "cannot open file", .where = where, .got = std::strerror(errno)});
    struct stat status {};
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(file);
        throw Error({.what = "cannot open file",
                     .where = where,
                     .expected = "a regular file",
                     .got = S_ISDIR(status.st_mode) ? "a folder" : "something else"});
    }
    size = static_cast<uint64_t>(status.st_size);
    return file;
}

std::string read_file(const std::filesystem::path& path, uint64_t limit) {
    uint64_t size = 0;
    const int file = open_regular(path, size);
    std::string text;
    ssize_t got = 1;
    if (size <= limit) {
        text.resize(size);
        size_t filled = 0;
        while (filled < size && got > 0) {
            got = read(file, text.data() + filled, size - filled);
            if (got < 0 && errno == EINTR)
                got = 1;
            else if (got > 0)
                filled += static_cast<size_t>(got);
        }
        text.resize(filled); // shorter when somebody cut the file meanwhile
    }
    const int error = errno;
    close(file);
    if (size > limit)
        throw Error({.what = "file too large",
                     .where = printable(path.string(), 4096),
                     .expected = fmt::format("at most {} bytes", limit),
                     .got = fmt::format("{} bytes", size)});
    if (got < 0)
        throw Error({.what = "cannot read file",
                     .where = printable(path.string(), 4096),
                     .got = std::strerror(error)});
    return text;
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
    // Renaming over a device or a pipe (/dev/null, as root) would replace it.
    struct stat old {};
    const bool exists = stat(path_.c_str(), &old) == 0;
    if (exists && !S_ISREG(old.st_mode))
        throw Error({.what = "cannot write file",
                     .where = printable(path_.string(), 4096),
                     .expected = "a regular file, or a name that is free",
                     .got = S_ISDIR(old.st_mode) ? "a folder" : "a device, pipe or socket"});
    static std::atomic<unsigned> counter = 0;
    for (int attempt = 0; attempt < 100 && file_ < 0; ++attempt) {
        temporary_ = path_;
        temporary_ += fmt::format(".{}-{}.tmp", getpid(), counter++);
        file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file_ < 0 && errno != EEXIST) break;
    }
    if (file_ < 0) fail("cannot create file");
    if (exists && fchmod(file_, old.st_mode & 07777) != 0) fail("cannot keep the file's permissions");
}

AtomicFile::~AtomicFile() {
    if (file_ < 0) return;
    close(file_);
    unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* doing) {
    const int error = errno;
    if (file_ >= 0) {
        close(file_);
        unlink(temporary_.c_str());
        file_ = -1;
    }
    throw Error({.what = doing,
                 .where = printable(path_.string(), 4096),
                 .got = std::strerror(error),
                 .fix = advice(error)});
}

void AtomicFile::write(std::span<const std::byte> bytes) {
    check(file_ >= 0, "a file is written before it is committed");
    if (gathered_.size() + bytes.size() > gather_bytes) flush();
    if (bytes.size() > gather_bytes)
        write_through(bytes);
    else
        gathered_.insert(gathered_.end(), bytes.begin(), bytes.end());
}

void AtomicFile::flush() {
    write_through(gathered_);
    gathered_.clear();
}

void AtomicFile::write_through(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(file_, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail("cannot write file");
        if (written == 0) {
            errno = ENOSPC; // no progress and no reason given
            fail("cannot write file");
        }
        bytes = bytes.subspan(static_cast<size_t>(written));
    }
}

void AtomicFile::commit() {
    check(file_ >= 0, "a file is committed once");
    flush();
    if (fsync(file_) != 0) fail("cannot write file");
    const int file = std::exchange(file_, -1);
    if (close(file) != 0 || rename(temporary_.c_str(), path_.c_str()) != 0) {
        const int error = errno;
        unlink(temporary_.c_str());
        errno = error;
        fail("cannot write file");
    }
    // The rename itself must survive a power cut too; file systems that cannot sync a folder are no reason to
    // fail.
    const auto folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    if (const int handle = open(folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY); handle >= 0) {
        (void)fsync(handle);
        close(handle);
    }
}

} // namespace fathom
