// Mixture of experts: routing, sorting of (token, slot) pairs by expert, the experts' two halves. Slots of a
// token are its routed experts in order of selection, then the shared experts; a dense layer is one shared
// expert of full width.
#include "base/numbers.h"
#include "model/ops/ops.h"
#include "model/ops/product.h"
#include "model/ops/reference.h"

#include "base/error.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace fathom {

using namespace reference;

namespace {

constexpr float DROPPED = -1.7e38f; // key of an expert in a dropped group: below every real one

std::vector<float> router_scores(const Router& p, std::vector<double> logits) {
    std::vector<float> scores(p.n_experts);
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const double z : logits) sum += std::exp(z - largest);
    for (uint32_t e = 0; e < p.n_experts; ++e)
        scores[e] = static_cast<float>(p.flags & ROUTER_SIGMOID ? 1 / (1 + std::exp(-logits[e]))
                                                                : std::exp(logits[e] - largest) / sum);
    return scores;
}

// Lowers the keys of all experts outside the best groups to DROPPED.
void drop_groups(const Router& p, std::vector<float>& keys) {
    const uint32_t size = p.n_experts / p.n_groups;
    std::vector<std::pair<float, uint32_t>> groups;
    for (uint32_t g = 0; g < p.n_groups; ++g) {
        std::vector<float> members(keys.begin() + g * size, keys.begin() + (g + 1) * size);
        std::sort(members.rbegin(), members.rend());
        groups.emplace_back(p.flags & ROUTER_GROUP_TOP2 && size > 1 ? members[0] + members[1] : members[0],
                            g);
    }
    std::stable_sort(groups.begin(), groups.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    for (uint32_t i = p.n_active_groups; i < p.n_groups; ++i)
        std::fill_n(keys.begin() + groups[i].second * size, size, DROPPED);
}

// What the router tells beside experts and weights; see TRACE_LAYER_WORDS. Groups that were dropped have
// DROPPED keys.
void trace_choice(const Router& p, const std::vector<float>& scores, const std::vector<float>& keys,
                  const std::vector<uint32_t>& order, uint32_t* out) {
    const float last = keys[order[p.n_active - 1]];
    const bool rejected = p.n_active < p.n_experts && keys[order[p.n_active]] > DROPPED;
    const float margin = rejected ? last - keys[order[p.n_active]] : std::numeric_limits<float>::infinity();
    double sum = 0, entropy = 0;
    for (const double score : scores) sum += score;
    for (const double score : scores) entropy -= score > 0 ? score / sum * std::log(score / sum) : 0;
    uint32_t swapped = 0, groups = 0;
    for (uint32_t i = 0; i < p.n_active; ++i) {
        const uint32_t c = order[i];
        uint32_t before = 0;
        for (uint32_t e = 0; e < p.n_experts; ++e)
            before += keys[e] > DROPPED && (scores[e] > scores[c] || (scores[e] == scores[c] && e < c));
        if (before >= p.n_active) swapped |= 1u << i;
    }
    const uint32_t size = p.n_experts / p.n_groups;
    for (uint32_t g = 0; g < std::min(p.n_groups, 32u); ++g)
        if (keys[g * size] > DROPPED) groups |= 1u << g;
    out[TRACE_MARGIN] = std::bit_cast<uint32_t>(margin);
    out[TRACE_ENTROPY] = std::bit_cast<uint32_t>(static_cast<float>(entropy));
    out[TRACE_SWAPPED] = swapped;
    out[TRACE_GROUPS] = groups;
}

template <Format F> void router_reference(const Router& p) {
    for (uint32_t t = 0; t < n_rows(p.state); ++t) {
        std::vector<double> logits(p.n_experts);
        const auto x = normed(row(p.x, t, p.x_stride), p.dim, p.norm, p.eps);
        for (uint32_t e = 0; e < p.n_experts; ++e)
            logits[e] = dot<F>(p.weights, e, p.row_bytes, x.data(), p.dim);
        const std::vector<float> scores = router_scores(p, logits);
        std::vector<float> keys(p.n_experts);
        for (uint32_t e = 0; e < p.n_experts; ++e)
            keys[e] = scores[e] + (p.bias ? floats(p.bias)[e] : 0.0f) + floats(p.control)[2 * e];
        const std::vector<float> all_keys = keys;
        if (p.n_groups > 1) drop_groups(p, keys);
        std::vector<uint32_t> order(p.n_experts);
        for (uint32_t e = 0; e < p.n_experts; ++e) order[e] = e;
        std::stable_sort(order.begin(), order.end(),
                         [&](uint32_t a, uint32_t b) { return keys[a] > keys[b]; });
        double sum = 0;
        for (uint32_t i = 0; i < p.n_active; ++i) sum += scores[order[i]];
        const double factor = p.flags & ROUTER_NORMALISE ? p.scale / (sum + 1e-20) : p.scale;
        uint32_t* experts = words(p.experts) + uint64_t{t} * p.n_slots;
        float* weights = floats(p.expert_weights) + uint64_t{t} * p.n_slots;
        for (uint32_t i = 0; i < p.n_slots; ++i) {
            experts[i] = i < p.n_active ? order[i] : p.n_experts + i - p.n_active;
            weights[i] =
                i < p.n_active
                    ? static_cast<float>(scores[experts[i]] * factor * floats(p.control)[2 * experts[i] + 1])
                    : 1.0f;
        }
        if (p.trace_stride == 0) continue;
        uint32_t* trace = trace_row(p.state, p.trace, p.trace_stride, t);
        std::copy_n(experts, p.n_active, trace);
        std::memcpy(trace + p.n_active, weights, 4 * p.n_active);
        trace_choice(p, scores, keys, order, trace + 2 * p.n_active);
        if (const uint32_t scores_at = p.flags >> ROUTER_SCORES_AT) {
            std::memcpy(trace + scores_at, scores.data(), 4 * p.n_experts);
            std::memcpy(trace + scores_at + p.n_experts, all_keys.data(), 4 * p.n_experts);
        }
    }
}

void expert_sort_reference(const ExpertSort& p) {
    const uint32_t pairs = n_rows(p.state) * p.n_slots;
    uint32_t next = 0, n_items = 0;
    MoeItem* items = at<MoeItem>(p.items + sizeof(MoeGrids));
    for (uint32_t e = 0; e < p.n_experts; ++e) {
        const uint32_t first = next;
        for (uint32_t pair = 0; pair < pairs; ++pair)
            if (!p.experts || words(p.experts)[pair] == e) words(p.pairs)[next++] = pair;
        for (uint32_t i = first; i < next; i += p.tile)
            items[n_items++] = {e, i, std::min(p.tile, next - i), 0};
    }
    check(n_items <= p.max_items, "the tiles of pairs fit their list");
    *at<MoeGrids>(p.items) = {p.up_blocks, n_items, p.up_parts, p.down_blocks, n_items, p.down_parts, 0, 0};
}

template <Format F> void moe_up_reference(const MoeUp& p) {
    for (uint32_t pair = 0; pair < n_rows(p.state) * p.n_slots; ++pair) {
        const uint64_t bank = (p.experts ? words(p.experts)[pair] : 0) * uint64_t(p.expert_bytes);
        const auto normed_x = normed(row(p.x, pair / p.n_slots, p.x_stride), p.dim, p.norm, p.eps);
        const float* x = normed_x.data();
        for (uint32_t n = 0; n < p.width; ++n) {
            float& act = row(p.act, pair, p.act_stride)[n];
            const double gate = dot<F>(p.gate + bank, n, p.row_bytes, x, p.dim);
            const double silu = p.part == MOE_UP_UP ? act : gate / (1 + std::exp(-gate));
            const double up = p.part == MOE_UP_GATE ? 1 : dot<F>(p.up + bank, n, p.row_bytes, x, p.dim);
            act = static_cast<float>(silu * up);
        }
    }
}

template <Format F> void moe_down_reference(const MoeDown& p) {
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        for (uint32_t n = 0; n < p.dim; ++n) {
            double total = 0;
            for (uint32_t pair = t * p.n_slots; pair < (t + 1) * p.n_slots; ++pair) {
                const ADDRESS bank =
                    p.weights + (p.experts ? words(p.experts)[pair] : 0) * uint64_t(p.expert_bytes);
                const double value = dot<F>(bank, n, p.row_bytes, row(p.act, pair, p.act_stride), p.width);
                if (p.grouped) row(p.y, pair, p.y_stride)[n] = static_cast<float>(value);
                total += (p.expert_weights ? floats(p.expert_weights)[pair] : 1.0f) * value;
            }
            if (!p.grouped) row(p.y, t, p.y_stride)[n] += static_cast<float>(total);
        }
}

void moe_reduce_reference(const MoeReduce& p) {
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        for (uint32_t n = 0; n < p.dim; ++n) {
            double total = 0;
            for (uint32_t pair = t * p.n_slots; pair < (t + 1) * p.n_slots; ++pair)
                total += double(p.expert_weights ? floats(p.expert_weights)[pair] : 1.0f) *
                         row(p.x, pair, p.x_stride)[n];
            row(p.y, t, p.y_stride)[n] += static_cast<float>(total);
        }
}

Product up_product(const Plan& plan, const Matrix& gate) {
    return {"moe_up", gate.format, gate.rows, gate.cols, plan.prefill()};
}
Product down_product(const Plan& plan, const Matrix& down) {
    return {"moe_down", down.format, down.rows, down.cols, plan.prefill()};
}

} // namespace

