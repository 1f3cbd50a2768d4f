// `fathom inspect`: what a model consists of, from its configuration and the headers of its files; or what is
// in one file; and on request what loading it would take of a device's memory. Only that needs a device.
#include "base/error.h"
#include "cli/command.h"
#include "cli/figures.h"
#include "cli/inspect_file.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "model/preset.h"
#include "session/fit.h"

#include <fmt/format.h>
#include <map>
#include <memory>
#include <unistd.h>

namespace fathom::cli {

namespace {

const char* architecture_text(Architecture architecture) {
    switch (architecture) {
    case Architecture::deepseek:
        return "DeepSeek MoE (the first)";
    case Architecture::deepseek_v2:
        return "DeepSeek V2";
    case Architecture::deepseek_v3:
        return "DeepSeek V3";
    case Architecture::glm4_moe_lite:
        return "GLM-4 MoE Lite";
    }
    return "";
}

std::string attention_text(const ModelConfig& c) {
    if (!c.is_mla())
        return fmt::format("plain, {} heads of {}, rotary in {}", c.n_heads, c.qk_head_dim(),
                           c.rope_interleaved ? "pairs" : "halves");
    const std::string rank =
        c.q_lora_rank ? fmt::format("queries through rank {}", c.q_lora_rank) : "queries in full rank";
    return fmt::format(
        "MLA, {} heads: {} + {} rotary for queries and keys, {} for values; latent {} + {}, {}", c.n_heads,
        c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim, c.kv_lora_rank, c.qk_rope_head_dim, rank);
}

std::string expert_text(const ModelConfig& c) {
    if (c.n_routed_experts == 0) return "none: every layer is dense";
    const std::string groups = c.n_groups > 1
                                   ? fmt::format(" in {} groups ({} kept)", c.n_groups, c.n_active_groups)
                                   : std::string();
    return fmt::format("{} routed{}, {} active, {} shared, each {} wide", c.n_routed_experts, groups,
                       c.n_active_experts, c.n_shared_experts, c.expert_dim);
}

std::string router_text(const ModelConfig& c) {
    const char* method = c.topk_method == TopkMethod::greedy ? "best of all (greedy)"
                         : c.topk_method == TopkMethod::group_limited_greedy
                             ? "best of the best groups (group_limited_greedy)"
                             : "bias for selection (noaux_tc)";
    return fmt::format("{}, {}, weights {}times {:g}", c.scoring == Scoring::softmax ? "softmax" : "sigmoid",
                       method, c.norm_topk_prob ? "normalised, " : "", c.routed_scaling_factor);
}

std::string context_text(const ModelConfig& c) {
    if (c.yarn.factor == 0) return fmt::format("{} tokens, rotary base {:g}", c.max_position, c.rope_theta);
    return fmt::format("{} tokens, rotary base {:g}, YaRN {:g}x from {}", c.max_position, c.rope_theta,
                       c.yarn.factor, c.yarn.original_max_position);
}

std::string storage_text(std::span<const TensorView> tensors, uint64_t bytes) {
    std::map<std::string_view, uint64_t> dtypes;
    for (const TensorView& tensor : tensors) ++dtypes[name_of(tensor.dtype)];
    std::string out = fmt::format("{} in {} tensors (", bytes_text(bytes), tensors.size());
    for (const auto& [dtype, count] : dtypes)
        out += fmt::format("{}{} {}", out.back() == '(' ? "" : ", ", count, dtype);
    return out + ")";
}

std::string table_text(const ParameterFigures& parameters, const ByteFigures& bytes, const Style& style) {
    std::string out = style.bold(
        fmt::format("{:<16}{:>12}{:>14}{:>12}{:>8}", "part", "parameters", "active", "bytes", "share"));
    out += '\n';
    for (size_t k = 0; k < N_KINDS; ++k) {
        const KindFigures& figures = parameters.kinds[k];
        if (figures.parameters == 0 && bytes.bytes[k] == 0) continue;
        const double share =
            bytes.total ? static_cast<double>(bytes.bytes[k]) / static_cast<double>(bytes.total) : 0;
        out += fmt::format("{:<16}{:>12}{:>14}{:>12}{:>6.1f} %\n", name_of(static_cast<Kind>(k)),
                           count_text(figures.parameters), count_text(figures.active),
                           bytes_text(bytes.bytes[k]), share * 100);
    }
    return out;
}

std::string cache_text(const ModelConfig& config) {
    constexpr uint64_t element = 2; // bytes: 16-bit numbers, as papers count
    const CacheFigures cache = cache_figures(config);
    const auto line = [&](const char* name, uint64_t elements) {
        return fmt::format("  {:<32}{:>12} bytes a token{:>12} for {} tokens\n", name, elements * element,
                           bytes_text(elements * element * config.max_position), config.max_position);
    };
    if (!config.is_mla()) return line("this model (keys and values)", cache.own);
    return line("this model (latent)", cache.own) + line("with plain multi-head attention", cache.plain) +
           fmt::format("  {:.1f} times less\n", cache.ratio());
}

} // namespace

std::string config_text(const ModelConfig& config) {
    const ParameterFigures parameters = parameter_figures(config);
    uint32_t moe_layers = 0;
    for (uint32_t layer = 0; layer < config.n_layers; ++layer) moe_layers += config.is_moe(layer);
    const auto mtp = parameters.kinds[static_cast<size_t>(Kind::mtp)].parameters;
    const uint64_t embedding = parameters.kinds[static_cast<size_t>(Kind::embedding)].active;
    std::string out;
    const auto row = [&](std::string_view name, std::string_view text) {
        out += fmt::format("{:<14}{}\n", name, text);
    };
    row("architecture", architecture_text(config.architecture));
    row("layers",
        fmt::format("{}: {} dense ({} wide), {} with experts{}; width {}, vocabulary {}", config.n_layers,
                    config.n_layers - moe_layers, config.dense_dim, moe_layers,
                    config.n_mtp_layers ? fmt::format(", {} for MTP apart", config.n_mtp_layers) : "",
                    config.dim, config.vocab_size));
    row("attention", attention_text(config));
    row("experts", expert_text(config));
    if (moe_layers) row("router", router_text(config));
    row("context", context_text(config));
    row("parameters", fmt::format("{} in all{}", count_text(parameters.total),
                                  mtp ? fmt::format(", {} more for MTP", count_text(mtp)) : ""));
    row("",
        fmt::format("{} active for one token ({:.1f} %), {} without the input embedding",
                    count_text(parameters.active),
                    100.0 * static_cast<double>(parameters.active) / static_cast<double>(parameters.total),
                    count_text(parameters.active - embedding)));
    return out;
}

namespace {

struct Options {
    ModelOptions model;
    std::string format; // of a preset's weights
    bool presets = false;
    bool plan() const { // there is a plan where there is something to plan for
        return !model.device.empty() || model.context != 0 || model.experts_on_host ||
               !model.quantize.empty() || !format.empty();
    }
};

const char* placement_text(gpu::Placement placement) {
    return placement == gpu::Placement::device ? ""
           : placement == gpu::Placement::host ? "  in the host's memory"
                                               : "  mapped by the host";
}

std::string alternatives_text(const Fit& fit) {
    if (fit.alternatives.empty()) return "  nothing smaller fits on this device\n";
    std::string out;
    for (const Fit::Alternative& other : fit.alternatives) {
        out += fmt::format("  {:<32}{}", other.change, pools_text(other.pools));
        if (other.tokens_per_second != 0) out += ", " + bound_text(other.tokens_per_second);
        out += '\n';
    }
    return out;
}

// What decoding reads, and what that allows at most.
std::string rate_text(const Fit& fit) {
    using gpu::Placement;
    const auto read = [&](Placement p) { return fit.plan.read[static_cast<size_t>(p)]; };
    std::string out =
        fmt::format("  a decoded token reads {} of weights on the device (copies there run at {}/s)",
                    bytes_text(read(Placement::device)), bytes_text(static_cast<uint64_t>(fit.device_rate)));
    if (read(Placement::host) != 0)
        out += fmt::format("\n  and {} of the host's ({}/s)", bytes_text(read(Placement::host)),
                           bytes_text(static_cast<uint64_t>(fit.host_rate)));
    if (fit.tokens_per_second != 0) out += ": " + bound_text(fit.tokens_per_second);
    return out + "\n";
}

std::string plan_text(const FitQuestion& question, const Style& style) {
    const Fit fit = fathom::fit(question);
    std::string out = style.bold(fmt::format("memory on {}", printable(fit.device)));
    out += fmt::format("\n  context {}, cache for {} tokens\n", fit.context, fit.cache_tokens);
    for (const auto& item : fit.plan.items)
        out += fmt::format("  {:<28}{:>12}{}\n", item.owner, bytes_text(item.reserved),
                           placement_text(item.placement));
    for (const MemoryPool& pool : fit.pools)
        out += fmt::format("  {:<28}{:>12} of {} available, {} in all\n", pool.name, bytes_text(pool.needed),
                           bytes_text(pool.available), bytes_text(pool.bytes));
    out += rate_text(fit);
    if (fit.obstacle.empty()) return out + "  " + style.bold("fits") + "\n";
    return out + "  " + style.red("does not fit: ") + fit.obstacle + "\n" + style.bold("what would fit") +
           "\n" + alternatives_text(fit);
}

int inspect_preset(const Preset& preset, const Options& options) {
    if (!options.model.quantize.empty())
        throw UsageError("--quantize is for a model's weights; --format says those of a preset");
    const Style style = Style::of(STDOUT_FILENO);
    std::string out =
        style.bold(preset.name) + ", a preset: " + preset.about + "\n\n" + config_text(preset.config);
    out += '\n' + style.bold("weights, in files of one format (without MTP)") + '\n';
    for (const DType dtype : {DType::bf16, DType::f8_e4m3, DType::q8_0, DType::q6_k, DType::q5_k, DType::q4_k,
                              DType::iq4_xs, DType::q3_k, DType::q2_k})
        out += fmt::format("  {:<10}{:>12}\n", name_of(dtype),
                           bytes_text(checkpoint_bytes(preset.config, dtype)));
    out += '\n' + style.bold("cache, in 16-bit numbers") + '\n' + cache_text(preset.config);
    if (options.plan()) {
        const DType dtype = dtype_of(format_named(options.format.empty() ? "bf16" : options.format));
        const SyntheticModel model{preset.name, preset.config, {.dtype = dtype}};
        out += '\n' + plan_text(fit_question(model, options.model.load()), style);
    }
    write_out(out);
    return OK;
}

int list_presets() {
    std::string out;
    for (const Preset& preset : presets()) {
        std::string names = preset.name;
        for (const std::string& also : preset.also) names += ", " + also;
        out += fmt::format("{:<24}{}\n", names, preset.about);
    }
    write_out(out);
    return OK;
}

// Whether there is more than a vocabulary, or a model of another family.
bool has_model(const ModelFiles& files) {
    if (!files.gguf()) return true;
    const std::string architecture = our_architecture(*files.gguf());
    return !architecture.empty() && files.gguf()->has(architecture + ".block_count");
}

std::string model_text(const ModelFiles& files, const Style& style) {
    const ModelConfig config = model_config(files);
    const ByteFigures bytes = byte_figures(files.checkpoint.tensors(), config);
    return config_text(config) +
           fmt::format("{:<14}{}\n\n", "storage", storage_text(files.checkpoint.tensors(), bytes.total)) +
           table_text(parameter_figures(config), bytes, style) + '\n' +
           style.bold("cache, in 16-bit numbers (--cache-type f16; the default takes twice as much)") + '\n' +
           cache_text(config);
}

int inspect(const Options& options) {
    const std::filesystem::path& path = options.model.model;
    const Style style = Style::of(STDOUT_FILENO);
    std::error_code ignored; // what cannot be looked at is an error of open_model
    if (!std::filesystem::exists(path, ignored))
        if (const Preset* preset = find_preset(path.string())) return inspect_preset(*preset, options);
    if (!options.format.empty())
        throw UsageError("--format is for presets; --quantize is for the weights of a model");
    if (std::filesystem::is_regular_file(path, ignored)) {
        const FileKind kind = kind_of_file(path);
        const bool alone = kind != FileKind::safetensors ||
                           !std::filesystem::exists(path.parent_path() / "config.json", ignored);
        if (alone && kind != FileKind::gguf) {
            const std::string name = printable(path.filename().string());
            write_out(style.bold(name) + "\n\n" + file_text(path, kind, style));
            return OK;
        }
    }
    const ModelFiles files = open_model(path);
    std::string out = style.bold(printable(files.name)) + "\n\n";
    if (has_model(files)) out += model_text(files, style);
    if (files.gguf())
        out += (has_model(files) ? "\n" : "") + gguf_text(files, style) + "\n" +
               tensors_text(files.checkpoint.tensors(), style);
    if (options.plan() && has_model(files))
        out += '\n' + plan_text(fit_question(files, options.model.load()), style);
    write_out(out);
    return OK;
}

} // namespace

Action prepare_inspect(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_model(app, options->model);
    add_flag(app, "--presets", options->presets,
             "List the names that MODEL may be instead: published shapes, without weights");
    add_loading(app, options->model);
    add_context(app, options->model);
    add_format(app, "--format", options->format, "Format of a preset's weights, in its memory plan");
    return [options] { return options->presets ? list_presets() : inspect(*options); };
}

} // namespace fathom::cli
