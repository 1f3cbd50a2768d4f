"""Makes the golden logits of random-weight models: tests/golden/<case>/ for every case of cases.py.

usage: make_goldens.py [--check] [CASE...]      needs torch, transformers 5 and safetensors

For each case: build the model with Hugging Face transformers (f32, eager attention, CPU), save_pretrained
it, check the saved tensors against the published layout, replace every one by weights.py under its
checkpoint name, load that back, run it, and run oracle.py on the same weights. Committed are
  config.json            as transformers 5 saves it
  config_published.json  the same in the dialect of the published checkpoints
  tensors.txt            one line a tensor: name, dtype, shape, scale, offset (the arguments of weights.py);
                         dtype POW2: F32, scale times 2 to the floor of twice the generator's number
  golden.safetensors     tokens (n) I32, logits (positions, vocab_size) F32; from transformers also
                         attention (layers, heads, n) F32, what the last token's heads look at
and cases.json beside them. With --check nothing is written: what is made is compared with what is committed.
"""
import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file
from transformers.models.deepseek_v3 import modeling_deepseek_v3

import weights as generator
from cases import CASES, Case
from oracle import Oracle, yarn_mscale

HERE = Path(__file__).parent
# Of Fathom against a golden: f32 rounding in any order gives 1e-11 or less, an f16 cache 2e-8 or more.
LIMIT = 1e-8
AGREEMENT = 1e-10  # of two oracles, or of one on two machines
FP8_REACH = 256.0  # codes of FP8 tensors stand for numbers up to this
MARGIN = 3e-4      # of routing, hundreds of times f32's rounding
TORCH_DTYPE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def nmse(value: np.ndarray, reference: np.ndarray) -> float:
    """The worst over all positions of |value - reference|^2 / |reference|^2."""
    value, reference = value.astype(np.float64), reference.astype(np.float64)
    return float(np.max(np.sum((value - reference) ** 2, -1) / np.sum(reference**2, -1)))