namespace {

// As many lanes share a dot product as a subgroup has.
uint32_t router_lanes(const gpu::Caps& caps) {
    return caps.cpu ? caps.k_lanes
                    : std::max(caps.k_lanes, std::min(caps.subgroup_size, uint32_t{WORKGROUP}));
}
// Experts of a workgroup. A prompt's tokens keep the device busy with one each; of what is generated every
// round of experts has its own, but a CPU's few threads want fewer.
uint32_t router_share(const Plan& plan, uint32_t n_experts) {
    if (plan.prefill()) return n_experts;
    return plan.caps().cpu ? 16 : WORKGROUP / router_lanes(plan.caps());
}

} // namespace

bool moe_grouped(const Plan& plan) { return plan.rows() > 4 || plan.prefill(); }
uint32_t moe_least_tile(uint32_t rows) { return rows >= 32 ? 4 : 2; }
uint32_t moe_tile(const Plan& plan, const Mlp& mlp, uint32_t n_slots) {
    const auto by_lanes = [&](const Product& product) { return tier_for(plan, product) <= Tier::int8; };
    if (by_lanes(up_product(plan, mlp.gate)) && by_lanes(down_product(plan, mlp.down)))
        return plan.rows() >= 64 ? most_lane_tokens(plan.caps()) : moe_least_tile(plan.rows());
    return std::clamp(std::bit_ceil(plan.rows() * n_slots / mlp.down.count), 16u, 64u);
}
uint32_t moe_max_items(uint32_t rows, uint32_t n_slots, uint32_t n_experts, uint32_t tile) {
    return rows * n_slots / tile + n_experts; // every expert may end in a partial tile
}

