// GGUF keys to ModelConfig: a V3 and a V2-Lite as llama.cpp's converter describes them, files of before the
// latent's own keys, and for every key what happens when it is missing or wrong. No device is needed.
#include "checkpoint/gguf.h"
#include "checkpoint/gguf_bytes.h"
#include "model/config.h"
#include "model/preset.h"

#include <functional>

using namespace fathom;
using help::GgufBytes;

namespace {

struct Key {
    std::string name;
    std::function<void(GgufBytes&, const std::string&)> write;
};
using Keys = std::vector<Key>;
Key whole(std::string name, uint32_t value) {
    return {std::move(name), [value](GgufBytes& file, const std::string& key) { file.u32(key, value); }};
}
Key number(std::string name, float value) {
    return {std::move(name), [value](GgufBytes& file, const std::string& key) { file.f32(key, value); }};
}
Key text(std::string name, std::string value) {
    return {std::move(name), [value](GgufBytes& file, const std::string& key) { file.text(key, value); }};
}
Key flag(std::string name, bool value) {
    return {std::move(name), [value](GgufBytes& file, const std::string& key) { file.flag(key, value); }};
}

// `keys` with those of `changes` put in their place or added, and `without` left out.
Keys with(Keys keys, const Keys& changes, const std::string& without = "") {
    for (const Key& change : changes) {
        std::erase_if(keys, [&](const Key& key) { return key.name == change.name; });
        keys.push_back(change);
    }
    std::erase_if(keys, [&](const Key& key) { return key.name == without; });
    return keys;
}

ModelConfig parse(const Keys& keys, const std::string& architecture = "deepseek2") {
    GgufBytes file;
    file.text("general.architecture", architecture);
    for (const Key& key : keys)
        key.write(file, key.name.starts_with("tokenizer.") ? key.name : architecture + "." + key.name);
    const help::Bytes bytes = help::bytes_of(file.bytes());
    return parse_config(parse_gguf(bytes, "f.gguf").keys);
}
std::string refusal(const Keys& keys) {
    return help::error_of([&] { parse(keys); });
}

// What V2-Lite and moe-16b have alike.
const Keys first_models = {whole("vocab_size", 102400),
                           whole("embedding_length", 2048),
                           whole("feed_forward_length", 10944),
                           whole("leading_dense_block_count", 1),
                           whole("expert_feed_forward_length", 1408),
                           whole("expert_count", 64),
                           whole("expert_used_count", 6),
                           whole("expert_shared_count", 2),
                           number("expert_weights_scale", 1),
                           whole("attention.head_count", 16),
                           number("attention.layer_norm_rms_epsilon", 1e-6f),
                           number("rope.freq_base", 10000),
                           whole("tokenizer.ggml.bos_token_id", 100000),
                           whole("tokenizer.ggml.eos_token_id", 100001)};
// gguf.md's figures, with what llama.cpp's converter repeats.
const Keys moe_16b =
    with(first_models, {whole("context_length", 4096), whole("block_count", 28),
                        whole("attention.head_count_kv", 16), whole("rope.dimension_count", 128)});
// deepseek.md's and gguf.md's figures; both published models have YaRN 40x from 4096.
const Keys v2_lite = with(
    first_models, {whole("context_length", 163840), whole("block_count", 27),
                   whole("attention.head_count_kv", 1), whole("attention.kv_lora_rank", 512),
                   whole("attention.key_length", 576), whole("attention.value_length", 512),
                   whole("attention.key_length_mla", 192), whole("attention.value_length_mla", 128),
                   whole("rope.dimension_count", 64), text("rope.scaling.type", "yarn"),
                   number("rope.scaling.factor", 40), whole("rope.scaling.original_context_length", 4096),
                   number("rope.scaling.yarn_log_multiplier", 0.0707f)});
const Keys v3 = with(v2_lite, {whole("vocab_size", 129280),
                               whole("embedding_length", 7168),
                               whole("block_count", 62),
                               whole("nextn_predict_layers", 1),
                               whole("feed_forward_length", 18432),
                               whole("leading_dense_block_count", 3),
                               whole("expert_feed_forward_length", 2048),
                               whole("expert_count", 256),
                               whole("expert_used_count", 8),
                               whole("expert_shared_count", 1),
                               number("expert_weights_scale", 2.5f),
                               flag("expert_weights_norm", true),
                               whole("expert_gating_func", 2),
                               whole("expert_group_count", 8),
                               whole("expert_group_used_count", 4),
                               whole("attention.head_count", 128),
                               whole("attention.q_lora_rank", 1536),
                               number("rope.scaling.yarn_log_multiplier", 0.1f),
                               whole("tokenizer.ggml.bos_token_id", 0),
                               whole("tokenizer.ggml.eos_token_id", 1),
                               whole("tokenizer.ggml.eot_token_id", 7)});

} // namespace

