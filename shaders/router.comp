#version 460
#extension GL_GOOGLE_include_directive : require
// The experts of a token: logits = weights x, scores = sigmoid or softmax, keys = scores + bias (+ steering),
// the best groups if there are groups, the best n_active keys of those, weights = scores (never keys),
// normalised, scaled. Equal keys go to the lower expert. Experts of dropped groups are never chosen.
// Grid: (blocks of experts, T). A token's workgroups share out the experts, whose weights are far more than
// one of them reads quickly; the last to be done selects, with its first subgroup, so that no round needs a
// barrier.
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint N_EXPERTS = 8;
layout(constant_id = 2) const bool NORM = false;
layout(constant_id = 3) const uint SHARE = 8; // experts of a workgroup
#include "dequant.glsl"
#define TILE_ROWS 1
#define TOKENS 1
#include "tile.glsl"
#include "trace.glsl"
#include "arrival.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { Router p; };

#define NONE (2.0 * LOWEST) // below every key
shared float score[N_EXPERTS];
shared float key[N_EXPERTS];
shared float group_key[N_EXPERTS];
shared uint chosen[MAX_ACTIVE]; // of the first invocation alone

// The logits of this workgroup's experts.
void compute_logits(uint t, uvec2 logits) {
    X x;
    x.row[0] = at(p.x, t, 4u * p.x_stride);
    set_norm(x, p.dim, p.norm, p.eps);
    const uint end = min((gl_WorkGroupID.x + 1u) * SHARE, N_EXPERTS);
    for (uint e0 = gl_WorkGroupID.x * SHARE; e0 < end; e0 += WORKGROUP / K_LANES) {
        if (e0 + first_dot() >= end) break;
        const uint e = e0 + thread_index() / K_LANES;
        const uvec2 w[TILE_ROWS] = {at(p.weights, min(e, end - 1u), p.row_bytes)};
        float logit[TILE];
        dots(w, x, p.dim, logit);
        if (thread_index() % K_LANES == 0u && e < end) Shared(logits).v[e] = floatBitsToUint(logit[0]);
    }
}

void compute_scores(uvec2 logits) {
    for (uint e = thread_index(); e < N_EXPERTS; e += WORKGROUP)
        score[e] = uintBitsToFloat(Shared(logits).v[e]);
    if ((p.flags & ROUTER_SIGMOID) != 0u) {
        for (uint e = thread_index(); e < N_EXPERTS; e += WORKGROUP) score[e] = 1.0 / (1.0 + exp(-score[e]));
    } else {
        float largest = LOWEST, sum = 0;
        for (uint e = thread_index(); e < N_EXPERTS; e += WORKGROUP) largest = max(largest, score[e]);
        largest = workgroup_max(largest);
        for (uint e = thread_index(); e < N_EXPERTS; e += WORKGROUP) sum += exp(score[e] - largest);
        sum = workgroup_sum(sum);
        for (uint e = thread_index(); e < N_EXPERTS; e += WORKGROUP) score[e] = exp(score[e] - largest) / sum;
    }
    for (uint e = thread_index(); e < N_EXPERTS; e += WORKGROUP) {
        const float bias = FloatsIn(safe(p.bias, p.control)).v[e];
        key[e] = score[e] + (given(p.bias) ? bias : 0.0) + FloatsIn(p.control).v[2u * e];
    }
    barrier();
}

// Picks come in one order: the larger key first, the lower index among equals. `last` is the pick before, so
// that nothing has to be marked as taken and no barrier stands between two rounds (Mesa 26's lavapipe loses a
// subgroup that waits at a subgroupBarrier() which the others have passed by).
struct Pick {
    float key;
    uint index;
};
bool comes_after(float k, uint index, Pick last) {
    return k < last.key || (k == last.key && index > last.index);
}

// The pick of the whole subgroup from each invocation's best.
Pick best_of_subgroup(Pick best) {
    const float largest = subgroupMax(best.key);
    return Pick(largest, subgroupMin(largest == best.key ? best.index : 0xFFFFFFFFu));
}

// Groups are ranked by their best key, or by the sum of their two best.
void rank_groups() {
    const uint size = N_EXPERTS / p.n_groups;
    for (uint g = thread_index(); g < p.n_groups; g += WORKGROUP) {
        float first = NONE, second = NONE;
        for (uint e = g * size; e < (g + 1u) * size; ++e) {
            second = max(second, min(first, key[e]));
            first = max(first, key[e]);
        }
        group_key[g] = (p.flags & ROUTER_GROUP_TOP2) != 0u && size > 1u ? first + second : first;
    }
    barrier();
}

// The last group that is kept: those that come after it are dropped.
Pick last_group() {
    Pick last = Pick(-NONE, 0u);
    for (uint round = 0; round < p.n_active_groups; ++round) {
        Pick best = Pick(NONE, 0xFFFFFFFFu);
        for (uint g = gl_SubgroupInvocationID; g < p.n_groups; g += gl_SubgroupSize)
            if (group_key[g] > best.key && comes_after(group_key[g], g, last)) best = Pick(group_key[g], g);
        last = best_of_subgroup(best);
    }
    return last;
}

// `kept` is the last group that was, in the order of picks.
bool is_dropped(uint e, uint group_size, Pick kept) {
    const uint g = e / group_size;
    return p.n_groups > 1u && comes_after(group_key[g], g, kept);
}