def published_layout(c: dict) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a published checkpoint with this configuration, in reading order."""
    h, heads = c["hidden_size"], c["num_attention_heads"]
    if plain := "kv_lora_rank" not in c:
        rot = nope = v = rank_q = rank_kv = None
    else:
        rot, v, nope = c["qk_rope_head_dim"], c["v_head_dim"], c["qk_nope_head_dim"]
        rank_q, rank_kv = c["q_lora_rank"], c["kv_lora_rank"]
    layout: dict[str, tuple[int, ...]] = {}

    def mlp(prefix: str, width: int):
        layout[prefix + "gate_proj.weight"] = layout[prefix + "up_proj.weight"] = (width, h)
        layout[prefix + "down_proj.weight"] = (h, width)

    def latent(attention: str):
        if rank_q is None:
            layout[attention + "q_proj.weight"] = (heads * (nope + rot), h)
        else:
            layout[attention + "q_a_proj.weight"] = (rank_q, h)
            layout[attention + "q_a_layernorm.weight"] = (rank_q,)
            layout[attention + "q_b_proj.weight"] = (heads * (nope + rot), rank_q)
        layout[attention + "kv_a_proj_with_mqa.weight"] = (rank_kv + rot, h)
        layout[attention + "kv_a_layernorm.weight"] = (rank_kv,)
        layout[attention + "kv_b_proj.weight"] = (heads * (nope + v), rank_kv)
        layout[attention + "o_proj.weight"] = (h, heads * v)

    def layer(prefix: str, is_moe: bool):
        layout[prefix + "input_layernorm.weight"] = layout[prefix + "post_attention_layernorm.weight"] = (h,)
        attention = prefix + "self_attn."
        if plain:
            for name in ("q", "k", "v", "o"):
                layout[f"{attention}{name}_proj.weight"] = (h, h)
        else:
            latent(attention)
        if not is_moe:
            return mlp(prefix + "mlp.", c["intermediate_size"])
        layout[prefix + "mlp.gate.weight"] = (c["n_routed_experts"], h)
        if c.get("topk_method") == "noaux_tc":
            layout[prefix + "mlp.gate.e_score_correction_bias"] = (c["n_routed_experts"],)
        for expert in range(c["n_routed_experts"]):
            mlp(f"{prefix}mlp.experts.{expert}.", c["moe_intermediate_size"])
        mlp(prefix + "mlp.shared_experts.", c["n_shared_experts"] * c["moe_intermediate_size"])

    layout["model.embed_tokens.weight"] = (c["vocab_size"], h)
    for n in range(c["num_hidden_layers"]):
        layer(f"model.layers.{n}.", n >= c["first_k_dense_replace"] and n % c.get("moe_layer_freq", 1) == 0)
    layout["model.norm.weight"] = (h,)
    layout["lm_head.weight"] = (c["vocab_size"], h)
    for n in range(c.get("num_nextn_predict_layers", 0)):
        prefix = f"model.layers.{c['num_hidden_layers'] + n}."
        layer(prefix, True)
        layout[prefix + "embed_tokens.weight"] = (c["vocab_size"], h)
        layout[prefix + "shared_head.head.weight"] = (c["vocab_size"], h)
        layout[prefix + "enorm.weight"] = layout[prefix + "hnorm.weight"] = (h,)
        layout[prefix + "eh_proj.weight"] = (h, 2 * h)
        layout[prefix + "shared_head.norm.weight"] = (h,)
    return layout


def scale_recipe(name: str, scale: float) -> tuple[str, float, float]:
    """Of the scales of an FP8 tensor whose weights shall reach `scale`: powers of two for MLPs."""
    base = 2.0 ** round(math.log2(scale / FP8_REACH))
    return ("POW2", base, 0.0) if ".mlp." in name else ("F32", base / 2, base)


def dequantised(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """FP8 weights as floats: each of `scales` is of a block of 128 x 128, the last ones ragged."""
    rows, cols = codes.shape
    values = torch.from_numpy(codes).to(torch.float8_e4m3fn).float().numpy()
    return values * scales[np.arange(rows)[:, None] // 128, np.arange(cols)[None, :] // 128]


def values_of(name: str, shape: tuple[int, ...], dtype: str, scale: float, offset: float) -> np.ndarray:
    if dtype == "POW2":
        powers = np.floor(2 * generator.unit(name, math.prod(shape))).reshape(shape)
        return np.float32(scale) * np.exp2(powers)
    return generator.tensor(name, shape, scale, offset)


def recipe(case: Case, name: str, shape: tuple[int, ...]) -> tuple[str, float, float]:
    """dtype, scale and offset of one tensor. Scales keep activations near 1 and routing decisive."""
    if name.endswith("e_score_correction_bias"):
        return "F32", 0.0625, case.bias_offset
    if name.endswith("norm.weight"):
        return case.dtype, 0.125, 1.0
    fan_in = 1 if name.endswith("embed_tokens.weight") else shape[-1]
    gain = case.router_gain if name.endswith("mlp.gate.weight") else 1.0
    return case.dtype, float(np.float32(gain * math.sqrt(3 / fan_in))), 0.0


def modern_config(c: dict) -> transformers.PreTrainedConfig:
    """The same as a configuration object of transformers 5, which alone knows its own dialect."""
    rope = {"rope_type": "default", "rope_theta": c["rope_theta"]}
    if c["rope_scaling"] is not None:
        rope |= c["rope_scaling"] | {"rope_type": "yarn"}
        del rope["type"]
    dropped = {"quantization_config", "rope_scaling", "rope_theta", "torch_dtype", "scoring_func",
               "architectures", "model_type"}
    if c["model_type"] != "deepseek_v2":
        dropped |= {"topk_method"}
    if c["model_type"] == "glm4_moe_lite":
        dropped |= {"first_k_dense_replace", "partial_rotary_factor"}
    dropped |= {key for key, default in (("moe_layer_freq", 1), ("num_nextn_predict_layers", 0))
                if c.get(key) == default}
    cls = dict(deepseek_v2=transformers.DeepseekV2Config, deepseek_v3=transformers.DeepseekV3Config,
               glm4_moe_lite=transformers.Glm4MoeLiteConfig)[c["model_type"]]
    config = cls(**{key: value for key, value in c.items() if key not in dropped}, rope_parameters=rope)
    config._attn_implementation = "eager"
    return config


class LayerWithFrequency(modeling_deepseek_v3.DeepseekV3DecoderLayer):
    """The repair `freq`: a dense layer where the layer's number is no multiple of moe_layer_freq."""

    def __init__(self, config, layer_idx: int):
        super().__init__(config, layer_idx)
        if layer_idx % config.moe_layer_freq != 0:
            self.mlp = modeling_deepseek_v3.DeepseekV3MLP(config)


