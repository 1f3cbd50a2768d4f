// Frames: records, events and texts as checked, compressed pieces of bytes. A recording is a file of them,
// and a live engine's socket sends the same ones.
#pragma once

#include "trace/record.h"

#include <cstddef>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace fathom::trace {

// What a recording says of itself before its first record.
struct Identity {
    Shape shape;
    nlohmann::json facts; // an object: "program", "model", "device", "settings", "created", ...; any keys
};
nlohmann::json to_json(const Identity& identity);
Identity identity_from(const nlohmann::json& json); // throws json's exceptions and std::out_of_range

using TextOf = std::function<std::string(Token)>; // the bytes that a token stands for

constexpr uint32_t FRAME_TOKENS = 256; // records of a frame, at most

enum class Kind : uint32_t { identity = 1, texts, tokens, event, index };
struct Frame {
    Kind kind;
    uint32_t count;             // records, texts or entries
    std::vector<std::byte> raw; // what is in it, unpacked
};
std::vector<std::byte> pack_frame(Kind kind, std::span<const std::byte> raw, uint32_t count);
// The frame that `bytes` begin with, which are cut to what follows it. Throws std::out_of_range for half a
// frame or a damaged one; `bytes` are as before then.
Frame take_frame(std::span<const std::byte>& bytes);

// Makes frames of packets, and tells of every token's text before it is first named.
class Encoder {
  public:
    using Out = std::function<void(Kind kind, std::span<const std::byte> frame, uint32_t count)>;
    Encoder(const Shape& shape, TextOf text_of, Out out)
        : shape_(shape), text_of_(std::move(text_of)), out_(std::move(out)) {}
    void write(const Packet& packet);         // records are gathered
    void flush();                             // what was gathered becomes a frame
    std::vector<std::byte> all_texts() const; // a frame of every text that was told so far

  private:
    void tell_texts();
    const Shape shape_;
    const TextOf text_of_;
    const Out out_;
    std::vector<TokenRecord> gathered_;
    uint64_t gathered_bytes_ = 0;
    std::set<Token> told_; // tokens whose text is out
};

// Makes packets of frames. Throws std::out_of_range and Error for whatever they cannot hold.
class Decoder {
  public:
    std::optional<Identity> identity; // of the first frame, or set before
    std::map<Token, std::string> texts;
    void take(const Frame& frame, const std::function<void(Packet&&)>& sink);

  private:
    void check_record(const TokenRecord& record) const;
    void take_texts(const Frame& frame);
};

} // namespace fathom::trace
