#version 460
#extension GL_GOOGLE_include_directive : require
// The next token of each sampled row. Adjusted logits: penalties, bias, mask. Then the MAX_CANDIDATES best
// and the log-sum-exp are kept for the trace, and one token is drawn: temperature, top_k, top_p, min_p (ties
// at the edge of top_k and top_p are all kept, as transformers does), by a Philox number of (seed,
// position). Finally the step advances to the new tokens, so that the next one needs nothing from the host.
// Grid: (1, rows). Selection never sorts: a radix search finds the k-th largest logit, a bisection over the
// floats' ordered bit patterns the edge of top_p. Every sum has a fixed order, so a seed gives the same
// token again.
#define WORKGROUP 256
#include "common.glsl"
#include "reduce.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { Sample p; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer SamplersIn {
    SamplerState v[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer SampledOut { Sampled v[]; };

shared uint histogram[256];
shared uint search[2];          // the radix search's bin, and how many are above it
shared uint list_count;
shared uint list_token[MAX_CANDIDATES];
shared float list_logit[MAX_CANDIDATES];
shared float block_sum[WORKGROUP];
shared uint drawn;

uvec2 adjusted; // this row's adjusted logits

float logit(uint i) { return FloatsIn(adjusted).v[i]; }
// Bit patterns in the order of the floats.
uint order(float x) {
    const uint bits = floatBitsToUint(x);
    return (bits & 0x80000000u) != 0u ? ~bits : bits | 0x80000000u;
}

void adjust(uvec2 logits, SamplerState s, uint sequence) {
    const uvec2 counts = at(p.counts, sequence, 4u * p.vocab), mask = at(p.mask, sequence, 4u * p.mask_words);
    for (uint i = gl_LocalInvocationIndex; i < p.vocab; i += WORKGROUP) {
        float z = FloatsIn(logits).v[i];
        const uint count = s.use_penalties != 0u ? WordsIn(counts).v[i] : 0u;
        if (count != 0u) {
            z = z > 0.0 ? z / s.repetition_penalty : z * s.repetition_penalty;
            z -= s.presence_penalty + s.frequency_penalty * float(count);
        }
        Floats(adjusted).v[i] = z;
    }
    memoryBarrierBuffer();
    barrier();
    const uvec2 bias =
        at(p.bias, sequence, 8u * MAX_BIAS); // (token, bits of the float) pairs; each token once
    for (uint i = gl_LocalInvocationIndex; i < s.n_bias; i += WORKGROUP)
        Floats(adjusted).v[WordsIn(bias).v[2u * i]] += uintBitsToFloat(WordsIn(bias).v[2u * i + 1u]);
    memoryBarrierBuffer();
    barrier();
    if (s.use_mask != 0u) {
        for (uint i = gl_LocalInvocationIndex; i < p.vocab; i += WORKGROUP)
            if ((WordsIn(mask).v[i / 32u] >> (i % 32u) & 1u) == 0u) Floats(adjusted).v[i] = LOWEST;
        memoryBarrierBuffer();
        barrier();
    }
}

// The k-th largest order() of all logits (k at least 1, at most vocab).
uint kth_largest(uint k) {
    uint prefix = 0, decided = 0;
    for (uint shift = 32u; shift != 0u;) {
        shift -= 8u;
        barrier();
        histogram[gl_LocalInvocationIndex] = 0;
        barrier();
        for (uint i = gl_LocalInvocationIndex; i < p.vocab; i += WORKGROUP) {
            const uint o = order(logit(i));
            if ((o & decided) == prefix) atomicAdd(histogram[(o >> shift) & 255u], 1u);
        }
        barrier();
        if (gl_LocalInvocationIndex == 0u) {
            uint above = 0, bin = 255u;
            while (bin > 0u && above + histogram[bin] < k) above += histogram[bin--];
            search[0] = bin;
            search[1] = above;
        }
        barrier();
        prefix |= search[0] << shift;
        decided |= 255u << shift;
        k -= search[1];
    }
    return prefix;
}

// Keeps the best MAX_CANDIDATES in order; the lower token comes first among equals.
void keep_candidates(uint slot) {
    const uint wanted = min(MAX_CANDIDATES, p.vocab), edge = kth_largest(wanted);
    if (gl_LocalInvocationIndex == 0u) list_count = 0;
    barrier();
    for (uint i = gl_LocalInvocationIndex; i < p.vocab; i += WORKGROUP) {
        if (order(logit(i)) <= edge) continue;
        const uint slot = atomicAdd(list_count, 1u); // any order: ranked below
        list_token[slot] = i;
        list_logit[slot] = logit(i);
    }
    barrier();
    uint first = 0;
    for (uint slot = list_count; slot < wanted; ++slot) { // the edge itself, lowest token first
        uint lowest = 0xFFFFFFFFu;
        for (uint i = first + gl_LocalInvocationIndex; i < p.vocab && lowest == 0xFFFFFFFFu; i += WORKGROUP)
            if (order(logit(i)) == edge) lowest = i;
        barrier(); // the previous round has read histogram
        histogram[gl_LocalInvocationIndex] = lowest;
        barrier();
        if (gl_LocalInvocationIndex == 0u) {
            for (uint i = 1u; i < WORKGROUP; ++i) lowest = min(lowest, histogram[i]);
            list_token[slot] = lowest;
            list_logit[slot] = logit(lowest);
            search[0] = lowest + 1u;
        }
        barrier();
        first = search[0];
    }
    const uint i = gl_LocalInvocationIndex;
    if (i < MAX_CANDIDATES) {
        uint rank = i;
        if (i < wanted) {
            rank = 0;
            for (uint k = 0; k < wanted; ++k)
                if (list_logit[k] > list_logit[i] ||
                    (list_logit[k] == list_logit[i] && list_token[k] < list_token[i]))
                    ++rank;
        }
        const bool valid = i < wanted && list_logit[i] > LOWEST; // a masked token is no candidate
        SampledOut(p.sampled).v[slot].candidate[rank] = valid ? list_token[i] : 0xFFFFFFFFu;
        SampledOut(p.sampled).v[slot].logit[rank] = valid ? list_logit[i] : LOWEST;
        if (i < wanted && rank == 0u) drawn = list_token[i]; // the greedy choice
    }
    barrier();
}

// A uniform number in [0, 1) with 24 bits: Philox 2x32 with 10 rounds (Salmon et al., SC 2011).
float uniform_number(SamplerState s, uint position) {
    uint a = position, b = s.seed_high, key = s.seed_low;
    for (uint round = 0; round < 10u; ++round) {
        uint high, low;
        umulExtended(a, 0xD256D193u, high, low);
        a = high ^ key ^ b;
        b = low;
        key += 0x9E3779B9u;
    }
    return float(a >> 8) * (1.0 / 16777216.0);
}

float weight_of(uint i, float largest, float inv_temperature) {
    return exp((logit(i) - largest) * inv_temperature);
}

// The sum of the weights of all logits whose order() is at least `edge`.
float weight_above(uint edge, float largest, float inv_temperature, float least) {
    float sum = 0;
    for (uint i = gl_LocalInvocationIndex; i < p.vocab; i += WORKGROUP) {
        const float w = weight_of(i, largest, inv_temperature);
        if (order(logit(i)) >= edge && w >= least) sum += w;
    }
    return workgroup_sum(sum);
}

// The smallest set of most probable tokens that holds top_p of what `edge` keeps, as a new edge.
uint top_p_edge(uint edge, float largest, SamplerState s) {
    const float target = s.top_p * weight_above(edge, largest, s.inv_temperature, 0.0);
    uint low = edge, high = order(largest);
    while (low < high) {
        const uint middle = low + (high - low) / 2u + 1u;
        if (weight_above(middle, largest, s.inv_temperature, 0.0) >= target) low = middle;
        else high = middle - 1u;
    }
    return low;
}

void draw(uint edge, float largest, SamplerState s, uint position) {
    const uint block = (p.vocab + WORKGROUP - 1u) / WORKGROUP, first = gl_LocalInvocationIndex * block;
    float sum = 0;
    for (uint i = first; i < min(first + block, p.vocab); ++i) {
        const float w = weight_of(i, largest, s.inv_temperature);
        if (order(logit(i)) >= edge && w >= s.min_p) sum += w;
    }
    block_sum[gl_LocalInvocationIndex] = sum;
    barrier();
    if (gl_LocalInvocationIndex != 0u) return;
    float total = 0;
    for (uint b = 0; b < WORKGROUP; ++b) total += block_sum[b];
    float target = uniform_number(s, position) * total;
    uint chosen_block = 0;
    for (uint b = 0; b < WORKGROUP; ++b) {
        if (block_sum[b] <= 0.0) continue;
        chosen_block = b; // the last block with weight, should rounding carry the target past the end
        if (target < block_sum[b]) break;
        target -= block_sum[b];
    }
    for (uint i = chosen_block * block; i < min((chosen_block + 1u) * block, p.vocab); ++i) {
        const float w = weight_of(i, largest, s.inv_temperature);
        if (order(logit(i)) < edge || w < s.min_p) continue;
        drawn = i;
        if (target < w) break;
        target -= w;
    }
}

void main() {
    const uint r = gl_WorkGroupID.y;
    if (r >= StepIn(p.state).header.n_samples) return;
    const StepRow row = step_row(p.state, r);
    const SamplerState s = SamplersIn(p.samplers).v[row.sequence];
    const uint slot = row.sequence * SAMPLED_RING + (row.position + 1u) % SAMPLED_RING;
    adjusted = at(p.adjusted, r, 4u * p.logits_stride);
    adjust(at(p.logits, r, 4u * p.logits_stride), s, row.sequence);

    float largest = LOWEST;
    for (uint i = gl_LocalInvocationIndex; i < p.vocab; i += WORKGROUP) largest = max(largest, logit(i));
    largest = workgroup_max(largest);
    keep_candidates(slot);
    const float sum = weight_above(order(LOWEST) + 1u, largest, 1.0, 0.0);

    if (s.inv_temperature > 0.0) {
        uint edge = order(LOWEST) + 1u; // above every masked token
        if (s.top_k != 0u && s.top_k < p.vocab) edge = max(edge, kth_largest(s.top_k));
        if (s.top_p < 1.0) edge = top_p_edge(edge, largest, s);
        draw(edge, largest, s, row.position + 1u);
    }
    if (gl_LocalInvocationIndex != 0u) return;
    SampledOut(p.sampled).v[slot].token = drawn;
    SampledOut(p.sampled).v[slot].position = row.position + 1u;
    SampledOut(p.sampled).v[slot].log_sum = log(sum);
    SampledOut(p.sampled).v[slot].largest = largest;
    Step(p.state).rows[r].token = drawn;
    Step(p.state).rows[r].position = row.position + 1u;
    if (r == 0u) Step(p.state).header.trace_slot += n_rows(p.state);
}
