// The keys of a GGUF file to ModelConfig: llama.cpp's architectures deepseek (deepseek-moe-16b, with plain
// attention) and deepseek2 (every model with MLA: V2, V3 and their relatives). The keys of the latter say
// little of what the model was trained as, so the router decides which of our architectures it is: sigmoid
// scores are V3's, softmax scores V2's. Facts: what llama.cpp's converter writes and its loader reads. Other
// than llama.cpp, groups of experts are obeyed for V2 and V3 alike.
#include "base/error.h"
#include "checkpoint/gguf.h"
#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fmt/format.h>

namespace fathom {

namespace {

// All keys of the architecture that are understood; any other may change what the model computes.
constexpr std::array known_keys = {
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "leading_dense_block_count",
    "expert_feed_forward_length",
    "expert_count",
    "expert_used_count",
    "expert_shared_count",
    "expert_group_count",
    "expert_group_used_count",
    "expert_weights_scale",
    "expert_weights_norm",
    "expert_gating_func",
    "nextn_predict_layers",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "attention.q_lora_rank",
    "attention.kv_lora_rank",
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_mla",
    "attention.value_length_mla",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_log_multiplier",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.finetuned",
};

// The keys of one architecture, by their names behind its own.
class ArchitectureKeys {
  public:
    ArchitectureKeys(const Gguf& gguf, std::string_view architecture)
        : gguf_(gguf), prefix_(fmt::format("{}.", architecture)) {
        for (const auto& [name, value] : gguf.keys())
            if (name.starts_with(prefix_) && std::find(known_keys.begin(), known_keys.end(),
                                                       name.substr(prefix_.size())) == known_keys.end())
                gguf.refuse(name, "no such key: what it changes is not known");
    }
    bool has(std::string_view key) const { return gguf_.has(prefix_ + std::string(key)); }
    uint32_t count(std::string_view key, uint64_t least, uint64_t most) const {
        return static_cast<uint32_t>(gguf_.whole(prefix_ + std::string(key), least, most));
    }
    double number(std::string_view key, double above, double most) const {
        return gguf_.number(prefix_ + std::string(key), above, most);
    }
    bool flag(std::string_view key) const { return gguf_.flag(prefix_ + std::string(key)); }
    std::string_view text(std::string_view key) const { return gguf_.text(prefix_ + std::string(key)); }
    [[noreturn]] void refuse(std::string_view key, std::string expected, std::string fix = "") const {
        gguf_.refuse(prefix_ + std::string(key), std::move(expected), std::move(fix));
    }
    // Refuses a key that is there with another value.
    void agree(std::string_view key, uint32_t value, std::string_view why) const {
        if (has(key) && count(key, 0, UINT32_MAX) != value) refuse(key, fmt::format("{}, {}", value, why));
    }
    const Gguf& all() const { return gguf_; }