def repair(model: torch.nn.Module, case: Case) -> None:
    """Makes transformers do what the published code does, where the case says that it does not."""
    c = case.config
    for layer in model.model.layers:
        if "mscale" in case.repairs:
            mscale = c["rope_scaling"]
            layer.self_attn.scaling *= yarn_mscale(mscale["factor"], mscale["mscale_all_dim"]) ** 2
        if not hasattr(layer.mlp, "experts"):
            continue
        if "groups" in case.repairs:
            layer.mlp.num_experts = c["n_routed_experts"]
        if "norm" in case.repairs:
            def normalised(logits, route=layer.mlp.route_tokens_to_experts):
                chosen, weight = route(logits)
                return chosen, weight / weight.sum(-1, keepdim=True) * c["routed_scaling_factor"]
            layer.mlp.route_tokens_to_experts = normalised


def check_layout(path: Path, layout: dict, case: Case) -> None:
    """What save_pretrained wrote must be the published names and shapes, MTP layers apart."""
    with safe_open(path, "pt") as file:
        saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    extra = tuple(f"model.layers.{case.config['num_hidden_layers'] + n}."
                  for n in range(case.config.get("num_nextn_predict_layers", 0)))
    expected = {name: shape for name, shape in layout.items() if not extra or not name.startswith(extra)}
    if saved != expected:
        sys.exit(f"{case.name}: not the published layout: {set(saved.items()) ^ set(expected.items())}")


def transformers_model(case: Case, tensors: dict[str, torch.Tensor], folder: Path) -> torch.nn.Module:
    """A transformers model that holds `tensors`, and its checkpoint in `folder`."""
    config, plain = modern_config(case.config), modeling_deepseek_v3.DeepseekV3DecoderLayer
    cls = getattr(transformers, case.config["architectures"][0])
    if "freq" in case.repairs:
        modeling_deepseek_v3.DeepseekV3DecoderLayer = LayerWithFrequency
    try:
        cls(config).to(TORCH_DTYPE[case.dtype]).save_pretrained(folder)
        check_layout(folder / "model.safetensors", published_layout(case.config), case)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        model, report = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                            output_loading_info=True)
    finally:
        modeling_deepseek_v3.DeepseekV3DecoderLayer = plain
    if report["missing_keys"] or report["mismatched_keys"]:
        sys.exit(f"{case.name}: transformers did not load all tensors: {report}")
    repair(model, case)
    return model.eval()


def ask_transformers(case: Case, tensors: dict[str, torch.Tensor], tokens: list[int],
                     config: Path) -> tuple[np.ndarray, torch.Tensor]:
    """transformers' logits of every position, and the last one's attention; writes config.json."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model = transformers_model(case, tensors, Path(folder))
        said = model(torch.tensor([tokens]), use_cache=False, output_attentions=True)
        logits = said.logits[0].numpy()
        attention = torch.stack([layer[0, :, -1, :] for layer in said.attentions]).contiguous()
        saved = json.loads((Path(folder) / "config.json").read_text())
    if "quantization_config" in case.config:  # it was given the weights dequantised
        saved["quantization_config"] = case.config["quantization_config"]
    config.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    return logits, attention


def choose_tokens(case: Case, oracle: Oracle) -> tuple[list[int], np.ndarray]:
    """The first seeded prompt that is routed clearly everywhere, and the oracle's logits for it."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, case.config["vocab_size"], case.n_tokens).tolist()
        oracle.margin = math.inf
        logits = oracle.logits(tokens)
        if oracle.margin > MARGIN:
            return tokens, logits
    sys.exit(f"{case.name}: no prompt has a routing margin above {MARGIN}")


