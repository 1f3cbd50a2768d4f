// GGUF files made for tests, field by field, so that any of them can be wrong.
#pragma once

#include "checkpoint/help.h"

namespace help {

template <class T> std::string raw(T value) {
    std::string bytes(sizeof value, '\0');
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
}
inline std::string gguf_text(std::string_view text) { return raw<uint64_t>(text.size()) + std::string(text); }

class GgufBytes {
  public:
    GgufBytes& key(std::string_view name, uint32_t type, const std::string& value) {
        keys_ += gguf_text(name) + raw(type) + value;
        ++n_keys_;
        return *this;
    }
    GgufBytes& u16(std::string_view name, uint16_t value) { return key(name, 2, raw(value)); }
    GgufBytes& u32(std::string_view name, uint32_t value) { return key(name, 4, raw(value)); }
    GgufBytes& i32(std::string_view name, int32_t value) { return key(name, 5, raw(value)); }
    GgufBytes& f32(std::string_view name, float value) { return key(name, 6, raw(value)); }
    GgufBytes& flag(std::string_view name, bool value) { return key(name, 7, raw<uint8_t>(value)); }
    GgufBytes& text(std::string_view name, std::string_view value) { return key(name, 8, gguf_text(value)); }
    // `dims` fastest first, as the file has them; the data are padded to 32 bytes.
    GgufBytes& tensor(std::string_view name, std::vector<int64_t> dims, uint32_t type, std::string data) {
        records_ += gguf_text(name) + raw(static_cast<uint32_t>(dims.size()));
        for (const int64_t size : dims) records_ += raw(size);
        records_ += raw(type) + raw<uint64_t>(data_.size());
        ++n_tensors_;
        data_ += data;
        data_.resize((data_.size() + 31) / 32 * 32);
        return *this;
    }
    std::string bytes() const {
        std::string file = "GGUF" + raw(3u) + raw(n_tensors_) + raw(n_keys_) + keys_ + records_;
        file.resize((file.size() + 31) / 32 * 32);
        return file + data_;
    }

  private:
    std::string keys_, records_, data_;
    uint64_t n_keys_ = 0, n_tensors_ = 0;
};

} // namespace help
