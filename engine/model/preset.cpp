// Presets are read as the config.json that they stand for, key by key.
#include "model/preset.h"

#include "base/error.h"
#include "base/json.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom {

namespace {

using nlohmann::json;

struct Word {
    const char *ours, *theirs;
};
constexpr Word words[] = {{"vocab_size", "vocab_size"},
                          {"dim", "hidden_size"},
                          {"n_layers", "num_hidden_layers"},
                          {"n_mtp_layers", "num_nextn_predict_layers"},
                          {"n_heads", "num_attention_heads"},
                          {"dense_dim", "intermediate_size"},
                          {"expert_dim", "moe_intermediate_size"},
                          {"n_routed_experts", "n_routed_experts"},
                          {"n_shared_experts", "n_shared_experts"},
                          {"n_active_experts", "num_experts_per_tok"},
                          {"n_groups", "n_group"},
                          {"n_active_groups", "topk_group"},
                          {"first_moe_layer", "first_k_dense_replace"},
                          {"topk_method", "topk_method"},
                          {"norm_topk_prob", "norm_topk_prob"},
                          {"routed_scaling_factor", "routed_scaling_factor"},
                          {"rms_norm_eps", "rms_norm_eps"},
                          {"rope_theta", "rope_theta"},
                          {"max_position", "max_position_embeddings"}};
constexpr Word latent_words[] = {{"q_lora_rank", "q_lora_rank"},
                                 {"kv_lora_rank", "kv_lora_rank"},
                                 {"qk_nope_head_dim", "qk_nope_head_dim"},
                                 {"qk_rope_head_dim", "qk_rope_head_dim"},
                                 {"v_head_dim", "v_head_dim"}};
constexpr Word yarn_words[] = {
    {"factor", "factor"},       {"original_max_position", "original_max_position_embeddings"},
    {"beta_fast", "beta_fast"}, {"beta_slow", "beta_slow"},
    {"mscale", "mscale"},       {"mscale_all_dim", "mscale_all_dim"}};
constexpr Word classes[] = {{"deepseek", "DeepseekForCausalLM"},
                            {"deepseek_v2", "DeepseekV2ForCausalLM"},
                            {"deepseek_v3", "DeepseekV3ForCausalLM"},
                            {"glm4_moe_lite", "Glm4MoeLiteForCausalLM"}};

// Takes values out of an object, so that what remains is unknown.
class Taker {
  public:
    Taker(json object, std::string where) : object_(std::move(object)), where_(std::move(where)) {
        if (!object_.is_object()) refuse("", "an object", json_text(object_));
    }
    json take(const char* key) {
        const auto at = object_.find(key);
        if (at == object_.end()) refuse(key, "a value", "no such key");
        json value = std::move(*at);
        object_.erase(at);
        return value;
    }
    template <size_t N> void take(const Word (&keys)[N], json& into) {
        for (const Word& word : keys) into[word.theirs] = take(word.ours);
    }
    std::string text(const char* key) {
        const json value = take(key);
        if (!value.is_string()) refuse(key, "a text", json_text(value));
        return value.get<std::string>();
    }
    void finish() const {
        if (!object_.empty()) refuse(object_.begin().key(), "no such key", json_text(*object_.begin()));
    }
    [[noreturn]] void refuse(const std::string& key, std::string expected, std::string got) const {
        throw Error({.what = "broken preset",
                     .where = fmt::format("{}: {}", where_, printable(key)),
                     .expected = std::move(expected),
                     .got = std::move(got)});
    }

  private:
    json object_;
    std::string where_;
};

} // namespace

Preset parse_preset(std::string_view text, std::string_view name) {
    const std::string where = fmt::format("preset {}", name);
    Taker keys(parse_json(text, where), where);
    Preset preset{std::string(name), keys.text("about"), {}, {}};
    const json also = keys.take("also");
    for (const json& other : also.is_array() ? also : json::array({also})) {
        if (!other.is_string()) keys.refuse("also", "a list of names", json_text(also));
        preset.also.push_back(other.get<std::string>());
    }
    const std::string architecture = keys.text("architecture");
    const auto known = std::find_if(std::begin(classes), std::end(classes),
                                    [&](const Word& word) { return word.ours == architecture; });
    if (known == std::end(classes))
        keys.refuse("architecture", "deepseek, deepseek_v2, deepseek_v3 or glm4_moe_lite", architecture);
    json config = {{"architectures", {known->theirs}}, {"hidden_act", "silu"}};
    keys.take(words, config);
    if (architecture != "deepseek") {
        keys.take(latent_words, config);
        if (config["q_lora_rank"] == 0) config["q_lora_rank"] = nullptr; // 0 is our word for none
    }
    if (json yarn = keys.take("yarn"); !yarn.is_null()) {
        Taker inner(std::move(yarn), where + ": yarn");
        json scaling = {{"type", "yarn"}};
        inner.take(yarn_words, scaling);
        inner.finish();
        config["rope_scaling"] = scaling;
    }
    const json fp8 = keys.take("fp8");
    if (!fp8.is_boolean()) keys.refuse("fp8", "true or false", json_text(fp8));
    if (fp8.get<bool>())
        config["quantization_config"] = {{"quant_method", "fp8"},
                                         {"fmt", "e4m3"},
                                         {"activation_scheme", "dynamic"},
                                         {"weight_block_size", {128, 128}}};
    keys.finish();
    preset.config = parse_config(config.dump(), where);
    return preset;
}

const std::vector<Preset>& presets() {
    static const std::vector<Preset> all = [] {
        std::vector<Preset> made;
        for (const PresetFile& file : preset_files()) made.push_back(parse_preset(file.json, file.name));
        return made;
    }();
    return all;
}

const Preset* find_preset(std::string_view name) {
    for (const Preset& preset : presets())
        if (preset.name == name ||
            std::find(preset.also.begin(), preset.also.end(), name) != preset.also.end())
            return &preset;
    return nullptr;
}

} // namespace fathom