  private:
    const Gguf& gguf_;
    std::string prefix_;
};

// A float that was written as decimal digits and stored as f32, as those digits again.
double decimal(double stored) {
    // f32 keeps any 6 and most 7 digits. Not stod, which throws at what a file's f64 can be: a subnormal.
    return std::strtod(fmt::format("{:.7g}", stored).c_str(), nullptr);
}

void read_shape(const ArchitectureKeys& keys, ModelConfig& config) {
    const char* tokens = "tokenizer.ggml.tokens";
    if (keys.has("vocab_size"))
        config.vocab_size = keys.count("vocab_size", 1, largest_dim);
    else if (const auto* list = keys.all().find(tokens);
             list && list->type == Gguf::Type::array && list->count >= 1 && list->count <= largest_dim)
        config.vocab_size = static_cast<uint32_t>(list->count);
    else
        keys.all().refuse(tokens, fmt::format("1 to {} strings, as there is no vocab_size", largest_dim));
    config.dim = keys.count("embedding_length", 1, largest_dim);
    const uint32_t blocks = keys.count("block_count", 1, largest_layers);
    if (keys.has("nextn_predict_layers"))
        config.n_mtp_layers = keys.count("nextn_predict_layers", 0, blocks - 1);
    config.n_layers = blocks - config.n_mtp_layers;
    config.dense_dim = keys.count("feed_forward_length", 1, largest_dim);
    config.max_position = keys.count("context_length", 1, largest_position);
    config.rms_norm_eps = decimal(keys.number("attention.layer_norm_rms_epsilon", 0, 0.1));
}

// A file of either may repeat the lengths of a head, and must not have others.
void read_plain_attention(const ArchitectureKeys& keys, ModelConfig& config) {
    config.n_heads = keys.count("attention.head_count", 1, largest_dim);
    if (config.dim % config.n_heads || config.dim / config.n_heads % 2)
        keys.refuse("attention.head_count", fmt::format("a divisor of half the width, {}", config.dim));
    const uint32_t head = config.dim / config.n_heads;
    keys.agree("attention.head_count_kv", config.n_heads, "as head_count");
    for (const char* key : {"attention.key_length", "attention.value_length", "rope.dimension_count"})
        keys.agree(key, head, "the width of a head");
    config.qk_rope_head_dim = config.v_head_dim = head;
}

// Files of two ages: with key_length_mla, whose plain lengths are those of the latent, and before that.
void read_attention(const ArchitectureKeys& keys, ModelConfig& config) {
    config.n_heads = keys.count("attention.head_count", 1, largest_dim);
    if (keys.has("attention.q_lora_rank"))
        config.q_lora_rank = keys.count("attention.q_lora_rank", 1, largest_dim);
    config.kv_lora_rank = keys.count("attention.kv_lora_rank", 1, largest_dim);
    config.qk_rope_head_dim = keys.count("rope.dimension_count", 2, largest_dim);
    if (config.qk_rope_head_dim % 2)
        keys.refuse("rope.dimension_count", "an even number: dimensions rotate in pairs");
    const bool latent = keys.has("attention.key_length_mla") || keys.has("attention.value_length_mla");
    if (latent) {
        keys.agree("attention.key_length", config.latent_dim(), "latent and rotary part together");
        keys.agree("attention.value_length", config.kv_lora_rank, "the latent");
        keys.agree("attention.head_count_kv", 1, "the latent is one head");
    } else {
        keys.agree("attention.head_count_kv", config.n_heads, "as head_count");
    }
    const char* key = latent ? "attention.key_length_mla" : "attention.key_length";
    config.qk_nope_head_dim =
        keys.count(key, config.qk_rope_head_dim + 1, largest_dim) - config.qk_rope_head_dim;
    config.v_head_dim =
        keys.count(latent ? "attention.value_length_mla" : "attention.value_length", 1, largest_dim);
    const uint64_t widest = std::max(config.qk_head_dim(), config.qk_nope_head_dim + config.v_head_dim);
    if (widest * config.n_heads > largest_rows)
        keys.refuse("attention.head_count",
                    fmt::format("at most {} rows in a projection, with {} a head", largest_rows, widest));
}

// Absent: softmax, as llama.cpp has it, which takes early files of GLM-4.7-Flash for what they are.
Scoring read_scoring(const ArchitectureKeys& keys, const ModelConfig& config) {
    if (!keys.has("expert_gating_func")) {
        const uint32_t blocks = config.n_layers + config.n_mtp_layers;
        const bool early_glm = (blocks == 47 || blocks == 48) && config.vocab_size == 154880;
        return early_glm ? Scoring::sigmoid : Scoring::softmax;
    }
    const uint32_t function = keys.count("expert_gating_func", 0, UINT32_MAX);
    if (function != 1 && function != 2) keys.refuse("expert_gating_func", "1 (softmax) or 2 (sigmoid)");
    return function == 2 ? Scoring::sigmoid : Scoring::softmax;
}

void read_groups(const ArchitectureKeys& keys, ModelConfig& config) {
    if (keys.has("expert_group_count"))
        config.n_groups = keys.count("expert_group_count", 1, config.n_routed_experts);
    if (config.n_routed_experts % config.n_groups)
        keys.refuse("expert_group_count",
                    fmt::format("a divisor of the {} experts", config.n_routed_experts));
    if (config.n_groups > 1 || keys.has("expert_group_used_count"))
        config.n_active_groups = keys.count("expert_group_used_count", 1, config.n_groups);
    const uint32_t size = config.n_routed_experts / config.n_groups;
    if (config.n_active_experts > config.n_active_groups * size)
        keys.refuse("expert_used_count", fmt::format("at most {}, as many as {} groups hold",
                                                     config.n_active_groups * size, config.n_active_groups));
    if (config.scoring == Scoring::sigmoid && config.n_groups > 1 && size < 2)
        keys.refuse("expert_group_count", "groups of at least 2 experts, since their two best are summed");
}

// The first class scores by softmax, takes the best of all, and neither normalises nor scales, whatever other
// keys of llama.cpp's say.
void check_plain_experts(const ArchitectureKeys& keys) {
    constexpr const char* why = "for the architecture deepseek";
    keys.agree("expert_gating_func", 1, why);
    keys.agree("expert_group_count", 1, why);
    keys.agree("expert_group_used_count", 1, why);
    keys.agree("nextn_predict_layers", 0, why);
    if (keys.has("expert_weights_norm") && keys.flag("expert_weights_norm"))
        keys.refuse("expert_weights_norm", "false, for the architecture deepseek");
    if (keys.has("expert_weights_scale") && keys.number("expert_weights_scale", 0, 1e6) != 1)
        keys.refuse("expert_weights_scale", "1, for the architecture deepseek");
}

void read_experts(const ArchitectureKeys& keys, bool plain, ModelConfig& config) {
    if (plain) check_plain_experts(keys);
    config.scoring = plain ? Scoring::softmax : read_scoring(keys, config);
    const bool v3 = config.scoring == Scoring::sigmoid;
    config.architecture = plain ? Architecture::deepseek
                          : v3  ? Architecture::deepseek_v3
                                : Architecture::deepseek_v2;
    config.topk_method = v3 ? TopkMethod::noaux_tc : TopkMethod::greedy;
    config.first_moe_layer = keys.count("leading_dense_block_count", 0, config.n_layers);
    if (!keys.has("expert_count") || keys.count("expert_count", 0, largest_experts) == 0) return;
    config.n_routed_experts = keys.count("expert_count", 1, largest_experts);
    config.n_active_experts = keys.count("expert_used_count", 1, config.n_routed_experts);
    config.expert_dim = keys.count("expert_feed_forward_length", 1, largest_dim);
    if (keys.has("expert_shared_count"))
        config.n_shared_experts = keys.count("expert_shared_count", 0, largest_dim / config.expert_dim);
    read_groups(keys, config);
    if (!v3 && config.n_groups > 1) config.topk_method = TopkMethod::group_limited_greedy;
    if (keys.has("expert_weights_scale"))
        config.routed_scaling_factor = decimal(keys.number("expert_weights_scale", 0, 1e6));
    config.norm_topk_prob =
        keys.has("expert_weights_norm") && keys.flag("expert_weights_norm") && config.n_active_experts > 1;
    if (config.norm_topk_prob && !v3 && config.routed_scaling_factor != 1)
        keys.refuse("expert_weights_norm", "false, or an expert_weights_scale of 1: implementations of "
                                           "softmax routing disagree on both together");
}

void read_rope(const ArchitectureKeys& keys, ModelConfig& config) {
    config.rope_theta = decimal(keys.number("rope.freq_base", 1, largest_theta));
    for (const char* key :
         {"rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor"})
        if (keys.has(key) && keys.number(key, -1e6, 1e6) != 1) keys.refuse(key, "1, or no such key");
    const std::string_view type = keys.has("rope.scaling.type") ? keys.text("rope.scaling.type") : "none";
    if (type != "yarn") {
        if (type != "none") keys.refuse("rope.scaling.type", "yarn or none");
        if (keys.has("rope.scaling.factor") && keys.number("rope.scaling.factor", 0, 1e6) != 1)
            keys.refuse("rope.scaling.factor", "1, without a rope.scaling.type");
        return;
    }
    Yarn& yarn = config.yarn;
    yarn.factor = decimal(keys.number("rope.scaling.factor", 0, 1e6));
    if (yarn.factor < 1) keys.refuse("rope.scaling.factor", "at least 1");
    yarn.original_max_position = keys.count("rope.scaling.original_context_length", 1, largest_position);
    if (keys.has("rope.scaling.yarn_beta_fast"))
        yarn.beta_fast = decimal(keys.number("rope.scaling.yarn_beta_fast", 0, 1e6));
    if (keys.has("rope.scaling.yarn_beta_slow"))
        yarn.beta_slow = decimal(keys.number("rope.scaling.yarn_beta_slow", 0, 1e6));
    if (yarn.beta_fast < yarn.beta_slow)
        keys.refuse("rope.scaling.yarn_beta_fast",
                    fmt::format("at least yarn_beta_slow, {}", yarn.beta_slow));
    // A tenth of mscale_all_dim, which is mscale in every published model: cos and sin stay as they are. Some
    // converters left the key out, and without it long contexts drift.
    const char* multiplier = "rope.scaling.yarn_log_multiplier";
    if (!keys.has(multiplier))
        keys.refuse(multiplier, "0.1 * mscale_all_dim of the model's config.json", "convert the model again");
    yarn.mscale = yarn.mscale_all_dim = decimal(10 * decimal(keys.number(multiplier, -1e-9, 10)));
}

// The ids in a file that mean the beginning, or the end of a text or of a turn.
std::vector<uint32_t> read_tokens(const Gguf& gguf, std::initializer_list<const char*> names,
                                  uint32_t vocab) {
    std::vector<uint32_t> tokens;
    for (const char* name : names) {
        const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
        if (!gguf.has(key)) continue;
        const auto token = static_cast<uint32_t>(gguf.whole(key, 0, vocab - 1));
        if (std::find(tokens.begin(), tokens.end(), token) == tokens.end()) tokens.push_back(token);
    }
    return tokens;
}

} // namespace

ModelConfig parse_config(const Gguf& gguf) {
    const std::string_view architecture = gguf.text("general.architecture");
    const bool plain = architecture == "deepseek";
    if (!plain && architecture != "deepseek2")
        gguf.refuse("general.architecture", "deepseek or deepseek2", "use a model of the DeepSeek family");
    const ArchitectureKeys keys(gguf, architecture);
    ModelConfig config;
    read_shape(keys, config);
    if (plain)
        read_plain_attention(keys, config);
    else
        read_attention(keys, config);
    read_experts(keys, plain, config);
    read_rope(keys, config);
    if (plain && config.yarn.factor != 0)
        keys.refuse("rope.scaling.type", "none, for the architecture deepseek");
    config.bos = read_tokens(gguf, {"bos"}, config.vocab_size);
    config.eos = read_tokens(gguf, {"eos", "eot", "eom"}, config.vocab_size);
    return config;
}

} // namespace fathom
