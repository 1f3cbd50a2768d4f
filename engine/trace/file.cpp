#include "trace/file.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "trace/columns.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <set>
#include <stdexcept>
#include <zstd.h>

namespace fathom::trace {

namespace {

constexpr char MAGIC[8] = {'F', 'T', 'R', 'A', 'C', 'E', '\r', '\n'}; // damaged where line ends are changed
constexpr uint32_t FRAME_MAGIC = 0x4D415246;                          // "FRAM"
constexpr uint32_t FRAME_TOKENS = 256;
constexpr uint64_t FRAME_BYTES = 8ull << 20; // after which a frame is full, too
constexpr uint32_t MAX_RAW = 1u << 26;       // bytes of a frame
constexpr uint32_t MOST_HEADS = 1024;        // of a layer
constexpr uint64_t MAX_FILE = 1ull << 36;

struct Header {
    char magic[8];
    uint32_t version, reserved;
};
enum class Kind : uint32_t { identity = 1, texts, tokens, event, index };
struct FrameHeader {
    uint32_t magic;
    Kind kind;
    uint32_t stored, raw; // bytes after this header, and what they unpack to
    uint32_t count;       // records
    uint32_t reserved;
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
static_assert(sizeof(Header) == 16 && sizeof(FrameHeader) == 24 && sizeof(IndexEntry) == 24 &&
              sizeof(Trailer) == 16);

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

nlohmann::json to_json(const Identity& identity) {
    const Shape& s = identity.shape;
    return {{"shape",
             {{"n_layers", s.n_layers},
              {"n_experts", s.n_experts},
              {"n_active", s.n_active},
              {"n_groups", s.n_groups},
              {"n_active_groups", s.n_active_groups},
              {"moe_layers", s.moe_layers}}},
            {"facts", identity.facts}};
}

Identity identity_of(const nlohmann::json& json) {
    Identity identity;
    const auto& s = json.at("shape");
    const auto number = [&](const char* key, uint32_t most) {
        const auto value = s.at(key).get<int64_t>();
        if (value < 0 || value > most)
            throw std::out_of_range(fmt::format("shape.{}: {} is not in 0 to {}", key, value, most));
        return static_cast<uint32_t>(value);
    };
    identity.shape = {number("n_layers", 4096),  number("n_experts", 65535),       number("n_active", 32),
                      number("n_groups", 65535), number("n_active_groups", 65535), {}};
    for (const auto& layer : s.at("moe_layers")) {
        const auto value = layer.get<int64_t>();
        const auto& layers = identity.shape.moe_layers;
        if (value < (layers.empty() ? 0 : int64_t{layers.back()} + 1) || value >= identity.shape.n_layers)
            throw std::out_of_range("shape.moe_layers: not layers of the model, in order");
        identity.shape.moe_layers.push_back(static_cast<uint32_t>(value));
    }
    const Shape& shape = identity.shape;
    if (!shape.moe_layers.empty() &&
        (shape.n_active == 0 || shape.n_active > shape.n_experts || shape.n_groups == 0))
        throw std::out_of_range("shape: MoE layers that choose no experts, or more than there are");
    identity.facts = json.at("facts");
    if (!identity.facts.is_object()) throw std::out_of_range("facts: not an object");
    return identity;
}

} // namespace

struct Writer::Impl {
    std::filesystem::path path;
    Identity identity;
    TextOf text_of;
    std::FILE* file = nullptr;
    uint64_t at = 0, n_tokens = 0; // bytes and records written
    std::vector<IndexEntry> index;
    std::vector<TokenRecord> gathered;
    uint64_t gathered_bytes = 0;
    std::set<Token> told; // tokens whose text is in the file

