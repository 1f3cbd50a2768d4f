// Weights quantised while they are loaded: the same bits as from a checkpoint that holds what the quantised
// weights stand for.
#include "checkpoint/blocks.h"
#include "checkpoint/weight_format.h"
#include "session/help.h"

using namespace fathom;
using namespace fathom::session_test;

namespace {

struct Values { // of one tensor
    golden::Tensor tensor;
    std::vector<float> floats;
    bool matrix = false; // to be quantised
};

std::vector<Values> values_of(const std::string& name) {
    std::vector<Values> all;
    for (golden::Tensor& tensor : golden::tensors_of(golden::case_named(name))) {
        Values v{std::move(tensor), {}, false};
        v.floats.resize(v.tensor.data.size() / bytes_of(v.tensor.dtype));
        decode_blocks(v.tensor.dtype, v.tensor.data, v.floats);
        v.matrix = v.tensor.shape.size() == 2 && !v.tensor.name.ends_with(".mlp.gate.weight");
        all.push_back(std::move(v));
    }
    return all;
}

void set_tensor(golden::Tensor& tensor, DType dtype, std::span<const std::byte> data) {
    tensor.dtype = dtype;
    tensor.data.assign(data.begin(), data.end());
}

// `values` as they are after quantising to `wanted` and back.
std::vector<float> quantised(const std::vector<float>& values, uint64_t cols, DType wanted) {
    std::vector<float> again(values.size());
    if (wanted == DType::f8_e4m3) {
        std::vector<std::byte> codes(values.size());
        std::vector<float> scales((values.size() / cols + 127) / 128 * ((cols + 127) / 128));
        encode_fp8(values, cols, Fp8Scale::any, codes, scales);
        decode_fp8(codes, cols, scales, again);
        return again;
    }
    const DType dtype = block_fallback(wanted, cols);
    std::vector<std::byte> stored(values.size() / block_of(dtype) * bytes_of(dtype));
    encode_blocks(dtype, values, stored);
    decode_blocks(dtype, stored, again);
    return again;
}

std::vector<float> logits_of(const golden::Case& golden, const std::vector<golden::Tensor>& tensors,
                             const std::string& quantize) {
    const golden::ScratchFolder folder;
    std::filesystem::copy_file(golden.folder() / "config.json", folder.path() / "config.json");
    golden::write_weights(folder.path() / "model.safetensors", tensors);
    const ModelFiles files = open_model(folder.path());
    Engine engine(files, on_device({.quantize = quantize}));
    Session session = engine.open();
    return session.logits(prompt(9));
}

} // namespace

// v3_base has q-LoRA, and rows of 32, 40, 48, 64 and 120 weights: whole blocks of 32, and none; no K block.
TEST_CASE("weights quantised at load are those that were quantised before") {
    const golden::Case golden = golden::case_named("v3_base");
    std::vector<golden::Tensor> stored;
    for (const Values& v : values_of(golden.name)) stored.push_back(v.tensor);
    for (const auto& [name, wanted] : {std::pair{"q8_0", DType::q8_0}, std::pair{"q4_k", DType::q4_k},
                                       std::pair{"fp8", DType::f8_e4m3}, std::pair{"bf16", DType::bf16}}) {
        CAPTURE(name);
        std::vector<golden::Tensor> before;
        for (Values& v : values_of(golden.name)) {
            const auto floats = v.matrix ? quantised(v.floats, v.tensor.shape.back(), wanted) : v.floats;
            set_tensor(v.tensor, DType::f32, std::as_bytes(std::span(floats)));
            before.push_back(std::move(v.tensor));
        }
        // Kernels scale the sum of a span, not every weight: equal but for rounding.
        CHECK(nmse(logits_of(golden, stored, name), logits_of(golden, before, "")) < 1e-12);
    }
}

TEST_CASE("FP8 weights are quantised from their values") {
    const golden::Case golden = golden::case_named("v3_base");
    std::vector<golden::Tensor> fp8, plain;
    for (Values& v : values_of(golden.name)) {
        if (v.matrix) {
            const uint64_t cols = v.tensor.shape.back(), rows = v.tensor.shape.front();
            std::vector<std::byte> codes(v.floats.size());
            std::vector<float> scales((rows + 127) / 128 * ((cols + 127) / 128));
            encode_fp8(v.floats, cols, Fp8Scale::any, codes, scales);
            decode_fp8(codes, cols, scales, v.floats);
            golden::Tensor scale{
                v.tensor.name + "_scale_inv", DType::f32, {(rows + 127) / 128, (cols + 127) / 128}, {}};
            set_tensor(scale, DType::f32, std::as_bytes(std::span(scales)));
            fp8.push_back({v.tensor.name, DType::f8_e4m3, v.tensor.shape, std::move(codes)});
            fp8.push_back(std::move(scale));
        } else {
            fp8.push_back(v.tensor);
        }
        set_tensor(v.tensor, DType::f32, std::as_bytes(std::span(v.floats)));
        plain.push_back(std::move(v.tensor));
    }
    CHECK(bits(logits_of(golden, fp8, "q5_0")) == bits(logits_of(golden, plain, "q5_0")));
}

TEST_CASE("what cannot be quantised is named") {
    const golden::Case golden = golden::case_named("v3_base");
    CHECK_ERROR("no such weight format", logits_of(golden, golden::tensors_of(golden), "q7"));
    auto values = values_of(golden.name);
    std::vector<golden::Tensor> tensors;
    for (Values& v : values) {
        if (v.tensor.name.ends_with("layers.1.self_attn.o_proj.weight")) {
            v.floats[3 * v.tensor.shape.back() + 5] = INFINITY;
            set_tensor(v.tensor, DType::f32, std::as_bytes(std::span(v.floats)));
        }
        tensors.push_back(v.tensor);
    }
    CHECK_ERROR("layers.1.self_attn.o_proj.weight, row 3, column 5", logits_of(golden, tensors, "q8_0"));
}
