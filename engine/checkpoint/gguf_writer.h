// Writing a GGUF file, version 3: keys and a list of tensors first, then the data, streamed in order. The
// file appears under its name when it is complete.
#pragma once

#include "base/file.h"
#include "checkpoint/gguf.h"

namespace fathom {

class GgufWriter {
  public:
    explicit GgufWriter(const std::filesystem::path& path) : file_(path) {}

    // Keys, each once.
    void text(std::string_view key, std::string_view value);
    void whole(std::string_view key, uint32_t value); // u32
    void number(std::string_view key, double value);  // f32
    void flag(std::string_view key, bool value);
    void texts(std::string_view key, std::span<const std::string_view> values);
    void integers(std::string_view key, std::span<const int32_t> values); // i32
    void copy(std::string_view key, const Gguf::Value& value);            // as another file has it

    // Announces a tensor, with its shape outermost first; names differ and have at most 64 bytes. Rows must
    // be whole blocks.
    void tensor(std::string_view name, DType dtype, std::span<const uint64_t> shape);

    // The data of all tensors, in the order in which they were announced; in parts of any size that do not
    // reach over the end of a tensor.
    void write(std::span<const std::byte> data);
    void commit(); // all data must be there

  private:
    void begin();
    void pad(uint64_t written);
    void key(std::string_view name, Gguf::Type type);

    AtomicFile file_;
    std::string keys_, records_;
    uint64_t n_keys_ = 0, offset_ = 0;
    std::vector<uint64_t> sizes_; // of the tensors, in bytes
    size_t at_ = 0;               // the tensor being written
    uint64_t filled_ = 0;         // bytes of it
    bool begun_ = false;
};

} // namespace fathom