    void put(std::span<const std::byte> bytes) {
        if (std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) fail("cannot write");
        at += bytes.size();
    }
    [[noreturn]] void fail(const char* doing) const {
        throw Error({.what = fmt::format("{} the recording: {}", doing, std::strerror(errno)),
                     .where = path.string(),
                     .fix = "check the folder, its rights and the room on its disk"});
    }
    void frame(Kind kind, std::span<const std::byte> raw, uint32_t count) {
        std::vector<std::byte> packed(ZSTD_compressBound(raw.size()));
        const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(), ZSTD_freeCCtx);
        ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
        const size_t stored =
            ZSTD_compress2(context.get(), packed.data(), packed.size(), raw.data(), raw.size());
        check(!ZSTD_isError(stored), "what fits its bound is compressed");
        const FrameHeader header{
            FRAME_MAGIC, kind, static_cast<uint32_t>(stored), static_cast<uint32_t>(raw.size()), count, 0};
        index.push_back({at, n_tokens, kind, count});
        put(std::as_bytes(std::span(&header, 1)));
        put(std::span(packed).first(stored));
        if (std::fflush(file) != 0) fail("cannot write");
    }
    // The texts of tokens that the file has not named yet.
    void tell_texts() {
        std::vector<std::byte> raw;
        uint32_t count = 0;
        const auto tell = [&](Token token) {
            if (token == NO_TOKEN || !text_of || !told.insert(token).second) return;
            const std::string text = text_of(token);
            const uint32_t head[2] = {token, static_cast<uint32_t>(text.size())};
            const auto head_bytes = std::as_bytes(std::span(head));
            raw.insert(raw.end(), head_bytes.begin(), head_bytes.end());
            raw.insert(raw.end(), as_bytes(text).begin(), as_bytes(text).end());
            ++count;
        };
        for (const TokenRecord& record : gathered) {
            tell(record.token);
            tell(record.next);
            for (const Candidate& candidate : record.candidates) tell(candidate.token);
        }
        if (count != 0) frame(Kind::texts, raw, count);
    }
    void flush() {
        if (gathered.empty()) return;
        tell_texts();
        frame(Kind::tokens, write_columns(identity.shape, gathered), static_cast<uint32_t>(gathered.size()));
        n_tokens += gathered.size();
        gathered.clear();
        gathered_bytes = 0;
    }
};

Writer::Writer(const std::filesystem::path& path, const Identity& identity, TextOf text_of)
    : impl_(std::make_unique<Impl>()) {
    impl_->path = path;
    impl_->identity = identity;
    impl_->text_of = std::move(text_of);
    impl_->file = std::fopen(path.c_str(), "wb");
    if (!impl_->file) impl_->fail("cannot create");
    Header header{{}, VERSION, 0};
    std::copy(std::begin(MAGIC), std::end(MAGIC), header.magic);
    impl_->put(std::as_bytes(std::span(&header, 1)));
    impl_->frame(Kind::identity, as_bytes(to_json(identity).dump()), 1);
}

Writer::~Writer() {
    if (impl_->file) std::fclose(impl_->file);
}

void Writer::write(const Packet& packet) {
    if (const auto* record = std::get_if<TokenRecord>(&packet)) {
        impl_->gathered.push_back(*record);
        impl_->gathered_bytes += bytes_of(*record);
        if (impl_->gathered.size() >= FRAME_TOKENS || impl_->gathered_bytes >= FRAME_BYTES) impl_->flush();
        return;
    }
    impl_->flush();
    impl_->frame(Kind::event, write_event(std::get<Event>(packet)), 1);
}

void Writer::flush() { impl_->flush(); }

void Writer::finish() {
    impl_->flush();
    Trailer trailer{impl_->at, {}};
    std::copy(std::begin(MAGIC), std::end(MAGIC), trailer.magic);
    const std::vector<IndexEntry> index = impl_->index;
    impl_->frame(Kind::index, std::as_bytes(std::span(index)), static_cast<uint32_t>(index.size()));
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
    Reader(std::span<const std::byte> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

    Recording read() {
        read_header();
        try {
            while (read_frame()) {
            }
        } catch (const std::exception& error) { // whatever a damaged frame holds
            if (!identified_)
                throw Error({.what = "a damaged recording",
                             .where = fmt::format("{}, at byte {}", where_, at_),
                             .expected = "what the model and its records are",
                             .got = json_reason(error.what())});
            recording_.incomplete =
                fmt::format("it ends at byte {} of {}: {}", at_, bytes_.size(), json_reason(error.what()));
        }
        return std::move(recording_);
    }

  private:
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
        at_ = sizeof(header);
    }

    bool read_frame() {
        if (at_ == bytes_.size())
            throw std::out_of_range("no index follows: it was cut off, or is still written");
        FrameHeader header{};
        if (bytes_.size() - at_ < sizeof(header)) throw std::out_of_range("half a frame");
        std::memcpy(&header, bytes_.data() + at_, sizeof(header));
        if (header.magic != FRAME_MAGIC) throw std::out_of_range("no frame begins here");
        if (header.raw > MAX_RAW || header.stored > bytes_.size() - at_ - sizeof(header))
            throw std::out_of_range("half a frame");
        if (header.kind == Kind::index) return false;
        const std::vector<std::byte> raw =
            unpack(bytes_.subspan(at_ + sizeof(header), header.stored), header.raw);
        take(header, raw);
        at_ += sizeof(header) + header.stored;
        return true;
    }

    static std::vector<std::byte> unpack(std::span<const std::byte> stored, uint32_t size) {
        std::vector<std::byte> raw(size);
        const size_t got = ZSTD_decompress(raw.data(), size, stored.data(), stored.size());
        if (ZSTD_isError(got) || got != size)
            throw std::out_of_range(
                fmt::format("a damaged frame ({})", ZSTD_isError(got) ? ZSTD_getErrorName(got) : "its size"));
        return raw;
    }

    void take(const FrameHeader& header, std::span<const std::byte> raw) {
        const std::string_view text(reinterpret_cast<const char*>(raw.data()), raw.size());
        if ((header.kind == Kind::identity) == identified_)
            throw std::out_of_range("an identity, once and first");
        switch (header.kind) {
        case Kind::identity:
            recording_.identity = identity_of(parse_json(text, where_));
            identified_ = true;
            break;
        case Kind::texts:
            take_texts(text, header.count);
            break;
        case Kind::tokens: {
            if (header.count > FRAME_TOKENS) throw std::out_of_range("too many records in a frame");
            auto records = read_columns(recording_.identity.shape, raw, header.count);
            for (const TokenRecord& record : records) check_record(record);
            auto& all = recording_.tokens;
            all.insert(all.end(), std::make_move_iterator(records.begin()),
                       std::make_move_iterator(records.end()));
            break;
        }
        case Kind::event:
            recording_.events.push_back({recording_.tokens.size(), read_event(raw)});
            break;
        default:
            throw std::out_of_range(fmt::format("a frame of kind {}", static_cast<uint32_t>(header.kind)));
        }
    }

    // What others rely on: tables all or none, and experts that there are.
    void check_record(const TokenRecord& r) const {
        const bool any = !r.experts.empty();
        for (const bool present : {!r.weights.empty(), !r.margin.empty(), !r.entropy.empty(),
                                   !r.swapped.empty(), !r.groups.empty()})
            if (present != any) throw std::out_of_range("a record with some of its tables");
        if (any && r.norms.empty()) throw std::out_of_range("a record with some of its tables");
        for (const AttentionRows& rows : r.attention)
            if (rows.layer >= recording_.identity.shape.n_layers || rows.n_heads > MOST_HEADS ||
                (uint64_t{r.position} + rows.pool) / rows.pool != rows.bins())
                throw std::out_of_range(
                    "attention of another layer, of too many heads, or to other positions");
        const std::vector<uint32_t>& routing = recording_.identity.shape.moe_layers;
        for (const RouterScores& router : r.scores)
            if (!std::binary_search(routing.begin(), routing.end(), router.layer))
                throw std::out_of_range("scores of a layer that does not route");
        for (const uint16_t expert : r.experts)
            if (expert >= recording_.identity.shape.n_experts)
                throw std::out_of_range(
                    fmt::format("expert {} of {}", expert, recording_.identity.shape.n_experts));
    }

    void take_texts(std::string_view text, uint32_t count) {
        for (uint32_t i = 0; i < count; ++i) {
            uint32_t head[2];
            if (text.size() < sizeof(head)) throw std::out_of_range("half a text");
            std::memcpy(head, text.data(), sizeof(head));
            text.remove_prefix(sizeof(head));
            if (head[1] > text.size()) throw std::out_of_range("half a text");
            recording_.texts[head[0]] = text.substr(0, head[1]);
            text.remove_prefix(head[1]);
        }
    }

    std::span<const std::byte> bytes_;
    std::string where_;
    uint64_t at_ = 0;
    bool identified_ = false;
    Recording recording_;
};

} // namespace

Recording read_recording(std::span<const std::byte> bytes, const std::string& where) {
    return Reader(bytes, where).read();
}

Recording read_recording(const std::filesystem::path& path) {
    const std::string bytes = read_file(path, MAX_FILE);
    return read_recording(as_bytes(bytes), path.string());
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