// What the first subgroup tells of its choice beside experts and weights; see TRACE_LAYER_WORDS.
float margin_after(Pick last, uint group_size, Pick kept) {
    float next = NONE;
    for (uint e = gl_SubgroupInvocationID; e < N_EXPERTS; e += gl_SubgroupSize)
        if (!is_dropped(e, group_size, kept) && comes_after(key[e], e, last)) next = max(next, key[e]);
    next = subgroupMax(next);
    return next > NONE ? last.key - next : uintBitsToFloat(0x7F800000u);
}

float entropy() {
    float sum = 0, logs = 0;
    for (uint e = gl_SubgroupInvocationID; e < N_EXPERTS; e += gl_SubgroupSize) {
        sum += score[e];
        logs += score[e] > 0.0 ? score[e] * log(score[e]) : 0.0;
    }
    sum = subgroupAdd(sum);
    return log(sum) - subgroupAdd(logs) / sum;
}

// Choices that keys made, and scores alone would not have.
uint swapped(uint group_size, Pick kept) {
    uint bits = 0;
    for (uint i = 0; i < p.n_active; ++i) {
        const uint c = subgroupMax(gl_SubgroupInvocationID == 0u ? chosen[i] : 0u);
        uint before = 0;
        for (uint e = gl_SubgroupInvocationID; e < N_EXPERTS; e += gl_SubgroupSize)
            if (!is_dropped(e, group_size, kept) && (score[e] > score[c] || (score[e] == score[c] && e < c)))
                ++before;
        if (subgroupAdd(before) >= p.n_active) bits |= 1u << i;
    }
    return bits;
}

uint kept_groups(Pick kept) {
    uint bits = 0;
    for (uint g = 0; g < min(p.n_groups, 32u); ++g)
        if (p.n_groups == 1u || !comes_after(group_key[g], g, kept)) bits |= 1u << g;
    return bits;
}

void trace_choice(uvec2 trace, Pick last, uint group_size, Pick kept) {
    const float margin = margin_after(last, group_size, kept), nats = entropy();
    const uint swaps = swapped(group_size, kept);
    if (gl_SubgroupInvocationID != 0u) return;
    Words(trace).v[TRACE_MARGIN] = floatBitsToUint(margin);
    Words(trace).v[TRACE_ENTROPY] = floatBitsToUint(nats);
    Words(trace).v[TRACE_SWAPPED] = swaps;
    Words(trace).v[TRACE_GROUPS] = kept_groups(kept);
}

void main() {
    const uint t = gl_WorkGroupID.y;
    if (t >= n_rows(p.state)) return;
    const uvec2 logits = shared_row(p.arrivals, t, N_EXPERTS);
    compute_logits(t, logits);
    if (!arrives_last(p.arrivals, t, (N_EXPERTS + SHARE - 1u) / SHARE)) return;
    compute_scores(logits);
    if (p.n_groups > 1u) rank_groups();
    if (gl_SubgroupID != 0u) return;

    const uint group_size = N_EXPERTS / p.n_groups;
    Pick kept = Pick(NONE, 0xFFFFFFFFu), last = Pick(-NONE, 0u);
    if (p.n_groups > 1u) kept = last_group();
    float sum = 0;
    for (uint round = 0; round < p.n_active; ++round) {
        Pick best = Pick(NONE, 0xFFFFFFFFu);
        for (uint e = gl_SubgroupInvocationID; e < N_EXPERTS; e += gl_SubgroupSize) {
            if (!is_dropped(e, group_size, kept) && key[e] > best.key && comes_after(key[e], e, last))
                best = Pick(key[e], e);
        }
        last = best_of_subgroup(best);
        last.index = min(last.index, N_EXPERTS - 1u); // keys that are no numbers leave nothing to pick
        sum += score[last.index];
        if (gl_SubgroupInvocationID == 0u) chosen[round] = last.index;
    }
    const uvec2 trace = trace_row(p.state, p.trace, p.trace_stride, t);
    if (p.trace_stride != 0u) trace_choice(at(trace, 8u * p.n_active), last, group_size, kept);
    const uint scores_at = p.flags >> ROUTER_SCORES_AT;
    if (p.trace_stride != 0u && scores_at != 0u)
        for (uint e = gl_SubgroupInvocationID; e < N_EXPERTS; e += gl_SubgroupSize) {
            Words(trace).v[scores_at + e] = floatBitsToUint(score[e]);
            Words(trace).v[scores_at + N_EXPERTS + e] = floatBitsToUint(key[e]);
        }
    if (gl_SubgroupInvocationID != 0u) return;

    const float factor = (p.flags & ROUTER_NORMALISE) != 0u ? p.scale / (sum + 1e-20) : p.scale;
    for (uint i = 0; i < p.n_slots; ++i) {
        const bool routed = i < p.n_active;
        // shared experts follow the routed ones
        const uint e = routed ? chosen[min(i, MAX_ACTIVE - 1u)] : N_EXPERTS + i - p.n_active;
        float weight = 1;
        if (routed) weight = score[e] * factor * FloatsIn(p.control).v[2u * e + 1u];
        Words(p.experts).v[t * p.n_slots + i] = e;
        Floats(p.expert_weights).v[t * p.n_slots + i] = weight;
        if (routed && p.trace_stride != 0u) {
            Words(trace).v[i] = e;
            Words(trace).v[p.n_active + i] = floatBitsToUint(weight);
        }
    }
}
