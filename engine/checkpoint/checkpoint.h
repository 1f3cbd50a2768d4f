// A checkpoint on disk, as its tensors: one safetensors file, the several files of a Hugging Face folder with
// their index, or a GGUF file and the other parts it was split into. Files are mapped, never read whole;
// every length and offset in them is treated as hostile (the rules are those of the reference implementation,
// plus: duplicate names and unknown dtypes are errors). Nothing here knows what a model is. Format:
// https://github.com/huggingface/safetensors (README, "Format").
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// clang-format off
enum class DType : uint8_t {
    f64, f32, f16, bf16, f8_e4m3, f8_e5m2, f8_e8m0, i64, i32, i16, i8, u64, u32, u16, u8, boolean,
    // Block formats, of GGUF files alone: block_of() elements of a row share bytes_of() bytes.
    q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4
};
// clang-format on
std::string_view name_of(DType dtype); // as safetensors and ggml spell it: "F32", "BF16", "Q4_K", "IQ4_NL"
uint32_t bytes_of(DType dtype);        // bytes of one block
uint32_t block_of(DType dtype);        // elements of one block; 1 for plain numbers

// One tensor: a view of mapped bytes, valid as long as its Checkpoint. `data` may be unaligned: copy, do not
// cast.
struct TensorView {
    std::string name;
    DType dtype;
    std::vector<uint64_t> shape; // outermost first; empty for a scalar
    std::span<const std::byte> data;
    std::string file; // where it lies, for messages
};
std::string shape_text(std::span<const uint64_t> shape); // "(4096, 256)"

class Gguf; // gguf.h: the keys of a GGUF file

class Checkpoint {
  public:
    // Opens `path`: a .safetensors or .gguf file (told apart by their first bytes), or a folder holding
    // model.safetensors or model.safetensors.index.json with its shards. Any part of a split GGUF brings the
    // others, which lie beside it. Throws Error naming file and tensor for anything malformed or missing.
    static Checkpoint open(const std::filesystem::path& path);
    // The same over bytes that outlive the checkpoint (the embedded model, tests, fuzzing); `where` names
    // them.
    static Checkpoint from_memory(std::span<const std::byte> bytes, std::string where);
    static Checkpoint none(); // no tensors

    Checkpoint(Checkpoint&&) noexcept;
    Checkpoint& operator=(Checkpoint&&) noexcept;
    ~Checkpoint();

    const TensorView* find(std::string_view name) const; // nullptr when absent
    std::span<const TensorView> tensors() const;         // sorted by name
    uint64_t bytes() const;                              // of all tensors
    const Gguf* gguf() const; // the keys, of the first part where there are several; nullptr: safetensors

    // Tells the system that these bytes (of a tensor, or a part of one that was uploaded) are not needed
    // again soon, so that their mapped pages leave this process's memory. They can still be read, at the
    // price of a page fault. Nothing happens for bytes in memory.
    void drop(std::span<const std::byte> part) const;
    void drop(const TensorView& tensor) const { drop(tensor.data); }
    void drop_all() const; // of every tensor, and what page faults mapped around them

  private:
    struct Impl;
    explicit Checkpoint(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// Writes `tensors` as one safetensors file (header padded to 8 bytes, data in the given order), through a
// temporary file that is renamed at the end: a full disk leaves no half-written file and is an Error. The
// data are streamed from where they lie. Names must differ and be UTF-8, shapes must agree with the bytes.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors);

// A model as files: what `fathom run MODEL` needs besides the weights.
struct ModelFiles {
    std::filesystem::path path; // as it was opened; empty for the embedded model
    std::string name;           // for people: the folder's name, or "fathom-tiny" for the embedded model
    Checkpoint checkpoint;
    std::string config;       // the text of config.json
    std::string config_where; // its path, for messages
    std::string tokenizer; // the text of tokenizer.json or tiktoken.model; empty when the folder has neither
    std::string tokenizer_where;
    std::string tokenizer_config; // the text of tokenizer_config.json; empty when absent
    std::string chat_template;    // Jinja: of GGUF's key or chat_template.jinja; empty when absent

    // Of a GGUF model, which has no config.json and no tokenizer.json: its keys say all that; else nullptr.
    const Gguf* gguf() const { return checkpoint.gguf(); }
};
// `model` is a Hugging Face folder, one .safetensors file in such a folder (its neighbours then complete it),
// a GGUF file, a folder with one GGUF model and no config.json, or a name that hub.h knows; nothing means the
// model embedded in this program. Throws Error when there is no such folder, no config.json or no weights,
// and says which of them is missing. A folder's weights are not looked at where `texts_only`.
ModelFiles open_model(const std::filesystem::path& model, bool texts_only = false);

// Where a folder's tokenizer is: tokenizer.json, or tiktoken.model when only that is there.
std::filesystem::path tokenizer_in(const std::filesystem::path& folder);

} // namespace fathom
