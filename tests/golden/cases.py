"""The golden cases: configurations in the published dialect of config.json, small enough to commit logits.

Sizes are odd on purpose (no multiples of anything a kernel might like) and every mechanism of the family is
met at least once. `repairs` names what transformers 5.12 does otherwise than the code published with the
checkpoints; such a case takes its golden from oracle.py, and transformers is compared after the repair.
"""
from dataclasses import dataclass, field

COMMON = dict(
    attention_bias=False, attention_dropout=0.0, hidden_act="silu", initializer_range=0.02, pretraining_tp=1,
    tie_word_embeddings=False, torch_dtype="float32", use_cache=True, max_position_embeddings=512,
    vocab_size=96, hidden_size=64, num_hidden_layers=3, first_k_dense_replace=1, moe_layer_freq=1,
    intermediate_size=120, moe_intermediate_size=40, num_attention_heads=4, num_key_value_heads=4,
    q_lora_rank=None, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    rms_norm_eps=1e-6, rope_theta=10000.0, rope_scaling=None)
V2 = COMMON | dict(
    architectures=["DeepseekV2ForCausalLM"], model_type="deepseek_v2", bos_token_id=90, eos_token_id=91,
    n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, n_group=1, topk_group=1,
    topk_method="greedy", scoring_func="softmax", norm_topk_prob=False, routed_scaling_factor=1.0)
V3 = COMMON | dict(
    architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", bos_token_id=0, eos_token_id=1,
    n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4, n_group=4, topk_group=2,
    topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True, routed_scaling_factor=2.5,
    num_nextn_predict_layers=0)
# The class of deepseek-moe-16b, whose keys have no latent and no groups.
LATENT = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
V1 = {key: value for key, value in COMMON.items() if key not in LATENT} | dict(
    architectures=["DeepseekForCausalLM"], model_type="deepseek", bos_token_id=90, eos_token_id=91,
    n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, scoring_func="softmax",
    norm_topk_prob=False)
# GLM-4.7-Flash: V3's mathematics; its files name no scoring_func and no moe_layer_freq.
GLM = {key: value for key, value in V3.items() if key not in ("scoring_func", "moe_layer_freq")} | dict(
    architectures=["Glm4MoeLiteForCausalLM"], model_type="glm4_moe_lite", n_group=1, topk_group=1,
    num_attention_heads=5, num_key_value_heads=5, q_lora_rank=24, qk_nope_head_dim=24, v_head_dim=32,
    rms_norm_eps=1e-5, rope_theta=1e6, routed_scaling_factor=1.8, partial_rotary_factor=1.0)
V2_GROUPS = V2 | dict(topk_method="group_limited_greedy")
ODD = dict(num_attention_heads=3, num_key_value_heads=3, n_routed_experts=12, num_experts_per_tok=5,
           kv_lora_rank=20, v_head_dim=22, moe_intermediate_size=28, intermediate_size=90, vocab_size=97)


def yarn(factor: float, window: int, mscale: float, mscale_all_dim: float, beta_fast: float = 4) -> dict:
    return dict(type="yarn", factor=factor, original_max_position_embeddings=window, beta_fast=beta_fast,
                beta_slow=1, mscale=mscale, mscale_all_dim=mscale_all_dim)


MSCALE = ("transformers' V2 class leaves mscale_all_dim out of the softmax scale; the published V2 code "
          "multiplies by its square.")
GROUPS = "transformers' V2 class cannot run group_limited_greedy (it has no num_experts)."
NORM = "transformers' V2 class ignores norm_topk_prob."
NO_CLASS = "transformers has no class for deepseek-moe-16b."
FREQ = ("transformers ignores moe_layer_freq; the published code has a dense layer wherever the layer's "
        "number is no multiple of it.")


@dataclass
class Case:
    name: str
    config: dict                # published dialect
    notes: str
    n_tokens: int = 24
    positions: int = 0          # store the logits of so many last positions; 0: all
    dtype: str = "F32"          # of the checkpoint; the oracles widen the rounded weights
    router_gain: float = 2.0    # times the other matrices' scale, so that routing is decisive
    bias_offset: float = 0.0    # of e_score_correction_bias
    repairs: dict[str, str] = field(default_factory=dict)  # what of transformers was mended -> why