MoeLists moe_lists(const Plan& plan, const Mlp& mlp, uint32_t n_slots, View pairs, View items) {
    const uint32_t tile = moe_tile(plan, mlp, n_slots);
    MoeLists lists{pairs, items, tile, moe_max_items(plan.rows(), n_slots, mlp.down.count, tile)};
    if (!moe_grouped(plan)) return lists;
    const ProductLaunch up = launch_for(plan, up_product(plan, mlp.gate), {.parts = 2, .tokens = tile}),
                        down = launch_for(plan, down_product(plan, mlp.down), {.tokens = tile});
    lists.grids.up_blocks = up.blocks, lists.grids.up_parts = div_up(tile, up.tokens);
    lists.grids.down_blocks = down.blocks, lists.grids.down_parts = div_up(tile, down.tokens);
    return lists;
}

void router(Plan& plan, const std::string& label, const StepMemory& step, const RoutingShape& shape,
            const Matrix& gate, const Input& x, const RouterMemory& m) {
    const uint32_t pairs_bytes = plan.rows() * shape.n_slots() * 4;
    const uint32_t share = router_share(plan, shape.n_experts);
    const Router p{step.state.address,
                   gate.view.address,
                   m.bias.bytes ? m.bias.address : 0,
                   m.control.address,
                   x.rows.address,
                   x.norm_address(),
                   m.experts.address,
                   m.expert_weights.address,
                   m.trace.address(),
                   m.arrivals.address,
                   shape.n_experts,
                   x.rows.cols,
                   gate.row_bytes,
                   x.rows.stride,
                   shape.n_active,
                   shape.n_groups,
                   shape.n_active_groups,
                   shape.flags | m.scores_at << ROUTER_SCORES_AT,
                   shape.n_slots(),
                   m.trace.words(),
                   shape.scale,
                   x.eps};
    const View arrivals{m.arrivals.address, arrival_bytes(plan.rows(), shape.n_experts)};
    std::vector<View> reads{step.state, gate.view, m.control, x.rows.span(plan.rows()), arrivals};
    if (x.normed()) reads.push_back(x.norm);
    if (m.bias.bytes) reads.push_back(m.bias);
    std::vector<View> writes{
        {m.experts.address, pairs_bytes}, {m.expert_weights.address, pairs_bytes}, arrivals};
    if (m.trace.words()) writes.push_back(m.trace.view);
    FATHOM_ADD_BY_FORMAT(plan, router, gate.format, label, p,
                         {div_up(shape.n_experts, share), plan.rows(), 1},
                         {router_lanes(plan.caps()), shape.n_experts, x.normed(), share}, reads, writes);
}