TEST_CASE("config of GGUF: the published shapes") {
    ModelConfig lite = parse(v2_lite);
    CHECK((lite.architecture == Architecture::deepseek_v2 && lite.scoring == Scoring::softmax));
    CHECK(
        (lite.topk_method == TopkMethod::greedy && !lite.norm_topk_prob && lite.routed_scaling_factor == 1));
    CHECK((lite.qk_nope_head_dim == 128 && lite.qk_rope_head_dim == 64 && lite.v_head_dim == 128));
    CHECK((lite.q_lora_rank == 0 && lite.kv_lora_rank == 512 && lite.n_layers == 27));
    CHECK((lite.rms_norm_eps == 1e-6 && lite.latent_norm_eps == 1e-6 && lite.rope_interleaved));
    CHECK(lite.yarn == Yarn{40, 4096, 32, 1, 0.707, 0.707});
    CHECK(lite.softmax_scale() == doctest::Approx(0.114721).epsilon(1e-5));
    const ModelConfig big = parse(v3);
    CHECK((big.architecture == Architecture::deepseek_v3 && big.topk_method == TopkMethod::noaux_tc));
    CHECK((big.n_layers == 61 && big.n_mtp_layers == 1 && big.first_moe_layer == 3));
    CHECK((big.n_groups == 8 && big.n_active_groups == 4 && big.norm_topk_prob));
    CHECK((big.routed_scaling_factor == 2.5 && big.yarn.mscale_all_dim == 1));
    CHECK((big.bos == std::vector<uint32_t>{0} && big.eos == std::vector<uint32_t>{1, 7}));
    CHECK(rope_frequencies(big).factor == 1);
    const ModelConfig grouped =
        parse(with(v3, {whole("expert_gating_func", 1), flag("expert_weights_norm", false)}));
    CHECK(grouped.topk_method == TopkMethod::group_limited_greedy);
    // Before the keys of the latent, the plain ones said what a head has.
    const ModelConfig old =
        parse(with(with(v2_lite,
                        {whole("attention.key_length", 192), whole("attention.value_length", 128),
                         whole("attention.head_count_kv", 16)},
                        "attention.key_length_mla"),
                   {}, "attention.value_length_mla"));
    CHECK(old == lite);
    const ModelConfig plain =
        parse(with(v2_lite, {text("rope.scaling.type", "none"), number("rope.scaling.factor", 1)}));
    CHECK(plain.yarn == Yarn{});
    const ModelConfig glm = parse(with(v2_lite, {whole("block_count", 47), whole("vocab_size", 154880)}));
    CHECK(glm.scoring == Scoring::sigmoid); // early files of GLM-4.7-Flash, without expert_gating_func
    CHECK(parse(with(v2_lite, {number("expert_weights_scale", 2.446f)})).routed_scaling_factor == 2.446);
}

