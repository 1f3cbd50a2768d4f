// A model written as GGUF computes what its folder does: kv_b split and turned, experts stacked, rotary
// halves put beside each other, FP8 multiplied by its scales; and the same again from that GGUF in another
// format.
#include "checkpoint/gguf.h"
#include "model/gguf_export.h"
#include "session/help.h"

#include <fstream>
#include <nlohmann/json.hpp>

using namespace fathom;
using namespace fathom::session_test;

namespace {

namespace fs = std::filesystem;

// A golden case as a folder with a tokenizer of one token, which is all that a GGUF needs.
struct Folder {
    explicit Folder(const std::string& name) {
        golden::write_checkpoint(golden::case_named(name), scratch.path());
        auto tokenizer = nlohmann::json::parse(
            golden::read_text(fs::path(FATHOM_SOURCE_DIR) / "models/tiny/tokenizer.json"));
        tokenizer["model"]["vocab"] = {{"!", 5}};
        tokenizer["model"]["merges"] = tokenizer["added_tokens"] = nlohmann::json::array();
        std::ofstream(scratch.path() / "tokenizer.json") << tokenizer;
    }
    fs::path operator/(const char* name) const { return scratch.path() / name; }
    golden::ScratchFolder scratch;
};

std::vector<float> logits_of(const fs::path& path) {
    const auto engine = std::make_unique<Engine>(open_model(path), on_device());
    Session session = engine->open();
    return session.logits(prompt(20, 3, engine->config().vocab_size));
}

} // namespace

TEST_CASE("a GGUF computes what the folder does" * doctest::test_suite("long")) {
    for (const char* name : {"v1_plain", "v3_base", "v3_half_split", "v2_groups", "v3_fp8"}) {
        CAPTURE(name);
        const Folder folder(name);
        const fs::path whole = folder / "f32.gguf", small = folder / "bf16.gguf",
                       again = folder / "again.gguf";
        export_gguf(open_model(folder.scratch.path()), whole, DType::f32, {});
        const auto should = logits_of(folder.scratch.path());
        CHECK(nmse(logits_of(whole), should) < 1e-10); // sums in another order
        export_gguf(open_model(whole), small, DType::bf16, {});
        export_gguf(open_model(small), again, DType::f32, {});
        CHECK(nmse(logits_of(again), logits_of(small)) < 1e-10);
        ModelConfig config = model_config(open_model(whole)),
                    told = model_config(open_model(folder.scratch.path()));
        told.rope_interleaved = true;
        told.fp8_block = 0;
        CHECK(config == told);
    }
}

TEST_CASE("what GGUF cannot say is an error that leaves no file") {
    for (const auto& [name, word] :
         {std::pair("v3_mscale", "mscale"), std::pair("v3_moe_layer_freq", "every 2"),
          std::pair("v1_norm_long", "norm_topk_prob")}) {
        const Folder folder(name);
        std::string message;
        try {
            export_gguf(open_model(folder.scratch.path()), folder / "x.gguf", DType::f32, {});
        } catch (const Error& error) {
            message = error.what();
        }
        CHECK_MESSAGE(message.find(word) != std::string::npos, message);
        CHECK(!fs::exists(folder / "x.gguf"));
    }
}

TEST_CASE("formats of exported tensors") {
    const auto dtype = [](const char* name, std::vector<uint64_t> shape, DType wanted) {
        return exported_dtype(name, shape, wanted);
    };
    CHECK(dtype("blk.0.attn_norm.weight", {256}, DType::q4_0) == DType::f32);
    CHECK(dtype("blk.0.exp_probs_b.bias", {64}, DType::bf16) == DType::f32);
    CHECK(dtype("blk.0.ffn_gate_inp.weight", {64, 256}, DType::q4_0) == DType::f32);
    CHECK(dtype("blk.0.attn_output.weight", {256, 256}, DType::q4_k) == DType::q4_k);
    CHECK(dtype("output.weight", {512, 256}, DType::q4_k) == DType::q6_k);
    CHECK(dtype("output.weight", {512, 64}, DType::q4_0) == DType::q8_0);
    CHECK(dtype("output.weight", {512, 256}, DType::q8_0) == DType::q8_0);
    CHECK(dtype("output.weight", {512, 256}, DType::f16) == DType::f16);
    CHECK(dtype("token_embd.weight", {512, 256}, DType::q4_k) == DType::q4_k);
    CHECK(dtype("blk.0.ffn_down_exps.weight", {64, 2048, 1408}, DType::q4_k) == DType::q5_0);
    CHECK(dtype("blk.0.attn_k_b.weight", {16, 512, 128}, DType::q6_k) == DType::q8_0);
    CHECK(dtype("blk.0.attn_k_b.weight", {16, 512, 24}, DType::q4_0) == DType::f16);
    CHECK(dtype("blk.0.ffn_up_exps.weight", {64, 1408, 2048}, DType::mxfp4) == DType::mxfp4);
    CHECK(dtype("blk.0.ffn_up.weight", {1408, 2048}, DType::mxfp4) == DType::q8_0);
}