def make(case: Case, out: Path) -> dict:
    """Writes the files of one case into `out`; returns its entry of cases.json."""
    out.mkdir(parents=True, exist_ok=True)
    layout = published_layout(case.config)
    recipes, tensors = {}, {}
    fp8 = "quantization_config" in case.config
    for name, shape in list(layout.items()):
        dtype, scale, offset = recipes[name] = recipe(case, name, shape)
        if not fp8 or not name.endswith(("proj.weight", "proj_with_mqa.weight")):
            tensors[name] = torch.from_numpy(values_of(name, shape, *recipes[name])).to(TORCH_DTYPE[dtype])
            continue
        scales = name + "_scale_inv"
        layout[scales] = tuple(-(-size // 128) for size in shape)
        recipes[name], recipes[scales] = ("F8_E4M3", FP8_REACH, 0.0), scale_recipe(name, scale)
        tensors[name] = torch.from_numpy(dequantised(values_of(name, shape, *recipes[name]),
                                                     values_of(scales, layout[scales], *recipes[scales])))
    oracle = Oracle(case.config, {name: tensor.float().numpy() for name, tensor in tensors.items()})
    tokens, exact = choose_tokens(case, oracle)
    golden = dict(tokens=torch.tensor(tokens, dtype=torch.int32))
    if "oracle" in case.repairs:
        print(f"{case.name:20} the NumPy oracle alone: routing margin {oracle.margin:.1e}, "
              f"deviation {exact.std():.2f}", flush=True)
        (out / "config.json").write_text(json.dumps(case.config, indent=2) + "\n")
    else:
        theirs, golden["attention"] = ask_transformers(case, tensors, tokens, out / "config.json")
        error = nmse(theirs, exact)
        repaired = " (repaired)" if case.repairs else ""
        print(f"{case.name:20} transformers{repaired} against the NumPy oracle: NMSE {error:.1e}, "
              f"routing margin {oracle.margin:.1e}, deviation {exact.std():.2f}", flush=True)
        if error > AGREEMENT:
            sys.exit(f"{case.name}: the oracles disagree")
    logits = (exact if case.repairs else theirs).astype(np.float32)[-case.positions:]
    (out / "config_published.json").write_text(json.dumps(case.config, indent=2) + "\n")
    lines = [f"{name} {dtype} {','.join(map(str, layout[name]))} {np.float32(scale)!s} {offset}"
             for name, (dtype, scale, offset) in recipes.items()]
    (out / "tensors.txt").write_text("\n".join(lines) + "\n")
    golden["logits"] = torch.from_numpy(logits).contiguous()
    save_file(golden, out / "golden.safetensors")
    return dict(name=case.name, notes=case.notes, oracle="numpy" if case.repairs else "transformers",
                why=" ".join(case.repairs.values()), limit=LIMIT)


def differences(made: Path, committed: Path) -> list[str]:
    """Names of the files of a case that differ; logits may differ as two machines' roundings do."""
    different = [name for name in ("config.json", "config_published.json", "tensors.txt")
                 if (made / name).read_text() != (committed / name).read_text()]
    a, b = load_file(made / "golden.safetensors"), load_file(committed / "golden.safetensors")
    if not np.array_equal(a["tokens"], b["tokens"]):
        different.append("tokens")
    elif nmse(a["logits"], b["logits"]) > AGREEMENT:
        different.append("logits")
    elif ("attention" in a) != ("attention" in b) or \
            "attention" in a and np.abs(a["attention"] - b["attention"]).max() > 1e-6:
        different.append("attention")
    return different


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    parser.add_argument("case", nargs="*", help="only these")
    args = parser.parse_args()
    unknown = set(args.case) - {case.name for case in CASES}
    if unknown:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    cases = [case for case in CASES if not args.case or case.name in args.case]
    if args.check:
        with tempfile.TemporaryDirectory() as folder:
            for case in cases:
                make(case, Path(folder) / case.name)
                if different := differences(Path(folder) / case.name, HERE / case.name):
                    sys.exit(f"{case.name}: not what is committed: {', '.join(different)}")
        return
    entries = {case.name: make(case, HERE / case.name) for case in cases}
    path = HERE / "cases.json"
    known = {entry["name"]: entry for entry in json.loads(path.read_text())} if path.exists() else {}
    merged = [(known | entries)[case.name] for case in CASES if case.name in known | entries]
    path.write_text(json.dumps(merged, indent=1) + "\n")


if __name__ == "__main__":
    main()
