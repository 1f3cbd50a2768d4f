// The keys of a GGUF; see gguf_keys.h. They are the ones that config_gguf.cpp reads.
#include "model/gguf_keys.h"

#include "base/error.h"
#include "base/json.h"
#include "text/vocabulary_export.h"

#include <fmt/format.h>

namespace fathom {

namespace {

// How llama.cpp numbers files by what most of their tensors are; for people only.
struct FileType {
    DType dtype;
    uint32_t number;
};
constexpr FileType file_types[] = {
    {DType::f32, 0},     {DType::f16, 1},     {DType::q4_0, 2},  {DType::q4_1, 3},
    {DType::q8_0, 7},    {DType::q5_0, 8},    {DType::q5_1, 9},  {DType::q2_k, 10},
    {DType::q3_k, 12},   {DType::q4_k, 15},   {DType::q5_k, 17}, {DType::q6_k, 18},
    {DType::iq4_nl, 25}, {DType::iq4_xs, 30}, {DType::bf16, 32}, {DType::mxfp4, 38},
};

void write_file_type(DType wanted, GgufWriter& writer) {
    for (const FileType& type : file_types)
        if (type.dtype == wanted) writer.whole("general.file_type", type.number);
    writer.whole("general.quantization_version", 2);
}

[[noreturn]] void cannot_say(const ModelFiles& files, std::string what, std::string got) {
    throw Error({.what = "a model that GGUF cannot describe",
                 .where = files.config_where,
                 .expected = std::move(what),
                 .got = std::move(got)});
}

void write_yarn(const ModelFiles& files, const Yarn& yarn, const std::string& p, GgufWriter& writer) {
    if (yarn.factor == 0) return;
    if (yarn.mscale != yarn.mscale_all_dim)
        cannot_say(files, "mscale and mscale_all_dim alike",
                   fmt::format("{} and {}", yarn.mscale, yarn.mscale_all_dim));
    writer.text(p + "rope.scaling.type", "yarn");
    writer.number(p + "rope.scaling.factor", yarn.factor);
    writer.whole(p + "rope.scaling.original_context_length", yarn.original_max_position);
    writer.number(p + "rope.scaling.yarn_log_multiplier", 0.1 * yarn.mscale_all_dim);
    writer.number(p + "rope.scaling.yarn_beta_fast", yarn.beta_fast);
    writer.number(p + "rope.scaling.yarn_beta_slow", yarn.beta_slow);
}

void write_attention(const ModelConfig& c, const std::string& p, GgufWriter& writer) {
    writer.whole(p + "attention.head_count", c.n_heads);
    writer.whole(p + "attention.head_count_kv", c.is_mla() ? 1 : c.n_heads);
    writer.number(p + "attention.layer_norm_rms_epsilon", c.rms_norm_eps);
    writer.whole(p + "rope.dimension_count", c.qk_rope_head_dim);
    writer.number(p + "rope.freq_base", c.rope_theta);
    if (!c.is_mla()) return;
    if (c.q_lora_rank) writer.whole(p + "attention.q_lora_rank", c.q_lora_rank);
    writer.whole(p + "attention.kv_lora_rank", c.kv_lora_rank);
    writer.whole(p + "attention.key_length", c.latent_dim());
    writer.whole(p + "attention.value_length", c.kv_lora_rank);
    writer.whole(p + "attention.key_length_mla", c.qk_head_dim());
    writer.whole(p + "attention.value_length_mla", c.v_head_dim);
}

void write_experts(const ModelConfig& c, const std::string& p, GgufWriter& writer) {
    writer.whole(p + "leading_dense_block_count", c.n_routed_experts ? c.first_moe_layer : c.n_layers);
    writer.whole(p + "expert_count", c.n_routed_experts);
    writer.whole(p + "expert_used_count", c.n_active_experts);
    writer.whole(p + "expert_gating_func", c.scoring == Scoring::sigmoid ? 2 : 1);
    if (c.n_routed_experts == 0) return;
    writer.whole(p + "expert_feed_forward_length", c.expert_dim);
    writer.whole(p + "expert_shared_count", c.n_shared_experts);
    writer.number(p + "expert_weights_scale", c.routed_scaling_factor);
    writer.flag(p + "expert_weights_norm", c.norm_topk_prob);
    if (c.n_groups == 1) return;
    writer.whole(p + "expert_group_count", c.n_groups);
    writer.whole(p + "expert_group_used_count", c.n_active_groups);
}

// The Jinja text in a file of its own, or in tokenizer_config.json: alone, or the default one of several.
std::string chat_template(const ModelFiles& files) {
    if (!files.chat_template.empty() || files.tokenizer_config.empty()) return files.chat_template;
    const auto config = parse_json(files.tokenizer_config, "tokenizer_config.json");
    if (!config.is_object() || !config.contains("chat_template")) return "";
    const auto& found = config["chat_template"];
    if (found.is_string()) return found;
    const auto is = [](const nlohmann::json& object, const char* key, const char* text) {
        return object.contains(key) && object[key].is_string() && (!text || object[key] == text);
    };
    if (found.is_array())
        for (const auto& one : found)
            if (one.is_object() && is(one, "name", "default") && is(one, "template", nullptr))
                return one["template"];
    return "";
}

void write_tokenizer(const ModelFiles& files, const ModelConfig& c, GgufWriter& writer) {
    if (files.tokenizer.empty())
        throw Error({.what = "the model has no tokenizer",
                     .where = files.tokenizer_where,
                     .expected = "a tokenizer.json or tiktoken.model, which becomes part of the file",
                     .fix = "put the tokenizer.json of the model beside its config.json"});
    const bool json = files.tokenizer.find_first_not_of(" \t\r\n") == files.tokenizer.find('{');
    const ExportedVocabulary vocabulary =
        export_vocabulary(json ? read_tokenizer_json(files.tokenizer, files.tokenizer_where)
                               : read_tiktoken(files.tokenizer, files.tokenizer_where, files.tokenizer_config,
                                               "tokenizer_config.json"),
                          c.vocab_size);
    const auto views = [](const std::vector<std::string>& texts) {
        return std::vector<std::string_view>(texts.begin(), texts.end());
    };
    writer.text("tokenizer.ggml.model", "gpt2");
    writer.text("tokenizer.ggml.pre", vocabulary.pre);
    writer.texts("tokenizer.ggml.tokens", views(vocabulary.tokens));
    writer.integers("tokenizer.ggml.token_type", vocabulary.types);
    writer.texts("tokenizer.ggml.merges", views(vocabulary.merges));
    if (!c.bos.empty()) writer.whole("tokenizer.ggml.bos_token_id", c.bos.front());
    writer.flag("tokenizer.ggml.add_bos_token", !c.bos.empty());
    constexpr const char* ends[] = {"eos", "eot", "eom"};
    if (c.eos.size() > std::size(ends))
        cannot_say(files, "at most three tokens that end a text", fmt::format("{}", c.eos.size()));
    for (size_t i = 0; i < c.eos.size(); ++i)
        writer.whole(fmt::format("tokenizer.ggml.{}_token_id", ends[i]), c.eos[i]);
    if (const std::string text = chat_template(files); !text.empty())
        writer.text("tokenizer.chat_template", text);
}

} // namespace

void write_keys(const ModelFiles& files, const ModelConfig& c, DType wanted, GgufWriter& writer) {
    if (c.moe_layer_freq != 1)
        cannot_say(files, "experts in every layer after the dense ones",
                   fmt::format("every {}", c.moe_layer_freq));
    if (!c.is_mla() && c.norm_topk_prob) // llama.cpp's deepseek never normalises
        cannot_say(files, "norm_topk_prob false, for DeepseekForCausalLM", "true");
    const std::string architecture = c.is_mla() ? "deepseek2" : "deepseek", p = architecture + ".";
    writer.text("general.architecture", architecture);
    writer.text("general.type", "model");
    writer.text("general.name", files.name);
    write_file_type(wanted, writer);
    writer.whole(p + "vocab_size", c.vocab_size);
    writer.whole(p + "context_length", c.max_position);
    writer.whole(p + "embedding_length", c.dim);
    writer.whole(p + "block_count", c.n_layers);
    writer.whole(p + "feed_forward_length", c.dense_dim);
    write_attention(c, p, writer);
    write_experts(c, p, writer);
    write_yarn(files, c.yarn, p, writer);
    write_tokenizer(files, c, writer);
}

void copy_keys(const Gguf& keys, DType wanted, GgufWriter& writer) {
    for (const auto& [name, value] : keys.keys()) {
        const bool storage = name == "general.file_type" || name == "general.quantization_version" ||
                             name == "general.alignment" || name.starts_with("split.");
        if (!storage) writer.copy(name, value);
    }
    write_file_type(wanted, writer);
}

} // namespace fathom
