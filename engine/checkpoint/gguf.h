// A GGUF file, versions 2 and 3, little-endian: what it says about its model (keys with typed values) and its
// tensors. The reader takes the bytes as hostile: whatever it keeps is proportional to the bytes that are
// there, never to a count the file claims. Left out: version 1, big-endian files, arrays of arrays, tensor
// types that DType does not have. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include "checkpoint/checkpoint.h"

#include <optional>

namespace fathom {

class Gguf {
  public:
    enum class Type : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

    // A value where it lies in the file; checked to be complete.
    struct Value {
        Type type, element;     // of an array: what it holds; else the same twice
        uint64_t count;         // elements of an array; else 1
        std::string_view bytes; // a string's own text; else the elements as stored, unaligned
    };
    struct Key {
        std::string_view name;
        Value value;
    };

    std::span<const Key> keys() const { return keys_; } // sorted by name
    const std::string& where() const { return where_; }
    const Value* find(std::string_view key) const; // nullptr when absent
    bool has(std::string_view key) const { return find(key) != nullptr; }

    // The value of a key that must be there. Whole numbers may have any integer type, other numbers any
    // number type, and both must lie within the bounds. Throws Error that names the key, what was expected
    // and what is there.
    uint64_t whole(std::string_view key, uint64_t least, uint64_t most) const;
    double number(std::string_view key, double above, double most) const; // above `above`, at most `most`
    bool flag(std::string_view key) const;
    std::string_view text(std::string_view key) const;
    std::vector<std::string_view> texts(std::string_view key) const; // an array of strings
    std::vector<int32_t> integers(std::string_view key) const;       // an array of i32

    [[noreturn]] void refuse(std::string_view key, std::string expected, std::string fix = "") const;

  private:
    friend struct GgufReader;
    std::string where_;
    std::vector<Key> keys_;
};
std::string text_of(const Gguf::Value& value); // for people: "42", "\"gpt2\"", "102400 strings"

// A whole file: its keys, and its tensors sorted by name, with shapes turned to outermost first (GGUF has the
// fastest dimension first). All of it are views of `file`. `where` names it in errors. Throws Error.
struct GgufFile {
    Gguf keys;
    std::vector<TensorView> tensors;
};
GgufFile parse_gguf(std::span<const std::byte> file, const std::string& where);
bool is_gguf(std::span<const std::byte> file);   // by its first bytes
bool is_gguf(const std::filesystem::path& file); // the same of a regular file; throws Error for any other

// The numbers by which GGUF files name the types of tensors.
std::optional<DType> dtype_of_ggml(uint32_t id);
std::optional<uint32_t> ggml_id_of(DType dtype);

} // namespace fathom
