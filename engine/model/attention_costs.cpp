#include "model/attention_costs.h"

#include "base/error.h"

#include <algorithm>
#include <map>

namespace fathom {

namespace {

constexpr uint32_t LEAST_TOKENS = 32; // of a chunk that is worth the launches that expanding adds
constexpr int ROUNDS = 3;             // the best counts: other work only ever adds

// Seconds of the ops of a step, by what they are called within a layer; of all layers together.
std::map<std::string, double> seconds_of(Model& model, Executor& executor, StepKind kind,
                                         std::span<const StepRow> rows) {
    const Plan& plan = model.plan(kind);
    std::vector<double> best;
    for (int round = 0; round < ROUNDS; ++round) {
        model.write_step(kind, rows);
        executor.wait(executor.start(plan, true));
        const std::vector<double> seconds = executor.seconds(plan);
        if (seconds.empty()) return {};
        if (best.empty()) best = seconds;
        for (size_t i = 0; i < best.size(); ++i) best[i] = std::min(best[i], seconds[i]);
    }
    std::map<std::string, double> sums;
    for (size_t i = 0; i < best.size(); ++i) {
        const std::string& label = plan.ops()[i].label; // layers.N.op, or layers.N.op.part
        if (!label.starts_with("layers.")) continue;
        const std::string op = label.substr(label.find('.', 7) + 1);
        sums[op] += best[i];
    }
    return sums;
}

} // namespace

bool AttentionCosts::worth_expanding(uint32_t tokens, uint32_t before) const {
    if (tokens < LEAST_TOKENS) return false;
    const double pairs = double(tokens) * before + double(tokens) * (tokens + 1) / 2;
    return expand_row * (double(before) + tokens) + expanded_pair * pairs <
           absorb_row * tokens + absorbed_pair * pairs;
}

AttentionCosts counted_costs(const ModelConfig& c) {
    const double head = double(c.qk_head_dim()) + c.v_head_dim;
    // Nothing is raised, and expanding only copies; but every token reads its keys and values alone, where a
    // tile of expanded attention shares what it reads.
    if (!c.is_mla()) return {head, head, 0, 2 * head};
    const double raise = double(c.kv_lora_rank) * (c.qk_nope_head_dim + c.v_head_dim);
    return {raise, head, raise, 2.0 * c.kv_lora_rank + c.qk_rope_head_dim};
}

std::optional<AttentionCosts> measured_costs(Model& model, Executor& executor,
                                             std::span<const StepRow> rows) {
    check(!rows.empty(), "attention is measured over a prompt");
    const auto n = static_cast<uint32_t>(rows.size());
    const StepKind absorbed{StepKind::Mode::prefill, bucket_for(n)},
        expanded{absorbed.mode, absorbed.rows, true};
    auto a = seconds_of(model, executor, absorbed, rows), e = seconds_of(model, executor, expanded, rows);
    if (a.empty() || e.empty()) return {};
    const double layers = model.config.n_layers, pairs = double(n) * (n + 1) / 2;
    return AttentionCosts{
        .expand_row = (e["rotate_queries"] + e["cache_read"] + e["kv_b"] + e["kv_b.keys"]) / layers / n,
        .expanded_pair = e["expanded_attention"] / layers / pairs,
        .absorb_row = (a["absorb"] + a["latent_attention.combine"] + a["plain_attention.join"]) / layers / n,
        .absorbed_pair = (a["latent_attention"] + a["plain_attention"]) / layers / pairs,
    };
}

} // namespace fathom
