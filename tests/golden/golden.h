// The golden cases as C++ sees them: what make_goldens.py committed beside this file, and the checkpoint
// folder that a case stands for, written out again from its list of tensors. Only for tests; errors of the
// data are exceptions.
#pragma once

#include "base/numbers.h"
#include "checkpoint/checkpoint.h"
#include "golden/weights.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace fathom::golden {

inline std::filesystem::path data_folder() {
    const char* elsewhere = std::getenv("FATHOM_SOURCE"); // a packed copy; see tests/real_gpu.sh
    return std::filesystem::path(elsewhere ? elsewhere : FATHOM_SOURCE_DIR) / "tests/golden";
}

inline std::string read_text(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path.string());
    return {std::istreambuf_iterator<char>(file), {}};
}

// A folder that disappears with its owner.
class ScratchFolder {
  public:
    ScratchFolder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "fathom-golden-XXXXXX").string();
        if (!mkdtemp(pattern.data())) throw std::runtime_error("cannot make " + pattern);
        path_ = pattern;
    }
    ScratchFolder(const ScratchFolder&) = delete;
    ~ScratchFolder() { std::filesystem::remove_all(path_); }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

struct Case {
    std::string name, notes, oracle; // oracle: whose logits these are, "transformers" or "numpy"
    double limit;                    // NMSE at every position
    bool mixed = false;              // its weights in formats that cannot be stacked: see mix()
    std::filesystem::path folder() const { return data_folder() / name; }
};

inline std::vector<Case> cases() {
    std::vector<Case> result;
    for (const auto& entry : nlohmann::json::parse(read_text(data_folder() / "cases.json")))
        result.push_back({entry.at("name"), entry.at("notes"), entry.at("oracle"), entry.at("limit")});
    return result;
}

// "mixed NAME": the case NAME with mixed formats, for which there are no golden numbers.
inline Case case_named(const std::string& name) {
    const std::string mixed = "mixed ";
    const bool is_mixed = name.starts_with(mixed);
    for (auto& entry : cases()) {
        entry.mixed = is_mixed;
        if (entry.name == (is_mixed ? name.substr(mixed.size()) : name)) return entry;
    }
    throw std::runtime_error("no golden case " + name);
}

// One tensor of a case's checkpoint with its bytes; a line of tensors.txt.
struct Tensor {
    std::string name;
    DType dtype;
    std::vector<uint64_t> shape;
    std::vector<std::byte> data;
};

inline Tensor read_recipe(const std::string& line) {
    std::istringstream words(line);
    std::string name, dtype, shape, scale, offset;
    if (!(words >> name >> dtype >> shape >> scale >> offset))
        throw std::runtime_error("tensors.txt: " + line);
    const std::map<std::string, DType> dtypes{{"F32", DType::f32},
                                              {"F16", DType::f16},
                                              {"BF16", DType::bf16},
                                              {"F8_E4M3", DType::f8_e4m3},
                                              {"POW2", DType::f32}};
    Tensor tensor{name, dtypes.at(dtype), {}, {}};
    uint64_t count = 1;
    std::istringstream dimensions(shape);
    for (std::string size; std::getline(dimensions, size, ','); count *= tensor.shape.back())
        tensor.shape.push_back(std::stoull(size));
    const float by = std::strtof(scale.c_str(), nullptr), from = std::strtof(offset.c_str(), nullptr);
    const uint64_t hash = fnv1a64(name), bytes = bytes_of(tensor.dtype);
    tensor.data.resize(count * bytes);
    for (uint64_t i = 0; i < count; ++i) {
        const float value =
            dtype == "POW2" ? std::ldexp(by, int(std::floor(2 * unit(hash, i)))) : weight(hash, i, by, from);
        const uint16_t half = tensor.dtype == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
        const uint8_t code = f32_to_f8(value);
        const void* const sources[] = {&code, &half, &value}; // of 1, 2 and 4 bytes
        const void* source = sources[bytes / 2];
        std::memcpy(tensor.data.data() + i * bytes, source, bytes);
    }
    return tensor;
}

// An f32 tensor in half precision, or in FP8 with one scale for each 128 x 128 weights.
inline void to_halves(Tensor& tensor, DType dtype) {
    std::vector<std::byte> halves(tensor.data.size() / 2);
    for (size_t i = 0; i < tensor.data.size() / 4; ++i) {
        float value;
        std::memcpy(&value, tensor.data.data() + 4 * i, 4);
        const uint16_t half = dtype == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
        std::memcpy(halves.data() + 2 * i, &half, 2);
    }
    tensor.dtype = dtype;
    tensor.data = std::move(halves);
}
inline Tensor to_fp8(Tensor& tensor) {
    const uint64_t rows = tensor.shape[0], cols = tensor.shape[1], wide = (cols + 127) / 128;
    Tensor scales{tensor.name + "_scale_inv", DType::f32, {(rows + 127) / 128, wide}, {}};
    std::vector<float> values(rows * cols), numbers;
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    for (uint64_t i = 0; i < scales.shape[0] * wide; ++i)
        numbers.push_back(0.001f * static_cast<float>(i % 7 + 1));
    tensor.data.resize(rows * cols);
    for (uint64_t i = 0; i < values.size(); ++i) {
        const float scale = numbers[i / cols / 128 * wide + i % cols / 128];
        tensor.data[i] = static_cast<std::byte>(f32_to_f8(values[i] / scale));
    }
    tensor.dtype = DType::f8_e4m3;
    scales.data.assign(reinterpret_cast<const std::byte*>(numbers.data()),
                       reinterpret_cast<const std::byte*>(numbers.data() + numbers.size()));
    return scales;
}