void expert_sort(Plan& plan, const std::string& label, const StepMemory& step, uint32_t n_experts,
                 uint32_t n_slots, View experts, const MoeLists& lists) {
    const ExpertSort p{step.state.address,
                       experts.bytes ? experts.address : 0,
                       lists.pairs.address,
                       lists.items.address,
                       n_experts,
                       n_slots,
                       lists.tile,
                       lists.max_items,
                       lists.grids.up_blocks,
                       lists.grids.up_parts,
                       lists.grids.down_blocks,
                       lists.grids.down_parts};
    std::vector<View> reads{step.state};
    if (experts.bytes) reads.push_back(experts);
    plan.add<expert_sort_reference>("expert_sort", label, p, {n_experts, 1, 1}, {n_experts}, reads,
                                    {lists.pairs, lists.items});
}

namespace {

// Workgroups: blocks of rows, tiles at most (or `alone` of what is not grouped), parts of a tile.
std::array<uint32_t, 3> moe_grid(const ProductLaunch& launch, bool grouped, const MoeLists& lists,
                                 uint32_t alone) {
    if (!grouped) return {launch.blocks, alone, 1};
    return {launch.blocks, lists.max_items, div_up(lists.tile, launch.tokens)};
}

// Lets the op that was added last have as many workgroups as there are tiles: the grid that expert_sort wrote
// at `offset` of its list, where that is this launch's but for their number (of an up that has not its gate's
// format it need not be).
void take_tiles(Plan& plan, const MoeLists& lists, size_t offset) {
    uint32_t listed[3];
    std::memcpy(listed, reinterpret_cast<const std::byte*>(&lists.grids) + offset, sizeof(listed));
    Op& op = plan.ops().back();
    if (listed[0] == op.grid[0] && listed[2] == op.grid[2])
        op.indirect = {lists.items.address + offset, sizeof(listed)};
}

// One launch of moe_up: both halves, or the part of them that `part` says, with its matrix as gate and as up.
void add_moe_up(Plan& plan, const std::string& label, const StepMemory& step, const Matrix& gate,
                const Matrix& up, uint32_t part, uint32_t n_slots, const Input& x, View experts,
                const MoeLists& lists, Rows act) {
    const bool grouped = moe_grouped(plan);
    const uint32_t width = gate.rows, pairs = plan.rows() * n_slots;
    const ProductLaunch launch = launch_of(plan, up_product(plan, gate),
                                           {2, grouped ? lists.tile : 1, x.normed(), grouped ? 1 : pairs});
    const MoeUp p{step.state.address,
                  gate.view.address,
                  up.view.address,
                  x.rows.address,
                  x.norm_address(),
                  experts.bytes ? experts.address : 0,
                  lists.pairs.address,
                  lists.items.address,
                  act.address,
                  BYTES{gate.matrix_bytes},
                  x.rows.cols,
                  width,
                  gate.row_bytes,
                  n_slots,
                  x.rows.stride,
                  act.stride,
                  grouped,
                  part,
                  x.eps};
    std::vector<View> reads{step.state, gate.view, x.rows.span(plan.rows())};
    if (x.normed()) reads.push_back(x.norm);
    if (up.view.address != gate.view.address) reads.push_back(up.view);
    if (experts.bytes) reads.push_back(experts);
    if (grouped) reads.insert(reads.end(), {lists.pairs, lists.items});
    if (part == MOE_UP_UP) reads.push_back(act.span(pairs));
    FATHOM_ADD_TIER(plan, moe_up, launch.tier, gate.format, label, p, moe_grid(launch, grouped, lists, pairs),
                    launch.constants, reads, {act.span(pairs)});
    if (grouped) take_tiles(plan, lists, offsetof(MoeGrids, up_blocks));
}

} // namespace

