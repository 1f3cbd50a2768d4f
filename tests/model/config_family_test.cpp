// config.json of the whole family: the published files, what differs from class to class, FP8. What is read
// of one file and what is refused: config_test.cpp.
#include "base/error.h"
#include "model/config.h"

#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

using namespace fathom;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

bool have_configs() {
    const fs::path folder = fs::path(FATHOM_SHARED_DIR) / "data/configs/hf";
    if (!fs::exists(folder)) MESSAGE("SKIPPED: no " << folder.string() << "; this test proves nothing here");
    return fs::exists(folder);
}

std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    REQUIRE_MESSAGE(file.good(), path.string());
    return {std::istreambuf_iterator<char>(file), {}};
}

ModelConfig parse(const json& config) { return parse_config(config.dump(), "config.json"); }

std::string refusal(const json& config) {
    try {
        parse(config);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}
bool names(const json& config, const std::string& part) {
    return refusal(config).find(part) != std::string::npos;
}

// deepseek-moe-16b: the keys of its class's configuration, with its values.
const json moe_16b = json::parse(R"({"architectures": ["DeepseekForCausalLM"], "model_type": "deepseek",
  "attention_bias": false, "bos_token_id": 100000, "eos_token_id": 100001, "first_k_dense_replace": 1,
  "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 10944, "max_position_embeddings": 4096,
  "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_routed_experts": 64, "n_shared_experts": 2,
  "norm_topk_prob": false, "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 28,
  "num_key_value_heads": 16, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000,
  "scoring_func": "softmax", "tie_word_embeddings": false, "vocab_size": 102400})");

// GLM-4.7-Flash, in its authors' dialect.
const json glm = json::parse(R"({"architectures": ["Glm4MoeLiteForCausalLM"], "model_type": "glm4_moe_lite",
  "attention_bias": false, "eos_token_id": [154820, 154827, 154829], "first_k_dense_replace": 1,
  "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 10240, "kv_lora_rank": 512,
  "max_position_embeddings": 202752, "moe_intermediate_size": 1536, "n_group": 1, "n_routed_experts": 64,
  "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 20, "num_experts_per_tok": 4,
  "num_hidden_layers": 47, "num_key_value_heads": 20, "num_nextn_predict_layers": 1,
  "partial_rotary_factor": 1.0, "q_lora_rank": 768, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64,
  "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 1000000, "routed_scaling_factor": 1.8,
  "tie_word_embeddings": false, "topk_group": 1, "topk_method": "noaux_tc", "v_head_dim": 256,
  "vocab_size": 154880})");

// Moonlight-16B-A3B.
const json moonlight = json::parse(R"({"architectures": ["DeepseekV3ForCausalLM"],
  "model_type": "deepseek_v3", "attention_bias": false, "bos_token_id": 163584, "eos_token_id": 163586,
  "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 11264,
  "kv_lora_rank": 512, "max_position_embeddings": 8192, "moe_intermediate_size": 1408, "moe_layer_freq": 1,
  "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": true,
  "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16,
  "num_nextn_predict_layers": 0, "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 50000.0, "routed_scaling_factor": 2.446,
  "scoring_func": "sigmoid", "tie_word_embeddings": false, "topk_group": 1, "topk_method": "noaux_tc",
  "v_head_dim": 128, "vocab_size": 163840})");

json with(json config, const char* key, const json& value) {
    config[key] = value;
    return config;
}

} // namespace