TEST_CASE("config of GGUF: plain attention") {
    ModelConfig published = find_preset("moe-16b")->config;
    published.rope_interleaved = true; // as rows of GGUF's q and k are
    published.bos = {100000};
    published.eos = {100001};
    CHECK(parse(moe_16b, "deepseek") == published);
    CHECK(parse(with(moe_16b, {}, "rope.dimension_count"), "deepseek") == published);
    for (const Key& key : {whole("attention.head_count", 15), whole("attention.head_count_kv", 4),
                           whole("attention.key_length", 64), whole("rope.dimension_count", 64),
                           whole("expert_gating_func", 2), whole("expert_group_count", 8),
                           flag("expert_weights_norm", true), number("expert_weights_scale", 2),
                           text("rope.scaling.type", "yarn"), whole("nextn_predict_layers", 1)}) {
        CAPTURE(key.name);
        const std::string error = help::error_of([&] {
            parse(with(moe_16b,
                       {key, number("rope.scaling.factor", 40), number("rope.scaling.yarn_log_multiplier", 0),
                        whole("rope.scaling.original_context_length", 4096)}),
                  "deepseek");
        });
        CHECK(error.find("deepseek." + key.name) != error.npos);
    }
}

TEST_CASE("config of GGUF: every key that must be there") {
    for (const char* name :
         {"context_length", "embedding_length", "block_count", "feed_forward_length",
          "leading_dense_block_count", "expert_feed_forward_length", "expert_used_count",
          "expert_group_used_count", "attention.head_count", "attention.layer_norm_rms_epsilon",
          "attention.kv_lora_rank", "attention.key_length_mla", "attention.value_length_mla",
          "rope.dimension_count", "rope.freq_base", "rope.scaling.factor",
          "rope.scaling.original_context_length", "rope.scaling.yarn_log_multiplier"}) {
        CAPTURE(name);
        CHECK(refusal(with(v3, {}, name)).find(std::string("missing: f.gguf: deepseek2.") + name) !=
              std::string::npos);
    }
    CHECK(refusal(with(v3, {}, "vocab_size")).find("tokenizer.ggml.tokens") != std::string::npos);
    CHECK(help::error_of([] { parse(v3, "llama"); }).find("general.architecture") != std::string::npos);
}

TEST_CASE("config of GGUF: what cannot be run is named with its value") {
    const Keys wrong = {whole("embedding_length", 0),
                        whole("embedding_length", 1u << 21),
                        whole("block_count", UINT32_MAX),
                        whole("nextn_predict_layers", 62),
                        whole("leading_dense_block_count", 62),
                        whole("expert_count", 255),
                        whole("expert_used_count", 257),
                        whole("expert_used_count", 129),
                        whole("expert_group_count", 7),
                        whole("expert_group_used_count", 9),
                        whole("expert_gating_func", 3),
                        number("expert_weights_scale", 0),
                        number("attention.layer_norm_rms_epsilon", 0),
                        whole("attention.key_length", 192),
                        whole("attention.value_length", 128),
                        whole("attention.head_count_kv", 128),
                        whole("attention.key_length_mla", 64),
                        whole("rope.dimension_count", 63),
                        number("rope.freq_base", 0.5f),
                        text("rope.scaling.type", "linear"),
                        number("rope.scaling.factor", 0.5f),
                        number("rope.scaling.attn_factor", 2),
                        number("rope.scaling.yarn_log_multiplier", -1),
                        whole("attention.sliding_window", 4096),
                        number("attention.temperature_scale", 0.1f),
                        whole("attention.indexer.top_k", 2048),
                        text("attention.head_count", "many"),
                        whole("tokenizer.ggml.eos_token_id", 129280)};
    for (const Key& key : wrong) {
        CAPTURE(key.name);
        const std::string message = refusal(with(v3, {key}));
        const bool named = message.find(key.name) != std::string::npos || key.name == "expert_count";
        CHECK((!message.empty() && named));
    }
    CHECK(refusal(with(v2_lite, {flag("expert_weights_norm", true), number("expert_weights_scale", 16)})) !=
          "");
    CHECK(refusal(with(v2_lite, {text("rope.scaling.type", "none")})).find("rope.scaling.factor") !=
          std::string::npos);
}

TEST_CASE("config of GGUF: a number too small for a normal double is read like any other") {
    const Key eps = {"attention.layer_norm_rms_epsilon",
                     [](GgufBytes& file, const std::string& key) { file.key(key, 12, help::raw(1e-310)); }};
    CHECK(parse(with(v2_lite, {eps})).rms_norm_eps == 1e-310);
}
