// The arithmetic of `fathom inspect` against figures of published models: parameter counts and cache sizes of
// the model cards, and one count made by hand from a checkpoint's own list of shapes.
#include "cli/figures.h"
#include "model/preset.h"

#include <doctest/doctest.h>
#include <filesystem>

using namespace fathom;
using namespace fathom::cli;

namespace {

ModelConfig v2_lite() {
    ModelConfig c;
    c.architecture = Architecture::deepseek_v2;
    c.vocab_size = 102400, c.dim = 2048, c.n_layers = 27, c.n_heads = 16;
    c.kv_lora_rank = 512, c.qk_nope_head_dim = 128, c.qk_rope_head_dim = 64, c.v_head_dim = 128;
    c.dense_dim = 10944, c.expert_dim = 1408, c.n_routed_experts = 64, c.n_shared_experts = 2;
    c.n_active_experts = 6, c.first_moe_layer = 1, c.max_position = 163840;
    return c;
}

ModelConfig v3() {
    ModelConfig c;
    c.architecture = Architecture::deepseek_v3;
    c.vocab_size = 129280, c.dim = 7168, c.n_layers = 61, c.n_mtp_layers = 1, c.n_heads = 128;
    c.q_lora_rank = 1536, c.kv_lora_rank = 512, c.qk_nope_head_dim = 128, c.qk_rope_head_dim = 64;
    c.v_head_dim = 128, c.dense_dim = 18432, c.expert_dim = 2048, c.n_routed_experts = 256;
    c.n_shared_experts = 1, c.n_active_experts = 8, c.n_groups = 8, c.n_active_groups = 4;
    c.first_moe_layer = 3, c.scoring = Scoring::sigmoid, c.topk_method = TopkMethod::noaux_tc;
    c.max_position = 163840;
    return c;
}

KindFigures of(const ParameterFigures& figures, Kind kind) {
    return figures.kinds[static_cast<size_t>(kind)];
}
double billions(uint64_t count) { return static_cast<double>(count) / 1e9; }

} // namespace