// Formats as a file of mixed ones has them: kv_a and v apart from q, in the first layer k too, up from gate,
// the shared experts from the routed ones; some matrices in FP8.
inline void mix(std::vector<Tensor>& tensors) {
    std::vector<Tensor> scales;
    for (Tensor& tensor : tensors) {
        const auto ends = [&](std::string_view suffix) { return tensor.name.ends_with(suffix); };
        const bool shared = tensor.name.find("shared_experts") != std::string::npos;
        if (ends("kv_a_proj_with_mqa.weight") || ends("v_proj.weight") ||
            ends("layers.0.self_attn.k_proj.weight") || shared)
            to_halves(tensor, DType::bf16);
        else if (ends("up_proj.weight") || ends("embed_tokens.weight"))
            to_halves(tensor, DType::f16);
        else if (ends("o_proj.weight") || ends("q_b_proj.weight") || ends("down_proj.weight"))
            scales.push_back(to_fp8(tensor));
    }
    for (Tensor& tensor : scales) tensors.push_back(std::move(tensor));
}

inline std::vector<Tensor> tensors_of(const Case& golden) {
    std::vector<Tensor> tensors;
    std::istringstream lines(read_text(golden.folder() / "tensors.txt"));
    for (std::string line; std::getline(lines, line);) tensors.push_back(read_recipe(line));
    if (golden.mixed) mix(tensors);
    return tensors;
}

inline void write_weights(const std::filesystem::path& path, std::span<const Tensor> tensors) {
    std::vector<TensorView> views;
    for (const auto& tensor : tensors)
        views.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.data, path.string()});
    write_safetensors(path, views);
}

// Writes the checkpoint of `golden` into `folder`, its config in the dialect of transformers 5 or the
// published one.
inline void write_checkpoint(const Case& golden, const std::filesystem::path& folder,
                             bool published = false) {
    const char* config = published ? "config_published.json" : "config.json";
    std::filesystem::copy_file(golden.folder() / config, folder / "config.json");
    write_weights(folder / "model.safetensors", tensors_of(golden));
}

// The same in two files with an index, as large models are published.
inline void write_sharded_checkpoint(const Case& golden, const std::filesystem::path& folder) {
    std::filesystem::copy_file(golden.folder() / "config.json", folder / "config.json");
    const auto tensors = tensors_of(golden);
    const std::span all(tensors);
    const std::pair<const char*, std::span<const Tensor>> shards[] = {
        {"model-00001-of-00002.safetensors", all.first(all.size() / 3)},
        {"model-00002-of-00002.safetensors", all.subspan(all.size() / 3)}};
    nlohmann::json index{{"metadata", {{"total_size", 0}}}};
    uint64_t total = 0;
    for (const auto& [file, part] : shards) {
        write_weights(folder / file, part);
        for (const auto& tensor : part) {
            index["weight_map"][tensor.name] = file;
            total += tensor.data.size();
        }
    }
    index["metadata"]["total_size"] = total;
    std::ofstream(folder / "model.safetensors.index.json") << index.dump(1);
}

// What the oracle said: the prompt, the logits of its last `positions` tokens (positions, vocab), and what
// the heads of each layer paid to each token in the last one's step (layers, heads, tokens); the NumPy oracle
// does not say that.
struct Expectation {
    std::vector<uint32_t> tokens;
    std::vector<float> logits, attention;
    size_t positions = 0, vocab = 0, layers = 0, heads = 0;
};

inline Expectation expectation(const Case& golden) {
    const auto file = Checkpoint::open(golden.folder() / "golden.safetensors");
    const auto *tokens = file.find("tokens"), *logits = file.find("logits");
    if (!tokens || !logits || tokens->dtype != DType::i32 || logits->dtype != DType::f32 ||
        logits->shape.size() != 2)
        throw std::runtime_error(golden.name + ": golden.safetensors is not as make_goldens.py writes it");
    Expectation result;
    result.positions = logits->shape[0], result.vocab = logits->shape[1];
    result.tokens.resize(tokens->data.size() / 4);
    std::memcpy(result.tokens.data(), tokens->data.data(), tokens->data.size());
    result.logits.resize(logits->data.size() / 4);
    std::memcpy(result.logits.data(), logits->data.data(), logits->data.size());
    if (const auto* attention = file.find("attention")) {
        result.layers = attention->shape.at(0), result.heads = attention->shape.at(1);
        result.attention.resize(attention->data.size() / 4);
        std::memcpy(result.attention.data(), attention->data.data(), attention->data.size());
    }
    return result;
}

} // namespace fathom::golden
