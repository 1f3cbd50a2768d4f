// config.json to ModelConfig: reading with checks, and the two functions of it that RoPE and attention need.
// Where the two classes of code that define a model disagree (the authors' modelling files, transformers' own
// classes), values on which they differ and which no released model uses are refused, else the authors are
// followed.
#include "model/config.h"

#include "base/error.h"
#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numbers>
#include <optional>

namespace fathom {

namespace {

using nlohmann::json;

// Reads the keys of one object. `prefix` is what stands before a key in messages: "" or "rope_scaling.".
class Keys {
  public:
    Keys(const json& object, std::string_view where, std::string prefix)
        : object_(object), where_(where), prefix_(std::move(prefix)) {}

    // nullptr when absent or null.
    const json* find(const char* key) const {
        const auto at = object_.find(key);
        return at == object_.end() || at->is_null() ? nullptr : &*at;
    }
    bool has(const char* key) const { return find(key) != nullptr; }
    [[noreturn]] void refuse(const char* key, std::string expected, std::string fix = "") const {
        const auto at = object_.find(key);
        throw Error({.what = at == object_.end() ? "config key missing" : "unsupported config value",
                     .where = fmt::format("{}: {}{}", where_, prefix_, key),
                     .expected = std::move(expected),
                     .got = at == object_.end() ? "" : json_text(*at),
                     .fix = std::move(fix)});
    }
    uint32_t count(const char* key, uint32_t least, uint32_t most) const {
        const json* value = find(key);
        const bool whole = value && value->is_number_unsigned();
        if (!whole || value->get<uint64_t>() < least || value->get<uint64_t>() > most)
            refuse(key, fmt::format("a whole number from {} to {}", least, most));
        return value->get<uint32_t>();
    }
    // A number in either form (10000 or 10000.0), above `above` and at most `most`.
    double number(const char* key, double above, double most) const {
        const json* value = find(key);
        const double number = value && value->is_number() ? value->get<double>() : std::nan("");
        if (!(number > above && number <= most)) // false for NaN, too
            refuse(key, fmt::format("a number above {} and at most {}", above, most));
        return number;
    }
    bool flag(const char* key) const {
        const json* value = find(key);
        if (!value || !value->is_boolean()) refuse(key, "true or false");
        return value->get<bool>();
    }
    const std::string& word(const char* key, const char* expected) const {
        const json* value = find(key);
        if (!value || !value->is_string()) refuse(key, expected);
        return value->get_ref<const std::string&>();
    }

