#include "trace/frames.h"

#include "base/error.h"
#include "base/json.h"
#include "trace/columns.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <zstd.h>

namespace fathom::trace {

namespace {

constexpr uint32_t FRAME_MAGIC = 0x4D415246; // "FRAM"
constexpr uint64_t FRAME_BYTES = 8ull << 20; // after which a frame is full, too
constexpr uint32_t MAX_RAW = 1u << 26;       // bytes of a frame
constexpr uint32_t MOST_HEADS = 1024;        // of a layer

struct FrameHeader {
    uint32_t magic;
    Kind kind;
    uint32_t stored, raw; // bytes after this header, and what they unpack to
    uint32_t count;
    uint32_t reserved;
};
static_assert(sizeof(FrameHeader) == 24);

void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
    to.insert(to.end(), bytes.begin(), bytes.end());
}

void append_text(std::vector<std::byte>& to, Token token, const std::string& text) {
    const uint32_t head[2] = {token, static_cast<uint32_t>(text.size())};
    append(to, std::as_bytes(std::span(head)));
    append(to, std::as_bytes(std::span(text)));
}

} // namespace

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

Identity identity_from(const nlohmann::json& json) {
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

std::vector<std::byte> pack_frame(Kind kind, std::span<const std::byte> raw, uint32_t count) {
    std::vector<std::byte> frame(sizeof(FrameHeader) + ZSTD_compressBound(raw.size()));
    // making one takes longer than a token's frame does
    thread_local const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(),
                                                                                  ZSTD_freeCCtx);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
    const size_t stored = ZSTD_compress2(context.get(), frame.data() + sizeof(FrameHeader),
                                         frame.size() - sizeof(FrameHeader), raw.data(), raw.size());
    check(!ZSTD_isError(stored), "what fits its bound is compressed");
    frame.resize(sizeof(FrameHeader) + stored);
    const FrameHeader header{
        FRAME_MAGIC, kind, static_cast<uint32_t>(stored), static_cast<uint32_t>(raw.size()), count, 0};
    std::memcpy(frame.data(), &header, sizeof(header));
    return frame;
}

Frame take_frame(std::span<const std::byte>& bytes) {
    FrameHeader header{};
    if (bytes.size() < sizeof(header)) throw std::out_of_range("half a frame");
    std::memcpy(&header, bytes.data(), sizeof(header));
    if (header.magic != FRAME_MAGIC) throw std::out_of_range("no frame begins here");
    if (header.raw > MAX_RAW || header.stored > bytes.size() - sizeof(header))
        throw std::out_of_range("half a frame");
    Frame frame{header.kind, header.count, std::vector<std::byte>(header.raw)};
    const size_t got =
        ZSTD_decompress(frame.raw.data(), header.raw, bytes.data() + sizeof(header), header.stored);
    if (ZSTD_isError(got) || got != header.raw)
        throw std::out_of_range(
            fmt::format("a damaged frame ({})", ZSTD_isError(got) ? ZSTD_getErrorName(got) : "its size"));
    bytes = bytes.subspan(sizeof(header) + header.stored);
    return frame;
}

void Encoder::write(const Packet& packet) {
    if (const auto* record = std::get_if<TokenRecord>(&packet)) {
        gathered_.push_back(*record);
        gathered_bytes_ += bytes_of(*record);
        if (gathered_.size() >= FRAME_TOKENS || gathered_bytes_ >= FRAME_BYTES) flush();
        return;
    }
    flush();
    out_(Kind::event, pack_frame(Kind::event, write_event(std::get<Event>(packet)), 1), 1);
}

void Encoder::flush() {
    if (gathered_.empty()) return;
    tell_texts();
    const auto count = static_cast<uint32_t>(gathered_.size());
    out_(Kind::tokens, pack_frame(Kind::tokens, write_columns(shape_, gathered_), count), count);
    gathered_.clear();
    gathered_bytes_ = 0;
}

// The texts of tokens that were not named yet.
void Encoder::tell_texts() {
    std::vector<std::byte> raw;
    uint32_t count = 0;
    const auto tell = [&](Token token) {
        if (token == NO_TOKEN || !text_of_ || !told_.insert(token).second) return;
        append_text(raw, token, text_of_(token));
        ++count;
    };
    for (const TokenRecord& record : gathered_) {
        tell(record.token);
        tell(record.next);
        for (const Candidate& candidate : record.candidates) tell(candidate.token);
    }
    if (count != 0) out_(Kind::texts, pack_frame(Kind::texts, raw, count), count);
}

std::vector<std::byte> Encoder::all_texts() const {
    std::vector<std::byte> raw;
    for (const Token token : told_) append_text(raw, token, text_of_(token));
    return pack_frame(Kind::texts, raw, static_cast<uint32_t>(told_.size()));
}

void Decoder::take(const Frame& frame, const std::function<void(Packet&&)>& sink) {
    if ((frame.kind == Kind::identity) == identity.has_value())
        throw std::out_of_range("an identity, once and first");
    switch (frame.kind) {
    case Kind::identity: {
        const std::string_view text(reinterpret_cast<const char*>(frame.raw.data()), frame.raw.size());
        identity = identity_from(parse_json(text, "the identity"));
        break;
    }
    case Kind::texts:
        take_texts(frame);
        break;
    case Kind::tokens: {
        if (frame.count > FRAME_TOKENS) throw std::out_of_range("too many records in a frame");
        auto records = read_columns(identity->shape, frame.raw, frame.count);
        for (const TokenRecord& record : records) check_record(record);
        for (TokenRecord& record : records) sink(std::move(record));
        break;
    }
    case Kind::event:
        sink(read_event(frame.raw));
        break;
    default:
        throw std::out_of_range(fmt::format("a frame of kind {}", static_cast<uint32_t>(frame.kind)));
    }
}

// What others rely on: tables all or none, and experts that there are.
void Decoder::check_record(const TokenRecord& r) const {
    const bool any = !r.experts.empty();
    for (const bool present :
         {!r.weights.empty(), !r.margin.empty(), !r.entropy.empty(), !r.swapped.empty(), !r.groups.empty()})
        if (present != any) throw std::out_of_range("a record with some of its tables");
    if (any && r.norms.empty()) throw std::out_of_range("a record with some of its tables");
    for (const AttentionRows& rows : r.attention)
        if (rows.layer >= identity->shape.n_layers || rows.n_heads > MOST_HEADS ||
            (uint64_t{r.position} + rows.pool) / rows.pool != rows.bins())
            throw std::out_of_range("attention of another layer, of too many heads, or to other positions");
    const std::vector<uint32_t>& routing = identity->shape.moe_layers;
    for (const RouterScores& router : r.scores)
        if (!std::binary_search(routing.begin(), routing.end(), router.layer))
            throw std::out_of_range("scores of a layer that does not route");
    for (const uint16_t expert : r.experts)
        if (expert >= identity->shape.n_experts)
            throw std::out_of_range(fmt::format("expert {} of {}", expert, identity->shape.n_experts));
}

void Decoder::take_texts(const Frame& frame) {
    std::string_view text(reinterpret_cast<const char*>(frame.raw.data()), frame.raw.size());
    for (uint32_t i = 0; i < frame.count; ++i) {
        uint32_t head[2];
        if (text.size() < sizeof(head)) throw std::out_of_range("half a text");
        std::memcpy(head, text.data(), sizeof(head));
        text.remove_prefix(sizeof(head));
        if (head[1] > text.size()) throw std::out_of_range("half a text");
        texts[head[0]] = text.substr(0, head[1]);
        text.remove_prefix(head[1]);
    }
}

} // namespace fathom::trace
