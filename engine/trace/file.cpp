#include "trace/file.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <stdexcept>

namespace fathom::trace {

namespace {

constexpr char MAGIC[8] = {'F', 'T', 'R', 'A', 'C', 'E', '\r', '\n'}; // damaged where line ends are changed
constexpr uint64_t MAX_FILE = 1ull << 36;

struct Header {
    char magic[8];
    uint32_t version, reserved;
};
struct IndexEntry {
    uint64_t offset, first_token; // of the frame in the file; records before it
    Kind kind;
    uint32_t count;
};
struct Trailer {
    uint64_t index; // offset of its frame
    char magic[8];
};
static_assert(sizeof(Header) == 16 && sizeof(IndexEntry) == 24 && sizeof(Trailer) == 16);

} // namespace

struct Writer::Impl {
    Impl(const std::filesystem::path& where, const Shape& shape, TextOf text_of)
        : path(where), encoder(shape, std::move(text_of),
                               [this](Kind kind, std::span<const std::byte> frame, uint32_t count) {
                                   put_frame(kind, frame, count);
                               }) {}
    std::filesystem::path path;
    Encoder encoder;
    std::FILE* file = nullptr;
    uint64_t at = 0, n_tokens = 0; // bytes and records written
    std::vector<IndexEntry> index;

    void put(std::span<const std::byte> bytes) {
        if (std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) fail("cannot write");
        at += bytes.size();
    }
    [[noreturn]] void fail(const char* doing) const {
        throw Error({.what = fmt::format("{} the recording: {}", doing, std::strerror(errno)),
                     .where = path.string(),
                     .fix = "check the folder, its rights and the room on its disk"});
    }
    void put_frame(Kind kind, std::span<const std::byte> frame, uint32_t count) {
        index.push_back({at, n_tokens, kind, count});
        put(frame);
        if (std::fflush(file) != 0) fail("cannot write");
        if (kind == Kind::tokens) n_tokens += count;
    }
};

Writer::Writer(const std::filesystem::path& path, const Identity& identity, TextOf text_of)
    : impl_(std::make_unique<Impl>(path, identity.shape, std::move(text_of))) {
    impl_->file = std::fopen(path.c_str(), "wb");
    if (!impl_->file) impl_->fail("cannot create");
    Header header{{}, VERSION, 0};
    std::copy(std::begin(MAGIC), std::end(MAGIC), header.magic);
    impl_->put(std::as_bytes(std::span(&header, 1)));
    const std::string text = to_json(identity).dump();
    impl_->put_frame(Kind::identity, pack_frame(Kind::identity, std::as_bytes(std::span(text)), 1), 1);
}

Writer::~Writer() {
    if (impl_->file) std::fclose(impl_->file);
}

void Writer::write(const Packet& packet) { impl_->encoder.write(packet); }

void Writer::flush() { impl_->encoder.flush(); }

void Writer::finish() {
    impl_->encoder.flush();
    Trailer trailer{impl_->at, {}};
    std::copy(std::begin(MAGIC), std::end(MAGIC), trailer.magic);
    const std::vector<IndexEntry> index = impl_->index;
    const auto count = static_cast<uint32_t>(index.size());
    impl_->put_frame(Kind::index, pack_frame(Kind::index, std::as_bytes(std::span(index)), count), count);
    impl_->put(std::as_bytes(std::span(&trailer, 1)));
    if (std::fclose(std::exchange(impl_->file, nullptr)) != 0) impl_->fail("cannot finish");
}

std::string Recording::text(Token token) const {
    const auto it = texts.find(token);
    return it == texts.end() ? "" : it->second;
}

namespace {

// Reads frames into a recording, up to the index or to what is wrong.
class Reader {
  public:
    Reader(std::span<const std::byte> bytes, const std::string& where)
        : bytes_(bytes), rest_(bytes), where_(where) {}

    Recording read() {
        read_header();
        try {
            while (read_frame()) {
            }
        } catch (const std::exception& error) { // whatever a damaged frame holds
            if (!decoder_.identity)
                throw Error({.what = "a damaged recording",
                             .where = fmt::format("{}, at byte {}", where_, at()),
                             .expected = "what the model and its records are",
                             .got = json_reason(error.what())});
            recording_.incomplete =
                fmt::format("it ends at byte {} of {}: {}", at(), bytes_.size(), json_reason(error.what()));
        }
        recording_.identity = std::move(*decoder_.identity);
        recording_.texts = std::move(decoder_.texts);
        return std::move(recording_);
    }

  private:
    size_t at() const { return bytes_.size() - rest_.size(); }

    void read_header() {
        Header header{};
        if (bytes_.size() >= sizeof(header)) std::memcpy(&header, bytes_.data(), sizeof(header));
        if (!std::equal(std::begin(MAGIC), std::end(MAGIC), header.magic))
            throw Error({.what = "not a recording",
                         .where = where_,
                         .expected = "an .ftrace file, as 'fathom run --trace' writes it"});
        if (header.version != VERSION)
            throw Error({.what = "a recording of another version",
                         .where = where_,
                         .expected = fmt::format("version {}", VERSION),
                         .got = fmt::format("version {}", header.version),
                         .fix = header.version > VERSION ? "use a newer fathom" : "record it again"});
        rest_ = bytes_.subspan(sizeof(header));
    }

    bool read_frame() {
        if (rest_.empty()) throw std::out_of_range("no index follows: it was cut off, or is still written");
        std::span<const std::byte> after = rest_; // a frame that is refused is where the recording ends
        const Frame frame = take_frame(after);
        if (frame.kind == Kind::index) {
            if (!decoder_.identity) throw std::out_of_range("an identity, once and first");
            return false;
        }
        decoder_.take(frame, [&](Packet&& packet) {
            if (auto* record = std::get_if<TokenRecord>(&packet))
                recording_.tokens.push_back(std::move(*record));
            else
                recording_.events.push_back({recording_.tokens.size(), std::move(std::get<Event>(packet))});
        });
        rest_ = after;
        return true;
    }

    std::span<const std::byte> bytes_, rest_;
    std::string where_;
    Decoder decoder_;
    Recording recording_;
};

} // namespace

Recording read_recording(std::span<const std::byte> bytes, const std::string& where) {
    return Reader(bytes, where).read();
}

Recording read_recording(const std::filesystem::path& path) {
    const std::string bytes = read_file(path, MAX_FILE);
    return read_recording(std::as_bytes(std::span(bytes)), path.string());
}

FileSink::FileSink(const std::filesystem::path& path, const Identity& identity, TextOf text_of)
    : writer_(path, identity, std::move(text_of)), thread_([this] { run(); }) {}

FileSink::~FileSink() {
    try {
        finish();
    } catch (...) { // told by whoever calls finish()
    }
}

void FileSink::run() try {
    for (bool last = false; !last;) {
        last = queue_.closed(); // before the take: nothing comes after it
        for (const Packet& packet : queue_.take_within(std::chrono::milliseconds(200))) writer_.write(packet);
        writer_.flush();
    }
    writer_.finish();
} catch (...) {
    error_ = std::current_exception();
}

void FileSink::finish() {
    if (!thread_.joinable()) return;
    queue_.close();
    thread_.join();
    if (error_) std::rethrow_exception(error_);
}

} // namespace fathom::trace
