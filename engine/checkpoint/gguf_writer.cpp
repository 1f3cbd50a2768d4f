// Writing GGUF; see gguf_writer.h.
#include "checkpoint/gguf_writer.h"

#include "base/error.h"
#include "base/numbers.h"

#include <algorithm>

namespace fathom {

namespace {

constexpr uint64_t ALIGNMENT = 32; // the default, which needs no key

template <class T> void append(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void append_text(std::string& out, std::string_view text) {
    append(out, uint64_t{text.size()});
    out += text;
}

} // namespace

void GgufWriter::key(std::string_view name, Gguf::Type type) {
    check(!begun_, "keys come before data");
    ++n_keys_;
    append_text(keys_, name);
    append(keys_, static_cast<uint32_t>(type));
}

void GgufWriter::text(std::string_view name, std::string_view value) {
    key(name, Gguf::Type::string);
    append_text(keys_, value);
}
void GgufWriter::whole(std::string_view name, uint32_t value) {
    key(name, Gguf::Type::u32);
    append(keys_, value);
}
void GgufWriter::number(std::string_view name, double value) {
    key(name, Gguf::Type::f32);
    append(keys_, static_cast<float>(value));
}
void GgufWriter::flag(std::string_view name, bool value) {
    key(name, Gguf::Type::boolean);
    append(keys_, uint8_t{value});
}
void GgufWriter::texts(std::string_view name, std::span<const std::string_view> values) {
    key(name, Gguf::Type::array);
    append(keys_, static_cast<uint32_t>(Gguf::Type::string));
    append(keys_, uint64_t{values.size()});
    for (const std::string_view value : values) append_text(keys_, value);
}
void GgufWriter::integers(std::string_view name, std::span<const int32_t> values) {
    key(name, Gguf::Type::array);
    append(keys_, static_cast<uint32_t>(Gguf::Type::i32));
    append(keys_, uint64_t{values.size()});
    for (const int32_t value : values) append(keys_, value);
}
void GgufWriter::copy(std::string_view name, const Gguf::Value& value) {
    if (value.type == Gguf::Type::string) return text(name, value.bytes);
    key(name, value.type);
    if (value.type == Gguf::Type::array) {
        append(keys_, static_cast<uint32_t>(value.element));
        append(keys_, value.count);
    }
    keys_ += value.bytes;
}

void GgufWriter::tensor(std::string_view name, DType dtype, std::span<const uint64_t> shape) {
    check(!begun_, "tensors are announced before data");
    const auto id = ggml_id_of(dtype);
    check(id && !name.empty() && name.size() <= 64 && shape.size() <= 4, "a tensor that GGUF can hold");
    check(shape.empty() || shape.back() % block_of(dtype) == 0, "rows of whole blocks");
    append_text(records_, name);
    append(records_, static_cast<uint32_t>(shape.size()));
    uint64_t elements = 1;
    for (size_t i = shape.size(); i-- > 0;) {
        append(records_, shape[i]);
        elements *= shape[i];
    }
    append(records_, *id);
    append(records_, offset_);
    sizes_.push_back(elements / block_of(dtype) * bytes_of(dtype));
    offset_ += round_up(sizes_.back(), ALIGNMENT);
}

void GgufWriter::pad(uint64_t written) {
    file_.write(std::string(round_up(written, ALIGNMENT) - written, '\0'));
}

void GgufWriter::begin() {
    begun_ = true;
    std::string header = "GGUF";
    append(header, uint32_t{3});
    append(header, uint64_t{sizes_.size()});
    append(header, n_keys_);
    file_.write(header);
    file_.write(keys_);
    file_.write(records_);
    pad(header.size() + keys_.size() + records_.size());
}

void GgufWriter::write(std::span<const std::byte> data) {
    if (!begun_) begin();
    check(at_ < sizes_.size() && data.size() <= sizes_[at_] - filled_, "data of announced tensors");
    file_.write(data);
    filled_ += data.size();
    if (filled_ < sizes_[at_]) return;
    pad(filled_);
    ++at_;
    filled_ = 0;
}

void GgufWriter::commit() {
    if (!begun_) begin();
    check(at_ == sizes_.size(), "all tensors are written");
    file_.commit();
}

} // namespace fathom