CASES = [
    Case("v1_plain", V1, "deepseek-moe-16b: plain attention, RoPE in halves of whole heads, greedy softmax",
         repairs=dict(oracle=NO_CLASS)),
    Case("v1_norm_long",
         V1 | dict(norm_topk_prob=True, hidden_size=90, num_attention_heads=5, num_key_value_heads=5,
                   num_hidden_layers=2, n_shared_experts=1),
         "normalised weights, odd heads, positions in two pages of the cache", n_tokens=75, positions=16,
         repairs=dict(oracle=NO_CLASS)),
    Case("v2_greedy", V2, "softmax, greedy, two shared experts, no q-LoRA: V2-Lite without YaRN"),
    Case("v2_yarn", V2 | dict(rope_scaling=yarn(40, 16, 0.707, 0.707), vocab_size=101),
         "V2-Lite; positions beyond the original window of 16", n_tokens=40, repairs=dict(mscale=MSCALE)),
    Case("v2_q_lora_norm",
         V2 | dict(q_lora_rank=36, norm_topk_prob=True, n_shared_experts=1, first_k_dense_replace=0,
                   num_hidden_layers=2),
         "normalised weights with a routed_scaling_factor of 1, where all published codes agree",
         repairs=dict(norm=NORM)),
    Case("v2_groups",
         V2_GROUPS | dict(q_lora_rank=48, n_routed_experts=16, n_group=4, topk_group=2, num_experts_per_tok=4,
                          routed_scaling_factor=16.0, rope_scaling=yarn(40, 16, 1.0, 1.0)),
         "DeepSeek-V2.5", n_tokens=32, repairs=dict(mscale=MSCALE, groups=GROUPS)),
    Case("v2_groups_of_8",
         V2_GROUPS | dict(n_routed_experts=24, n_group=8, topk_group=3, num_experts_per_tok=6,
                          routed_scaling_factor=2.0, moe_intermediate_size=24, num_hidden_layers=2,
                          first_k_dense_replace=0),
         "eight groups of three, three kept, both layers MoE", repairs=dict(groups=GROUPS)),
    Case("v2_odd", V2 | ODD | dict(hidden_size=84, qk_nope_head_dim=14, qk_rope_head_dim=6),
         "hardly a dimension is a multiple of four", n_tokens=17),
    Case("v2_f16", V2 | dict(torch_dtype="float16"), "f16 checkpoint", dtype="F16"),
    Case("v3_base",
         V3 | dict(q_lora_rank=48, n_group=8, topk_group=4, rope_scaling=yarn(40, 16, 1.0, 1.0)),
         "DeepSeek-V3: eight groups of two, YaRN, positions beyond the original window", n_tokens=40),
    Case("v3_one_group",
         V3 | dict(n_group=1, topk_group=1, n_shared_experts=2, routed_scaling_factor=2.446,
                   rope_theta=50000.0, rms_norm_eps=1e-5),
         "Moonlight: no q-LoRA, no groups, two shared experts"),
    Case("v3_kimi",
         V3 | dict(q_lora_rank=48, n_group=1, topk_group=1, n_routed_experts=24, num_experts_per_tok=4,
                   routed_scaling_factor=2.827, rope_theta=50000.0,
                   rope_scaling=yarn(32, 16, 1.0, 1.0, beta_fast=1)),
         "Kimi-K2: one group, YaRN with beta_fast 1, positions beyond the original window", n_tokens=40),
    Case("glm_flash", GLM, "GLM-4.7-Flash: 3/4 of a head without RoPE, wide values, rms_norm_eps 1e-5"),
    Case("v3_odd",
         V3 | ODD | dict(hidden_size=80, q_lora_rank=36, qk_nope_head_dim=18, qk_rope_head_dim=12),
         "four groups of three, odd sizes", n_tokens=33),
    Case("v3_norm_off",
         V3 | dict(norm_topk_prob=False, routed_scaling_factor=1.5, first_k_dense_replace=0,
                   num_hidden_layers=2),
         "weights do not sum to 1; no dense layer"),
    Case("v3_dense", V3 | dict(first_k_dense_replace=3), "every layer is dense"),
    Case("v3_half_split", V3 | dict(rope_interleave=False, q_lora_rank=40), "rotary pairs (i, i + d/2)"),
    Case("v3_mscale", V3 | dict(rope_scaling=yarn(4, 8, 1.0, 0.6, beta_fast=32), rope_theta=500.0),
         "mscale differs from mscale_all_dim: cos and sin carry a factor", n_tokens=40),
    Case("v3_negative_keys", V3 | dict(topk_group=1),
         "every biased key is negative, and one group of four is kept: its last expert must beat all others",
         bias_offset=-2.0),
    Case("v3_latent_norm_eps", V3 | dict(q_lora_rank=48, rms_norm_eps=0.01),
         "rms_norm_eps is of the layers' norms and the last; q_a_layernorm and kv_a_layernorm have 1e-6"),
    Case("v3_moe_layer_freq", V3 | dict(moe_layer_freq=2, num_hidden_layers=4),
         "layers 0, 1 and 3 are dense, layer 2 is MoE", repairs=dict(freq=FREQ)),
    Case("v3_mtp", V3 | dict(num_nextn_predict_layers=1, num_hidden_layers=2),
         "the checkpoint carries an MTP layer, which the main model's logits ignore"),
    Case("v3_bf16", V3 | dict(q_lora_rank=48, torch_dtype="bfloat16"),
         "bf16 checkpoint; e_score_correction_bias stays f32, as published", dtype="BF16"),
    Case("v3_fp8",
         V3 | dict(q_lora_rank=132, hidden_size=144, intermediate_size=136, num_attention_heads=3,
                   num_key_value_heads=3, qk_nope_head_dim=48, v_head_dim=52, num_hidden_layers=2,
                   quantization_config=dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8",
                                            weight_block_size=[128, 128])),
         "FP8 with ragged blocks of 128 x 128; the MLPs' scales are powers of two, as in V3.1"),
    Case("v3_long",
         V3 | dict(q_lora_rank=48, rope_scaling=yarn(8, 64, 1.0, 1.0), rope_theta=12.0, vocab_size=160),
         "a prompt of several chunks and cache pages; a YaRN ramp that ends beyond d/2 - 1",
         n_tokens=301, positions=8),
]