  private:
    const json& object_;
    std::string_view where_;
    std::string prefix_;
};

Architecture parse_architecture(const Keys& keys) {
    constexpr std::pair<const char*, Architecture> classes[] = {
        {"DeepseekForCausalLM", Architecture::deepseek},
        {"DeepseekV2ForCausalLM", Architecture::deepseek_v2},
        {"DeepseekV3ForCausalLM", Architecture::deepseek_v3},
        {"Glm4MoeLiteForCausalLM", Architecture::glm4_moe_lite}};
    const json* names = keys.find("architectures");
    if (names && names->is_array() && names->size() == 1)
        for (const auto& [name, architecture] : classes)
            if (names->front() == name) return architecture;
    keys.refuse("architectures", "one of DeepseekForCausalLM, DeepseekV2ForCausalLM, DeepseekV3ForCausalLM, "
                                 "Glm4MoeLiteForCausalLM");
}

// FP8: E4M3 weights with one scale for a block of them. Activations, which its authors' kernels round to FP8
// as well ("dynamic"), are not rounded here. scale_fmt says that the scales are powers of two, which changes
// nothing; which tensors are FP8 is seen by their types.
void parse_quantization(const Keys& keys, std::string_view where, ModelConfig& config) {
    const json* object = keys.find("quantization_config");
    if (!object) return;
    if (!object->is_object()) keys.refuse("quantization_config", "an object, or null");
    const Keys inner(*object, where, "quantization_config.");
    const auto want = [&](const char* key, const char* value) {
        if (inner.word(key, value) != value)
            inner.refuse(key, value, "use a copy of the checkpoint in FP8 or BF16, or a GGUF");
    };
    want("quant_method", "fp8");
    want("fmt", "e4m3");
    want("activation_scheme", "dynamic");
    if (inner.has("scale_fmt")) want("scale_fmt", "ue8m0");
    const json* block = inner.find("weight_block_size");
    if (!block || *block != json::array({128, 128})) inner.refuse("weight_block_size", "[128,128]");
    config.fp8_block = 128;
    constexpr std::string_view known[] = {"quant_method",      "fmt",
                                          "activation_scheme", "scale_fmt",
                                          "weight_block_size", "modules_to_not_convert"};
    for (const auto& [key, value] : object->items())
        if (std::find(std::begin(known), std::end(known), key) == std::end(known))
            inner.refuse(key.c_str(), "no such key");
}

// What would change the computation and is not built. All of these are off when absent, in both classes and
// dialects.
void refuse_unsupported(const Keys& keys, const ModelConfig& config) {
    if (keys.has("compression_config"))
        keys.refuse("compression_config", "no such key",
                    "use a copy of the checkpoint in FP8 or BF16, or a GGUF");
    for (const char* key : {"attention_bias", "mlp_bias", "tie_word_embeddings"})
        if (keys.has(key) && keys.flag(key)) keys.refuse(key, "false");
    const bool mla = config.architecture != Architecture::deepseek;
    if (keys.has("use_mla") && keys.flag("use_mla") != mla) keys.refuse("use_mla", mla ? "true" : "false");
    if (keys.has("partial_rotary_factor") && keys.number("partial_rotary_factor", 0, 1) != 1)
        keys.refuse("partial_rotary_factor", "1");
    for (const char* key :
         {"index_topk", "sliding_window", "swiglu_limit", "num_hash_layers", "compress_ratios"})
        if (keys.has(key)) keys.refuse(key, "no such key: it belongs to a later architecture");
    if (keys.word("hidden_act", "silu") != "silu") keys.refuse("hidden_act", "silu");
}

void parse_shape(const Keys& keys, ModelConfig& config) {
    config.vocab_size = keys.count("vocab_size", 1, largest_dim);
    config.dim = keys.count("hidden_size", 1, largest_dim);
    config.n_layers = keys.count("num_hidden_layers", 1, largest_layers);
    // Absent: V2 has none, and transformers writes none (its classes drop the MTP layers).
    if (keys.has("num_nextn_predict_layers"))
        config.n_mtp_layers = keys.count("num_nextn_predict_layers", 0, largest_layers);
    config.dense_dim = keys.count("intermediate_size", 1, largest_dim);
    config.max_position = keys.count("max_position_embeddings", 1, largest_position);
    config.rms_norm_eps = keys.number("rms_norm_eps", 0, 0.1); // 0 would divide a row of zeros by zero
}

// Heads of hidden_size / num_attention_heads numbers that rotate as a whole, in halves.
void parse_plain_attention(const Keys& keys, ModelConfig& config) {
    const uint32_t head_dim = config.dim / config.n_heads;
    if (config.dim % config.n_heads || head_dim % 2)
        keys.refuse("num_attention_heads",
                    fmt::format("a divisor of hidden_size, {}, that leaves even heads", config.dim));
    for (const char* key : {"q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
                            "v_head_dim", "rope_interleave"})
        if (keys.has(key)) keys.refuse(key, "no such key in DeepseekForCausalLM");
    config.qk_rope_head_dim = config.v_head_dim = head_dim;
    config.rope_interleaved = false;
}

void parse_latent_attention(const Keys& keys, const json& object, ModelConfig& config) {
    if (!object.contains("q_lora_rank")) keys.refuse("q_lora_rank", "a rank, or null for none");
    if (keys.has("q_lora_rank")) config.q_lora_rank = keys.count("q_lora_rank", 1, largest_dim);
    config.kv_lora_rank = keys.count("kv_lora_rank", 1, largest_dim);
    config.qk_nope_head_dim = keys.count("qk_nope_head_dim", 1, largest_dim);
    config.qk_rope_head_dim = keys.count("qk_rope_head_dim", 2, largest_dim);
    if (config.qk_rope_head_dim % 2)
        keys.refuse("qk_rope_head_dim", "an even number: dimensions rotate in pairs");
    config.v_head_dim = keys.count("v_head_dim", 1, largest_dim);
    const uint64_t widest = std::max({config.qk_head_dim(), config.qk_nope_head_dim + config.v_head_dim});
    if (widest * config.n_heads > (1u << 24))
        keys.refuse("num_attention_heads",
                    fmt::format("at most 2^24 rows in a projection, with {} a head", widest));
    // Absent: interleaved. Only transformers 5 writes the key, and only its V3 class reads it.
    if (keys.has("rope_interleave")) config.rope_interleaved = keys.flag("rope_interleave");
    if (!config.rope_interleaved && config.architecture == Architecture::deepseek_v2)
        keys.refuse("rope_interleave", "true: DeepseekV2ForCausalLM has no other form");
}

void parse_attention(const Keys& keys, const json& object, ModelConfig& config) {
    config.n_heads = keys.count("num_attention_heads", 1, largest_dim);
    // MLA has no key heads of its own, and plain attention is built without sharing them; the key repeats the
    // heads (and may be absent: a default of all classes).
    if (keys.has("num_key_value_heads") &&
        keys.count("num_key_value_heads", 1, largest_dim) != config.n_heads)
        keys.refuse("num_key_value_heads", fmt::format("{}, as num_attention_heads", config.n_heads));
    if (config.architecture == Architecture::deepseek)
        parse_plain_attention(keys, config);
    else
        parse_latent_attention(keys, object, config);
}

// The two keys name the gate together. V3 and GLM: the authors' gates know sigmoid and noaux_tc alone; GLM's
// files leave out scoring_func, transformers 5 both keys. V2: the authors' gate knows softmax alone;
// transformers 5 leaves scoring_func out. The first class knows softmax, and greedy without a key for it.
void parse_gate(const Keys& keys, ModelConfig& config) {
    const bool v2 = config.architecture == Architecture::deepseek_v2;
    const bool sigmoid = !v2 && config.architecture != Architecture::deepseek;
    const char* scoring = sigmoid ? "sigmoid" : "softmax";
    if (keys.has("scoring_func") && keys.word("scoring_func", scoring) != scoring)
        keys.refuse("scoring_func", fmt::format("{}, for this architecture", scoring));
    config.scoring = sigmoid ? Scoring::sigmoid : Scoring::softmax;
    const char* only = sigmoid ? "noaux_tc" : "greedy";
    config.topk_method = sigmoid ? TopkMethod::noaux_tc : TopkMethod::greedy;
    if (!v2 && !keys.has("topk_method")) return;
    const std::string expected =
        v2 ? "greedy or group_limited_greedy" : fmt::format("{}, for this architecture", only);
    const std::string& method = keys.word("topk_method", expected.c_str());
    if (v2 && method == "group_limited_greedy")
        config.topk_method = TopkMethod::group_limited_greedy;
    else if (method != only)
        keys.refuse("topk_method", expected);
}

// Which layers are dense. transformers' class of GLM does not read first_k_dense_replace and lists the kind
// of every layer instead, the first dense where the list is absent.
void parse_dense_layers(const Keys& keys, ModelConfig& config) {
    const bool glm = config.architecture == Architecture::glm4_moe_lite;
    if (!glm || !keys.has("mlp_layer_types")) {
        config.first_moe_layer = keys.count("first_k_dense_replace", 0, config.n_layers);
        if (glm && config.first_moe_layer != 1)
            keys.refuse("first_k_dense_replace", "1, or mlp_layer_types as well: implementations of this "
                                                 "architecture disagree on other numbers");
    }
    if (!keys.has("mlp_layer_types")) return;
    const json& types = *keys.find("mlp_layer_types");
    const std::string expected =
        fmt::format("\"dense\" for the first layers, then \"sparse\": {} in all", config.n_layers);
    if (!glm || !types.is_array() || types.size() != config.n_layers)
        keys.refuse("mlp_layer_types", expected);
    const auto sparse = std::find(types.begin(), types.end(), "sparse");
    config.first_moe_layer = static_cast<uint32_t>(sparse - types.begin());
    if (std::count(types.begin(), sparse, "dense") != sparse - types.begin() ||
        std::count(sparse, types.end(), "sparse") != types.end() - sparse)
        keys.refuse("mlp_layer_types", expected);
    if (keys.has("first_k_dense_replace") &&
        keys.count("first_k_dense_replace", 0, config.n_layers) != config.first_moe_layer)
        keys.refuse("first_k_dense_replace", fmt::format("{}, as mlp_layer_types", config.first_moe_layer));
}

void parse_groups(const Keys& keys, ModelConfig& config) {
    const bool greedy = config.topk_method == TopkMethod::greedy;
    // Absent or null with greedy: no groups (transformers 5 writes null for V2). The others need both.
    const bool grouped = !greedy || keys.has("n_group") || keys.has("topk_group");
    const uint32_t groups = grouped ? keys.count("n_group", 1, config.n_routed_experts) : 1;
    const uint32_t active = grouped ? keys.count("topk_group", 1, largest_experts) : 1;
    if (config.n_routed_experts % groups)
        keys.refuse("n_group", fmt::format("a divisor of the {} experts", config.n_routed_experts));
    if (active > groups) keys.refuse("topk_group", fmt::format("at most n_group, {}", groups));
    if (greedy) return; // this method looks at no groups, whatever their number
    config.n_groups = groups;
    config.n_active_groups = active;
    const uint32_t group_size = config.n_routed_experts / groups;
    if (config.n_active_experts > active * group_size)
        keys.refuse("num_experts_per_tok",
                    fmt::format("at most {}, as many as {} groups hold", active * group_size, active));
    if (config.topk_method == TopkMethod::noaux_tc && groups > 1 && group_size < 2)
        keys.refuse("n_group", "groups of at least 2 experts, since their two best are summed");
}

void parse_moe(const Keys& keys, const json& object, ModelConfig& config) {
    parse_gate(keys, config);
    parse_dense_layers(keys, config);
    // Absent: 1. transformers' classes have no such key; the authors' default is 1.
    if (keys.has("moe_layer_freq")) config.moe_layer_freq = keys.count("moe_layer_freq", 1, largest_layers);
    if (!object.contains("n_routed_experts"))
        keys.refuse("n_routed_experts", "a number, or null for a dense model");
    if (!keys.has("n_routed_experts")) return;
    config.n_routed_experts = keys.count("n_routed_experts", 1, largest_experts);
    config.n_active_experts = keys.count("num_experts_per_tok", 1, config.n_routed_experts);
    config.expert_dim = keys.count("moe_intermediate_size", 1, largest_dim);
    if (!object.contains("n_shared_experts")) keys.refuse("n_shared_experts", "a number, or null for none");
    if (keys.has("n_shared_experts"))
        config.n_shared_experts = keys.count("n_shared_experts", 0, largest_experts);
    if (uint64_t{config.n_shared_experts} * config.expert_dim > largest_dim)
        keys.refuse("n_shared_experts",
                    fmt::format("at most 2^20 columns, at {} an expert", config.expert_dim));
    parse_groups(keys, config);
    // The first class has no such factor.
    if (config.architecture != Architecture::deepseek || keys.has("routed_scaling_factor"))
        config.routed_scaling_factor = keys.number("routed_scaling_factor", 0, 1e6);
    if (config.architecture == Architecture::deepseek && config.routed_scaling_factor != 1)
        keys.refuse("routed_scaling_factor", "1, in DeepseekForCausalLM");
    config.norm_topk_prob = keys.flag("norm_topk_prob") && config.n_active_experts > 1;
    // The authors' V2 gate scales only when it does not normalise, its successors always, transformers never
    // normalises.
    if (config.norm_topk_prob && config.architecture == Architecture::deepseek_v2 &&
        config.routed_scaling_factor != 1)
        keys.refuse("norm_topk_prob",
                    fmt::format("false, or a routed_scaling_factor of 1 instead of {}: implementations "
                                "of this architecture disagree on both together",
                                config.routed_scaling_factor));
}

Yarn parse_yarn(const Keys& keys) {
    Yarn yarn;
    yarn.factor = keys.number("factor", 0, 1e6);
    if (yarn.factor < 1) keys.refuse("factor", "at least 1");
    // No default: the authors' is 4096, transformers' the whole context.
    yarn.original_max_position = keys.count("original_max_position_embeddings", 1, largest_position);
    // Absent: 32 and 1, a default of both.
    if (keys.has("beta_fast")) yarn.beta_fast = keys.number("beta_fast", 0, 1e6);
    if (keys.has("beta_slow")) yarn.beta_slow = keys.number("beta_slow", 0, 1e6);
    if (yarn.beta_fast < yarn.beta_slow)
        keys.refuse("beta_fast", fmt::format("at least beta_slow, {}", yarn.beta_slow));
    // Both absent: 1 and 0, on which both agree; with one alone they do not.
    if (keys.has("mscale") || keys.has("mscale_all_dim")) {
        yarn.mscale = keys.number("mscale", 0, 100);
        yarn.mscale_all_dim = keys.number("mscale_all_dim", 0, 100);
    }
    if (keys.has("attention_factor")) keys.refuse("attention_factor", "no such key: it follows from mscale");
    if (keys.has("truncate") && !keys.flag("truncate")) keys.refuse("truncate", "true");
    return yarn;
}

// Published: rope_theta, and rope_scaling that is null, absent or {"type": "yarn", ...}. transformers 5:
// rope_parameters with rope_theta and rope_type, which is "default" for none; keys of YaRN beside "default"
// have no effect there.
void parse_rope(const Keys& keys, std::string_view where, ModelConfig& config) {
    const bool new_dialect = keys.has("rope_parameters");
    const char* key = new_dialect ? "rope_parameters" : "rope_scaling";
    if (new_dialect && keys.has("rope_scaling")) keys.refuse("rope_scaling", "null, beside rope_parameters");
    const json* object = keys.find(key);
    if (object && !object->is_object()) keys.refuse(key, "an object, or null");
    if (!new_dialect || keys.has("rope_theta"))
        config.rope_theta = keys.number("rope_theta", 1, largest_theta);
    if (!object) return;
    const Keys inner(*object, where, fmt::format("{}.", key));
    if (new_dialect) {
        const double theta = inner.number("rope_theta", 1, largest_theta);
        if (config.rope_theta != 0 && config.rope_theta != theta)
            inner.refuse("rope_theta", fmt::format("{}, as rope_theta", config.rope_theta));
        config.rope_theta = theta;
    }
    if (inner.has("partial_rotary_factor") && inner.number("partial_rotary_factor", 0, 1) != 1)
        inner.refuse("partial_rotary_factor", "1");
    const char* type_key = inner.has("rope_type") || !inner.has("type") ? "rope_type" : "type";
    const std::string& type = inner.word(type_key, "yarn or default");
    if (inner.has("type") && inner.word("type", type.c_str()) != type)
        inner.refuse("type", type + ", as rope_type");
    if (type == "yarn" && config.architecture == Architecture::deepseek)
        keys.refuse(key, "null: DeepseekForCausalLM is built without");
    if (type == "yarn")
        config.yarn = parse_yarn(inner);
    else if (type != "default")
        inner.refuse(type_key, "yarn or default");
}

// A token id, a list of them, or nothing (null or absent: none, as in configs of models that were never
// trained).
std::vector<uint32_t> parse_tokens(const Keys& keys, const char* key, uint32_t vocab_size) {
    std::vector<uint32_t> tokens;
    const json* value = keys.find(key);
    if (!value) return tokens;
    const json list = value->is_array() ? *value : json::array({*value});
    for (const json& token : list) {
        if (!token.is_number_unsigned() || token.get<uint64_t>() >= vocab_size || list.size() > 64)
            keys.refuse(key, fmt::format("a token id below {}, or a list of at most 64", vocab_size));
        tokens.push_back(token.get<uint32_t>());
    }
    return tokens;
}

double yarn_mscale(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

// The dimension whose wavelength makes `rotations` turns within the original context (YaRN, appendix A.2).
double yarn_dimension(const ModelConfig& config, double rotations) {
    return config.qk_rope_head_dim *
           std::log(config.yarn.original_max_position / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(config.rope_theta));
}

} // namespace

ModelConfig parse_config(std::string_view text, std::string_view where) {
    const json object = parse_json(text, where);
    if (!object.is_object())
        throw Error({.what = "broken config",
                     .where = std::string(where),
                     .expected = "an object",
                     .got = json_text(object)});
    const Keys keys(object, where, "");
    ModelConfig config;
    config.architecture = parse_architecture(keys);
    refuse_unsupported(keys, config);
    parse_quantization(keys, where, config);
    parse_shape(keys, config);
    parse_attention(keys, object, config);
    parse_moe(keys, object, config);
    parse_rope(keys, where, config);
    config.bos = parse_tokens(keys, "bos_token_id", config.vocab_size);
    config.eos = parse_tokens(keys, "eos_token_id", config.vocab_size);
    return config;
}

ModelConfig model_config(const ModelFiles& files) {
    return files.gguf() ? parse_config(*files.gguf()) : parse_config(files.config, files.config_where);
}

double ModelConfig::softmax_scale() const {
    const double plain = 1 / std::sqrt(static_cast<double>(qk_head_dim()));
    if (yarn.factor == 0 || yarn.mscale_all_dim == 0) return plain;
    const double mscale = yarn_mscale(yarn.factor, yarn.mscale_all_dim);
    return plain * mscale * mscale;
}

RopeFrequencies rope_frequencies(const ModelConfig& config) {
    const uint32_t dim = config.qk_rope_head_dim;
    const Yarn& yarn = config.yarn;
    RopeFrequencies rope;
    double low = 0, high = 0;
    if (yarn.factor != 0) {
        rope.factor = static_cast<float>(yarn_mscale(yarn.factor, yarn.mscale) /
                                         yarn_mscale(yarn.factor, yarn.mscale_all_dim));
        low = std::max(std::floor(yarn_dimension(config, yarn.beta_fast)), 0.0);
        high =
            std::min(std::ceil(yarn_dimension(config, yarn.beta_slow)), dim - 1.0); // of dim, not of dim / 2
        if (low == high) high += 0.001;
    }
    for (uint32_t i = 0; i < dim / 2; ++i) {
        // torch's power of two floats, correctly rounded; what it adds to that is at most one unit in the
        // last place.
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
        const auto power = static_cast<float>(std::pow(config.rope_theta, static_cast<double>(exponent)));
        const float extrapolated = 1.0f / power;
        if (yarn.factor == 0) {
            rope.inv_freq.push_back(extrapolated);
            continue;
        }
        const float interpolated = 1.0f / (static_cast<float>(yarn.factor) * power);
        const float ramp = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
        const float keep = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
        rope.inv_freq.push_back(interpolated * (1.0f - keep) + extrapolated * keep);
    }
    return rope;
}

} // namespace fathom