void moe_up(Plan& plan, const std::string& label, const StepMemory& step, const Mlp& mlp, uint32_t n_slots,
            const Input& x, View experts, const MoeLists& lists, Rows act) {
    if (mlp.gate.format == mlp.up.format) {
        add_moe_up(plan, label, step, mlp.gate, mlp.up, MOE_UP_BOTH, n_slots, x, experts, lists, act);
        return;
    }
    add_moe_up(plan, label + ".gate", step, mlp.gate, mlp.gate, MOE_UP_GATE, n_slots, x, experts, lists, act);
    add_moe_up(plan, label + ".up", step, mlp.up, mlp.up, MOE_UP_UP, n_slots, x, experts, lists, act);
}

void moe_down(Plan& plan, const std::string& label, const StepMemory& step, const Matrix& down,
              uint32_t n_slots, Rows act, View experts, View expert_weights, const MoeLists& lists,
              Rows pairs_out, Rows y) {
    const bool grouped = moe_grouped(plan);
    const uint32_t pairs = plan.rows() * n_slots;
    const ProductLaunch launch =
        launch_of(plan, down_product(plan, down), {.tokens = grouped ? lists.tile : 1});
    const ADDRESS weights = expert_weights.bytes ? expert_weights.address : 0;
    const Rows out = grouped ? pairs_out : y;
    const MoeDown p{step.state.address,
                    down.view.address,
                    act.address,
                    experts.bytes ? experts.address : 0,
                    weights,
                    lists.pairs.address,
                    lists.items.address,
                    out.address,
                    BYTES{down.matrix_bytes},
                    y.cols,
                    down.cols,
                    down.row_bytes,
                    n_slots,
                    act.stride,
                    out.stride,
                    grouped};
    std::vector<View> reads{step.state, down.view, act.span(pairs)};
    if (experts.bytes) reads.push_back(experts);
    if (expert_weights.bytes && !grouped) reads.push_back(expert_weights);
    if (grouped)
        reads.insert(reads.end(), {lists.pairs, lists.items});
    else
        reads.push_back(y.span(plan.rows()));
    FATHOM_ADD_TIER(plan, moe_down, launch.tier, down.format, label, p,
                    moe_grid(launch, grouped, lists, plan.rows()), launch.constants, reads,
                    {out.span(grouped ? pairs : plan.rows())});
    if (!grouped) return;
    take_tiles(plan, lists, offsetof(MoeGrids, down_blocks));
    const MoeReduce r{step.state.address, out.address, weights, y.address, y.cols, n_slots,
                      out.stride,         y.stride};
    std::vector<View> reduce_reads{step.state, out.span(pairs), y.span(plan.rows())};
    if (expert_weights.bytes) reduce_reads.push_back(expert_weights);
    plan.add<moe_reduce_reference>("moe_reduce", label + ".reduce", r,
                                   {div_up(y.cols, WORKGROUP), plan.rows(), 1}, {}, reduce_reads,
                                   {y.span(plan.rows())});
}

} // namespace fathom