TEST_CASE("config: DeepseekForCausalLM has plain attention and a greedy softmax router") {
    const ModelConfig c = parse(moe_16b);
    CHECK((c.architecture == Architecture::deepseek && !c.is_mla() && c.n_heads == 16));
    CHECK((c.qk_nope_head_dim == 0 && c.qk_rope_head_dim == 128 && c.v_head_dim == 128));
    CHECK((!c.rope_interleaved && c.qk_head_dim() == 128 && c.cache_dim() == 4096));
    CHECK((c.scoring == Scoring::softmax && c.topk_method == TopkMethod::greedy && !c.norm_topk_prob));
    CHECK((c.routed_scaling_factor == 1 && c.n_shared_experts == 2 && c.first_moe_layer == 1));
    CHECK(std::abs(c.softmax_scale() - 0.0883883) < 1e-7);
    CHECK(parse(with(moe_16b, "norm_topk_prob", true)).norm_topk_prob);
    CHECK(names(with(moe_16b, "num_key_value_heads", 4), "num_key_value_heads"));
    CHECK(names(with(moe_16b, "num_attention_heads", 48), "num_attention_heads"));
    CHECK(names(with(moe_16b, "num_attention_heads", 2048), "num_attention_heads"));
    CHECK(names(with(moe_16b, "kv_lora_rank", 512), "kv_lora_rank"));
    CHECK(names(with(moe_16b, "scoring_func", "sigmoid"), "sigmoid"));
    CHECK(names(with(moe_16b, "topk_method", "noaux_tc"), "noaux_tc"));
    CHECK(names(with(moe_16b, "routed_scaling_factor", 2), "routed_scaling_factor"));
    CHECK(names(with(moe_16b, "use_mla", true), "use_mla"));
    CHECK(names(with(moe_16b, "rope_scaling", {{"type", "linear"}, {"factor", 4}}), "rope_scaling.type"));
    CHECK(names(with(moe_16b, "rope_scaling",
                     {{"type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 4096}}),
                "rope_scaling"));
}

TEST_CASE("config: GLM-4.7-Flash in both dialects") {
    const ModelConfig c = parse(glm);
    CHECK((c.architecture == Architecture::glm4_moe_lite && c.is_mla() && c.q_lora_rank == 768));
    CHECK((c.qk_nope_head_dim == 192 && c.qk_head_dim() == 256 && c.v_head_dim == 256));
    CHECK((c.scoring == Scoring::sigmoid && c.topk_method == TopkMethod::noaux_tc && c.n_groups == 1));
    CHECK((c.norm_topk_prob && c.routed_scaling_factor == 1.8 && c.rope_interleaved && c.eos.size() == 3));
    CHECK((c.rms_norm_eps == 1e-5 && c.latent_norm_eps == 1e-6 && c.n_mtp_layers == 1));
    json saved = glm; // as transformers 5 saves it, but for the MTP layer that it drops
    for (const char* key :
         {"first_k_dense_replace", "topk_method", "rope_scaling", "rope_theta", "partial_rotary_factor"})
        saved.erase(key);
    saved["rope_parameters"] = {
        {"rope_type", "default"}, {"rope_theta", 1000000.0}, {"partial_rotary_factor", 1.0}};
    saved["rope_interleave"] = true;
    json types = json::array({"dense"});
    while (types.size() < 47) types.push_back("sparse");
    saved["mlp_layer_types"] = types;
    CHECK(parse(saved) == c);
    types[1] = "dense";
    CHECK(parse(with(saved, "mlp_layer_types", types)).first_moe_layer == 2);
    CHECK(names(with(with(saved, "mlp_layer_types", types), "first_k_dense_replace", 1),
                "first_k_dense_replace"));
    types[9] = "dense";
    CHECK(names(with(saved, "mlp_layer_types", types), "mlp_layer_types"));
    types[1] = types[9] = "other";
    CHECK(names(with(saved, "mlp_layer_types", types), "mlp_layer_types"));
    CHECK(names(with(saved, "mlp_layer_types", json::array({"dense"})), "mlp_layer_types"));
    CHECK(names(with(glm, "first_k_dense_replace", 2), "first_k_dense_replace")); // transformers ignores it
    CHECK(names(with(glm, "scoring_func", "softmax"), "softmax"));
}

TEST_CASE("config: Moonlight is of V3's class, without groups and q-LoRA") {
    const ModelConfig c = parse(moonlight);
    CHECK((c.architecture == Architecture::deepseek_v3 && c.q_lora_rank == 0 && c.n_groups == 1));
    CHECK((c.scoring == Scoring::sigmoid && c.routed_scaling_factor == 2.446 && c.yarn == Yarn{}));
    CHECK((c.rms_norm_eps == 1e-5 && c.latent_norm_eps == 1e-6)); // its norms of ranks keep their class's eps
}

TEST_CASE("config: FP8 in blocks") {
    const json block = json::parse(R"({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                       "weight_block_size": [128, 128]})");
    CHECK(parse(moonlight).fp8_block == 0);
    CHECK(parse(with(moonlight, "quantization_config", nullptr)).fp8_block == 0);
    CHECK(parse(with(moonlight, "quantization_config", block)).fp8_block == 128);
    CHECK(parse(with(moonlight, "quantization_config", with(block, "scale_fmt", "ue8m0"))).fp8_block == 128);
    for (const char* key : {"quant_method", "fmt", "activation_scheme", "weight_block_size"}) {
        json less = block;
        less.erase(key);
        CHECK(names(with(moonlight, "quantization_config", less), std::string("quantization_config.") + key));
    }
    const json int4 = {{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"}};
    CHECK(names(with(moonlight, "quantization_config", int4), "compressed-tensors"));
}

TEST_CASE("config: published files are read, or refused by name") {
    if (!have_configs()) return;
    const std::map<std::string, std::string> refused = {
        // file: what the message names
        {"DeepSeek-V3", ""},
        {"DeepSeek-R1", ""},
        {"Kimi-K2-Instruct", ""},
        {"Kimi-K2.rtp-llm-test", ""},
        {"DeepSeek-V3.infersim", "n_routed_experts"},
        {"DeepSeek-V3.2", "DeepseekV32ForCausalLM"},
        {"DeepSeek-V4-Flash", "DeepseekV4ForCausalLM"},
        {"DeepSeek-V4-Pro", "DeepseekV4ForCausalLM"},
        {"DeepSeek-V4-Pro.modelrepo", "DeepseekV4ForCausalLM"},
        {"DeepSeek-OCR-2", "DeepseekOCR2ForCausalLM"},
        {"Kimi-K2.5", "KimiK25ForConditionalGeneration"},
        {"DeepSeek-V2-Lite", ""},
        {"DeepSeek-V3.1-NVFP4", ""}};
    size_t seen = 0;
    for (const auto& entry : fs::directory_iterator(fs::path(FATHOM_SHARED_DIR) / "data/configs/hf")) {
        const std::string name = entry.path().filename().string();
        INFO(name);
        const std::string message = refusal(json::parse(read(entry.path())));
        if (!name.ends_with(".config.json")) { // not of models: generation_config, hf_quant_config
            CHECK(message.find("architectures") != std::string::npos);
            continue;
        }
        const std::string model = name.substr(0, name.find(".config.json"));
        REQUIRE(refused.contains(model));
        const std::string& expected = refused.at(model);
        CHECK(message.empty() == expected.empty());
        CHECK(message.find(expected) != std::string::npos);
        ++seen;
    }
    CHECK(seen == refused.size());
    // The dialect of DeepSeek's own inference code has no architecture: never half understood.
    for (const auto& entry : fs::directory_iterator(fs::path(FATHOM_SHARED_DIR) / "data/configs/inference"))
        CHECK(names(json::parse(read(entry.path())), "architectures"));
}

TEST_CASE("config: values of DeepSeek-V2-Lite, V3 and Kimi-K2") {
    if (!have_configs()) return;
    const auto of = [](const std::string& name) {
        const fs::path path = fs::path(FATHOM_SHARED_DIR) / "data/configs/hf" / (name + ".config.json");
        return parse_config(read(path), name);
    };
    const auto shape = [](const ModelConfig& c) {
        return std::vector<uint32_t>{c.vocab_size,       c.dim,
                                     c.n_layers,         c.n_mtp_layers,
                                     c.n_heads,          c.q_lora_rank,
                                     c.kv_lora_rank,     c.qk_nope_head_dim,
                                     c.qk_rope_head_dim, c.v_head_dim,
                                     c.dense_dim,        c.expert_dim,
                                     c.n_routed_experts, c.n_shared_experts,
                                     c.n_active_experts, c.n_groups,
                                     c.n_active_groups,  c.first_moe_layer,
                                     c.moe_layer_freq,   c.max_position};
    };
    const ModelConfig lite = of("DeepSeek-V2-Lite"), v3 = of("DeepSeek-V3"), kimi = of("Kimi-K2-Instruct");
    CHECK(shape(lite) == std::vector<uint32_t>{102400, 2048, 27, 0, 16, 0, 512, 128, 64, 128,
                                               10944,  1408, 64, 2, 6,  1, 1,   1,   1,  163840});
    CHECK(shape(v3) == std::vector<uint32_t>{129280, 7168, 61,  1, 128, 1536, 512, 128, 64, 128,
                                             18432,  2048, 256, 1, 8,   8,    4,   3,   1,  163840});
    CHECK(shape(kimi) == std::vector<uint32_t>{163840, 7168, 61,  0, 64, 1536, 512, 128, 64, 128,
                                               18432,  2048, 384, 1, 8,  1,    1,   1,   1,  131072});
    CHECK((lite.architecture == Architecture::deepseek_v2 && lite.scoring == Scoring::softmax));
    CHECK(
        (lite.topk_method == TopkMethod::greedy && !lite.norm_topk_prob && lite.routed_scaling_factor == 1));
    CHECK((v3.scoring == Scoring::sigmoid && v3.topk_method == TopkMethod::noaux_tc && v3.norm_topk_prob));
    CHECK((v3.routed_scaling_factor == 2.5 && kimi.routed_scaling_factor == 2.827 && kimi.norm_topk_prob));
    CHECK((lite.yarn == Yarn{40, 4096, 32, 1, 0.707, 0.707} && v3.yarn == Yarn{40, 4096, 32, 1, 1, 1}));
    CHECK((kimi.yarn == Yarn{32, 4096, 1, 1, 1, 1} && kimi.rope_theta == 50000 && v3.rope_theta == 10000));
    CHECK((lite.rms_norm_eps == 1e-6 && v3.rms_norm_eps == 1e-6 && kimi.rms_norm_eps == 1e-6));
    CHECK((lite.bos == std::vector<uint32_t>{100000} && lite.eos == std::vector<uint32_t>{100001}));
    CHECK((v3.bos == std::vector<uint32_t>{0} && kimi.eos == std::vector<uint32_t>{163585}));
    CHECK(of("DeepSeek-R1") == v3);
    CHECK((lite.fp8_block == 0 && v3.fp8_block == 128 && kimi.fp8_block == 128));
    ModelConfig unquantised = v3;
    unquantised.fp8_block = 0;
    CHECK(of("DeepSeek-V3.1-NVFP4") == unquantised); // its tensors are refused later, by their dtypes
    CHECK_THROWS_WITH_AS(of("DeepSeek-V3.infersim"), doctest::Contains("n_routed_experts"), Error);
}
