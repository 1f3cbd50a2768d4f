#version 460
#extension GL_GOOGLE_include_directive : require
// The experts of a token: logits = weights x, scores = sigmoid or softmax, keys = scores + bias (+
// steering), the best groups if there are groups, the best n_active keys of those, weights = scores (never
// keys), normalised, scaled. Equal keys go to the lower expert. Experts of dropped groups have a key below
// every other.
// Grid: (1, T). All invocations compute logits; the first subgroup selects, so that no round needs a barrier.
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint N_EXPERTS = 8;
#include "dequant.glsl"
#include "dot.glsl"
#include "reduce.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { Router p; };

#define DROPPED LOWEST          // key of an expert in a dropped group
#define TAKEN (2.0 * LOWEST)    // key of what was chosen already
shared float score[N_EXPERTS];
shared float key[N_EXPERTS];
shared float group_key[N_EXPERTS];
shared uint chosen[MAX_ACTIVE];

void compute_scores(uint t) {
    const uvec2 x = at(p.x, t, 4u * p.x_stride);
    const uint lane = thread_index() % K_LANES, lanes_groups = WORKGROUP / K_LANES;
    for (uint e0 = 0; e0 < N_EXPERTS; e0 += lanes_groups) { // uniform: all lanes shuffle together
        const uint e = e0 + thread_index() / K_LANES;
        const uvec2 w = at(p.weights, min(e, N_EXPERTS - 1u), p.row_bytes);
        float logit = 0;
        for (uint chunk = lane; chunk < (p.dim + 7u) / 8u; chunk += K_LANES) {
            vec4 wa, wb, xa, xb;
            load8(w, chunk, wa, wb);
            load_x8(x, chunk, p.dim, xa, xb);
            logit = dot8(wa, wb, xa, xb, logit);
        }
        logit = lanes_sum(logit);
        if (lane == 0u && e < N_EXPERTS) score[e] = logit;
    }
    barrier();
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

// The index of the largest of this invocation's candidates over the subgroup; the lowest index among equals.
uint best_of_subgroup(float largest, uint index) {
    const float best = subgroupMax(largest);
    return subgroupMin(largest == best ? index : 0xFFFFFFFFu);
}

void drop_groups() {
    const uint size = N_EXPERTS / p.n_groups;
    for (uint g = gl_SubgroupInvocationID; g < p.n_groups; g += gl_SubgroupSize) {
        float first = TAKEN, second = TAKEN;
        for (uint e = g * size; e < (g + 1u) * size; ++e) {
            second = max(second, min(first, key[e]));
            first = max(first, key[e]);
        }
        group_key[g] = (p.flags & ROUTER_GROUP_TOP2) != 0u && size > 1u ? first + second : first;
    }
    for (uint round = 0; round < p.n_active_groups; ++round) {
        subgroupMemoryBarrierShared();
        subgroupBarrier();
        float largest = TAKEN;
        uint index = gl_SubgroupInvocationID;
        for (uint g = gl_SubgroupInvocationID; g < p.n_groups; g += gl_SubgroupSize)
            if (group_key[g] > largest) { largest = group_key[g]; index = g; }
        const uint best = best_of_subgroup(largest, index);
        if (best % gl_SubgroupSize == gl_SubgroupInvocationID)
            group_key[best] = TAKEN; // the lane that reads it
    }
    subgroupMemoryBarrierShared();
    subgroupBarrier();
    for (uint e = gl_SubgroupInvocationID; e < N_EXPERTS; e += gl_SubgroupSize)
        if (group_key[e / size] != TAKEN) key[e] = DROPPED;
}

void main() {
    const uint t = gl_WorkGroupID.y;
    if (t >= n_rows(p.state)) return;
    compute_scores(t);
    if (gl_SubgroupID != 0u) return;

    if (p.n_groups > 1u) drop_groups();
    float sum = 0;
    for (uint round = 0; round < p.n_active; ++round) {
        subgroupMemoryBarrierShared();
        subgroupBarrier();
        float largest = TAKEN;
        uint index = gl_SubgroupInvocationID;
        for (uint e = gl_SubgroupInvocationID; e < N_EXPERTS; e += gl_SubgroupSize)
            if (key[e] > largest) { largest = key[e]; index = e; }
        const uint best = min(best_of_subgroup(largest, index), N_EXPERTS - 1u);
        sum += score[best];
        if (best % gl_SubgroupSize == gl_SubgroupInvocationID) key[best] = TAKEN;
        if (subgroupElect()) chosen[round] = best;
    }
    subgroupMemoryBarrierShared();
    subgroupBarrier();

    const float factor = (p.flags & ROUTER_NORMALISE) != 0u ? p.scale / (sum + 1e-20) : p.scale;
    const uint trace_row = (StepIn(p.state).header.trace_slot + t) % max(p.trace_rows, 1u);
    const uvec2 trace = at(p.trace, trace_row, 4u * p.trace_stride);
    for (uint i = gl_SubgroupInvocationID; i < p.n_slots; i += gl_SubgroupSize) {
        const bool routed = i < p.n_active;
        const uint e =
            routed ? chosen[i] : N_EXPERTS + i - p.n_active; // shared experts follow the routed ones
        const float weight = routed ? score[e] * factor * FloatsIn(p.control).v[2u * e + 1u] : 1.0;
        Words(p.experts).v[t * p.n_slots + i] = e;
        Floats(p.expert_weights).v[t * p.n_slots + i] = weight;
        if (routed && p.trace_stride != 0u) {
            Words(trace).v[i] = e;
            Words(trace).v[p.n_active + i] = floatBitsToUint(weight);
        }
    }
}