TEST_CASE("parameters of V2-Lite") {
    const ParameterFigures figures = parameter_figures(v2_lite());
    CHECK(figures.total == 15'706'484'224); // as the checkpoint's files count
    CHECK(billions(figures.active) == doctest::Approx(2.661).epsilon(0.0002));
    const uint64_t embedding = of(figures, Kind::embedding).parameters;
    CHECK(billions(figures.active - embedding) == doctest::Approx(2.451).epsilon(0.0002));
    CHECK(of(figures, Kind::attention).parameters == 27ull * (6'291'456 + 1'179'648 + 2'097'152 + 4'194'304));
    CHECK(of(figures, Kind::routed_experts).parameters == 26ull * 64 * 3 * 2048 * 1408);
    CHECK(of(figures, Kind::routed_experts).active == 26ull * 6 * 3 * 2048 * 1408);
    CHECK(of(figures, Kind::shared_experts).parameters == 26ull * 3 * 2048 * 2816); // one MLP, twice as wide
    CHECK(of(figures, Kind::router).parameters == 26ull * 64 * 2048);               // softmax: no bias
    CHECK(of(figures, Kind::norms).parameters == 27ull * (2 * 2048 + 512) + 2048);
    CHECK(of(figures, Kind::mtp).parameters == 0);
}

TEST_CASE("parameters of V3, the MTP layer apart") {
    const ParameterFigures figures = parameter_figures(v3());
    CHECK(billions(figures.total) == doctest::Approx(671.026).epsilon(1e-5));
    CHECK(billions(figures.active) == doctest::Approx(37.552).epsilon(2e-5));
    const uint64_t embedding = of(figures, Kind::embedding).parameters;
    CHECK(billions(figures.active - embedding) == doctest::Approx(36.626).epsilon(2e-5));
    CHECK(billions(of(figures, Kind::mtp).parameters) == doctest::Approx(13.463).epsilon(5e-5));
    CHECK(billions(of(figures, Kind::mtp).parameters - 2 * embedding) ==
          doctest::Approx(11.610).epsilon(5e-5));
    CHECK(of(figures, Kind::mtp).active == 0);
    const uint64_t router = of(figures, Kind::router).parameters,
                   shared = of(figures, Kind::shared_experts).parameters;
    CHECK(router == 58ull * 256 * (7168 + 1)); // the selection bias counts
    CHECK(billions((of(figures, Kind::routed_experts).parameters + router + shared) / 58) ==
          doctest::Approx(11.32).epsilon(1e-3));
}

TEST_CASE("cache of a token against plain multi-head attention") {
    constexpr uint64_t bf16 = 2;
    CHECK(cache_figures(v2_lite()).own * bf16 == 31'104);
    CHECK(cache_figures(v2_lite()).plain * bf16 == 276'480);
    CHECK(cache_figures(v2_lite()).ratio() == doctest::Approx(8.9).epsilon(0.005));
    CHECK(cache_figures(v3()).own * bf16 == 70'272);
    CHECK(cache_figures(v3()).plain * bf16 == 4'997'120);
    CHECK(cache_figures(v3()).ratio() == doctest::Approx(71.1).epsilon(0.001));
}

TEST_CASE("presets: parameters, cache and bytes as published and computed for the family") {
    struct Row {
        const char* name;
        double total, active, without_embedding; // 1e9
        uint64_t plain, own;                     // bytes of cache for a token, 16-bit
    };
    for (const Row& row : {Row{"moe-16b", 16.376, 2.829, 2.619, 229'376, 229'376},
                           Row{"v2-lite", 15.706, 2.661, 2.451, 276'480, 31'104},
                           Row{"coder-v2-lite", 15.706, 2.661, 2.451, 276'480, 31'104},
                           Row{"v2", 235.741, 21.376, 20.852, 4'915'200, 69'120},
                           Row{"v2.5", 235.741, 21.376, 20.852, 4'915'200, 69'120},
                           Row{"v3", 671.026, 37.552, 36.626, 4'997'120, 70'272},
                           Row{"r1", 671.026, 37.552, 36.626, 4'997'120, 70'272},
                           Row{"moonlight-16b-a3b", 15.96, 2.915, 2.579, 276'480, 31'104},
                           Row{"kimi-k2", 1026.4, 32.9, 31.7, 2'498'560, 70'272},
                           Row{"glm-4.7-flash", 29.94, 3.90, 3.58, 962'560, 54'144}}) {
        INFO(row.name);
        const Preset* preset = find_preset(row.name);
        REQUIRE(preset);
        const ParameterFigures figures = parameter_figures(preset->config);
        const double digits = row.total > 1000 ? 2e-3 : 1e-3; // as many as the tables have
        CHECK(billions(figures.total) == doctest::Approx(row.total).epsilon(2e-4));
        CHECK(billions(figures.active) == doctest::Approx(row.active).epsilon(digits));
        CHECK(billions(figures.active - of(figures, Kind::embedding).parameters) ==
              doctest::Approx(row.without_embedding).epsilon(2 * digits));
        CHECK(cache_figures(preset->config).plain * 2 == row.plain);
        CHECK(cache_figures(preset->config).own * 2 == row.own);
    }
    const ModelConfig& v3 = find_preset("v3")->config;
    CHECK(billions(checkpoint_bytes(v3, DType::f8_e4m3)) == doctest::Approx(673).epsilon(1e-3));
    CHECK(billions(checkpoint_bytes(v3, DType::bf16)) == doctest::Approx(2 * 671.026).epsilon(1e-4));
    CHECK(billions(checkpoint_bytes(v3, DType::q8_0)) == doctest::Approx(671.026 * 34 / 32).epsilon(1e-3));
    CHECK(billions(checkpoint_bytes(v3, DType::q4_k)) == doctest::Approx(671.026 * 144 / 256).epsilon(1e-3));
    // Experts 1408 wide are no whole number of 256, nor is the dense layer: their down projections are Q8_0.
    // The shared experts are one MLP, 2816 wide, which is.
    const ModelConfig& lite = find_preset("v2-lite")->config;
    const double down = 26.0 * 64 * 2048 * 1408 + 2048.0 * 10944;
    CHECK(billions(checkpoint_bytes(lite, DType::q4_k)) ==
          doctest::Approx((15.706e9 * 144 / 256 + down * (34.0 / 32 - 144.0 / 256)) / 1e9).epsilon(1e-3));
}

TEST_CASE("tensors are told apart by name") {
    const ModelConfig config = v3();
    const auto kind = [&](std::string_view name) { return kind_of(name, config); };
    CHECK(kind("model.embed_tokens.weight") == Kind::embedding);
    CHECK(kind("lm_head.weight") == Kind::head);
    CHECK(kind("model.norm.weight") == Kind::norms);
    CHECK(kind("model.layers.60.input_layernorm.weight") == Kind::norms);
    CHECK(kind("model.layers.0.self_attn.kv_a_layernorm.weight") == Kind::norms);
    CHECK(kind("model.layers.0.self_attn.kv_a_proj_with_mqa.weight") == Kind::attention);
    CHECK(kind("model.layers.0.self_attn.q_b_proj.weight_scale_inv") == Kind::attention);
    CHECK(kind("model.layers.0.mlp.gate_proj.weight") == Kind::dense_mlp);
    CHECK(kind("model.layers.3.mlp.gate.weight") == Kind::router);
    CHECK(kind("model.layers.3.mlp.gate.e_score_correction_bias") == Kind::router);
    CHECK(kind("model.layers.3.mlp.experts.17.gate_proj.weight") == Kind::routed_experts);
    CHECK(kind("model.layers.3.mlp.experts.gate_up_proj") == Kind::routed_experts);
    CHECK(kind("model.layers.3.mlp.shared_experts.up_proj.weight") == Kind::shared_experts);
    CHECK(kind("model.layers.61.mlp.experts.0.up_proj.weight") == Kind::mtp);
    CHECK(kind("model.layers.61.embed_tokens.weight") == Kind::mtp);
    CHECK(kind("model.layers.x") == Kind::other);
    CHECK((kind("token_embd.weight") == Kind::embedding && kind("output.weight") == Kind::head));
    CHECK((kind("output_norm.weight") == Kind::norms && kind("blk.0.attn_q_a_norm.weight") == Kind::norms));
    CHECK(
        (kind("blk.9.attn_v_b.weight") == Kind::attention && kind("blk.0.ffn_up.weight") == Kind::dense_mlp));
    CHECK((kind("blk.9.ffn_gate_inp.weight") == Kind::router &&
           kind("blk.9.exp_probs_b.bias") == Kind::router));
    CHECK(kind("blk.9.ffn_gate_exps.weight") == Kind::routed_experts);
    CHECK(kind("blk.9.ffn_gate_shexp.weight") == Kind::shared_experts);
    CHECK((kind("blk.61.attn_q_a.weight") == Kind::mtp && kind("blk.x") == Kind::other));
    CHECK(kind("something.else") == Kind::other);
}

TEST_CASE("the embedded model: counted parameters are those in its file, kind by kind") {
    const ModelFiles files = open_model({});
    const ModelConfig config = parse_config(files.config, files.config_where);
    const ParameterFigures parameters = parameter_figures(config);
    std::array<uint64_t, N_KINDS> elements{};
    for (const TensorView& tensor : files.checkpoint.tensors())
        elements[static_cast<size_t>(kind_of(tensor.name, config))] +=
            tensor.data.size() / bytes_of(tensor.dtype);
    for (size_t k = 0; k < N_KINDS; ++k) {
        CAPTURE(name_of(static_cast<Kind>(k)));
        CHECK(parameters.kinds[k].parameters == elements[k]);
    }
    CHECK(parameters.kinds[static_cast<size_t>(Kind::mtp)].parameters > 0);
    const ByteFigures bytes = byte_figures(files.checkpoint.tensors(), config);
    CHECK(bytes.total == files.checkpoint.bytes());
    CHECK(bytes.bytes[static_cast<size_t>(Kind::embedding)] == 4096 * 256 * 2);
    CHECK(bytes.tensors[static_cast<size_t>(Kind::other)] == 0);
}
