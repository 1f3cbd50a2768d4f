#version 460
#extension GL_GOOGLE_include_directive : require
// The next token of each sampled row. Adjusted logits: penalties, bias, mask. Then the MAX_CANDIDATES best
// and the log-sum-exp are kept for the trace, and one token is drawn: temperature, top_k, top_p, min_p (ties
// at the edge of top_k and top_p are all kept, as transformers does), by a Philox number of (seed,
// position). Finally the step advances to the new tokens, so that the next one needs nothing from the host.
// Grid: (tiles of the vocabulary, rows). Each workgroup adjusts its tile and leaves its best tokens and what
// its weights sum up to; the last to be done draws, mostly from those. Only where they leave open which
// tokens are kept is the whole row read again. Every sum has a fixed order, so a seed gives the same token
// again.
#define WORKGROUP 256
#include "common.glsl"
#include "reduce.glsl"
#include "arrival.glsl"
#include "search.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { Sample p; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer SamplersIn {
    SamplerState v[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer SampledOut { Sampled v[]; };

shared float part_weight[WORKGROUP];
shared uint drawn;

uint n_tiles() { return (p.vocab + SAMPLE_TILE - 1u) / SAMPLE_TILE; }

// The words that a tile leaves: the sums of its weights relative to its largest logit, at temperature 1 and
// at the sampler's, then its best tokens, each with its logit.
uvec2 left_by(uint row, uint block) {
    return at(shared_row(p.arrivals, row, n_tiles() * SAMPLE_WORDS), block, 4u * SAMPLE_WORDS);
}
uint token_of(uvec2 left, uint rank) { return Shared(left).v[2u + 2u * rank]; }
float logit_of(uvec2 left, uint rank) { return uintBitsToFloat(Shared(left).v[3u + 2u * rank]); }
float sum_of(uvec2 left, uint which) { return uintBitsToFloat(Shared(left).v[which]); }

float penalised(float z, uint count, SamplerState s) {
    if (count == 0u) return z;
    return (z > 0.0 ? z / s.repetition_penalty : z * s.repetition_penalty) -
           (s.presence_penalty + s.frequency_penalty * float(count));
}

// This workgroup's part of the row, into the tile and as adjusted logits.
void adjust_tile(uvec2 logits, SamplerState s, uint sequence) {
    const uint first = gl_WorkGroupID.x * SAMPLE_TILE, n = min(p.vocab - first, SAMPLE_TILE);
    const uvec2 counts = at(p.counts, sequence, 4u * p.vocab), mask = at(p.mask, sequence, 4u * p.mask_words);
    [[unroll]] for (uint k = 0; k < AT_ONCE; ++k) {
        const uint q = k * WORKGROUP + thread_index();
        vec4 z = Vec4In(logits).v[first / 4u + min(q, (n - 1u) / 4u)];
        [[unroll]] for (uint i = 0; i < 4u; ++i) {
            if (4u * q + i >= n) z[i] = LOWEST;
            else if (s.use_penalties != 0u) z[i] = penalised(z[i], WordsIn(counts).v[first + 4u * q + i], s);
        }
        tile[q] = z;
    }
    if (s.n_bias != 0u) { // whose tokens are not the invocation's own
        barrier();
        const uvec2 bias =
            at(p.bias, sequence, 8u * MAX_BIAS); // (token, bits of the float) pairs; each token once
        for (uint i = thread_index(); i < s.n_bias; i += WORKGROUP) {
            const uint token = WordsIn(bias).v[2u * i] - first; // of earlier tiles: far above n
            if (token < n) tile[token / 4u][token % 4u] += uintBitsToFloat(WordsIn(bias).v[2u * i + 1u]);
        }
        barrier();
    }
    [[unroll]] for (uint k = 0; k < AT_ONCE; ++k) {
        const uint q = k * WORKGROUP + thread_index();
        if (4u * q >= n) continue;
        if (s.use_mask != 0u) {
            const uint bits = WordsIn(mask).v[(first + 4u * q) / 32u] >> (4u * q % 32u);
            [[unroll]] for (uint i = 0; i < 4u; ++i)
                if ((bits >> i & 1u) == 0u) tile[q][i] = LOWEST;
        }
        SharedVec4(searched).v[first / 4u + q] = tile[q];
    }
}

// The sum of the tile's weights.
float tile_weight(float largest, float inv_temperature) {
    vec4 z[AT_ONCE];
    load_quads(0u, z);
    float sum = 0;
    [[unroll]] for (uint k = 0; k < AT_ONCE; ++k)
        [[unroll]] for (uint i = 0; i < 4u; ++i)
            if (z[k][i] > LOWEST) sum += weight_of(z[k][i], largest, inv_temperature);
    return workgroup_sum(sum);
}

void leave_tile(uint row, float inv_temperature) {
    find_best(MAX_CANDIDATES);
    const float sum = tile_weight(best_logit[0], 1.0);
    float warm = 0;
    if (inv_temperature > 0.0) warm = tile_weight(best_logit[0], inv_temperature);
    const uvec2 left = left_by(row, gl_WorkGroupID.x);
    const uint i = thread_index();
    if (i == 0u) {
        Shared(left).v[0] = floatBitsToUint(sum);
        Shared(left).v[1] = floatBitsToUint(warm);
    }
    if (i >= MAX_CANDIDATES) return;
    Shared(left).v[2u + 2u * i] = gl_WorkGroupID.x * SAMPLE_TILE + best_at[i];
    Shared(left).v[3u + 2u * i] = floatBitsToUint(best_logit[i]);
}

// The best of what all tiles left, as best_logit and, with tokens, best_at.
void find_best_of_all(uint row) {
    const uint n = n_tiles() * MAX_CANDIDATES, i = thread_index();
    for (uint k = i; k < SAMPLE_TILE; k += WORKGROUP) {
        float z = LOWEST;
        if (k < n) z = logit_of(left_by(row, k / MAX_CANDIDATES), k % MAX_CANDIDATES);
        tile[k / 4u][k % 4u] = z;
    }
    barrier();
    find_best(MAX_CANDIDATES);
    if (i < MAX_CANDIDATES)
        best_at[i] = token_of(left_by(row, best_at[i] / MAX_CANDIDATES), best_at[i] % MAX_CANDIDATES);
    barrier();
}

// What all tiles' sums come to; which: 0 or 1, as they left them.
float whole_weight(uint row, uint which, float largest, float inv_temperature) {
    float sum = 0;
    for (uint b = thread_index(); b < n_tiles(); b += WORKGROUP) {
        const uvec2 left = left_by(row, b);
        sum = fma(sum_of(left, which), weight_of(logit_of(left, 0u), largest, inv_temperature), sum);
    }
    return workgroup_sum(sum);
}

// The sum of the weights of a tile of the row in memory that are kept: from `edge` on, and at least `least`.
float kept_weight(uint block, uint edge, float largest, float inv_temperature, float least) {
    vec4 z[AT_ONCE];
    load_quads(block * TILE_QUADS, z);
    float sum = 0;
    [[unroll]] for (uint k = 0; k < AT_ONCE; ++k)
        [[unroll]] for (uint i = 0; i < 4u; ++i) {
            const float w = weight_of(z[k][i], largest, inv_temperature);
            if (order(z[k][i]) >= edge && w >= least) sum += w;
        }
    return workgroup_sum(sum);
}

// Whether the candidates are all tokens from `edge` on.
bool all_listed(uint edge) {
    return p.vocab <= MAX_CANDIDATES || order(best_logit[MAX_CANDIDATES - 1]) < edge;
}

// The smallest set of most probable tokens that holds top_p of what `edge` keeps, as a new edge.
uint top_p_edge(uint row, uint edge, float largest, SamplerState s) {
    float total = 0, sum = 0;
    if (edge == above_masked())
        total = whole_weight(row, 1u, largest, s.inv_temperature);
    else
        for (uint b = 0; b < n_tiles(); ++b)
            total += kept_weight(b, edge, largest, s.inv_temperature, 0.0);
    const float target = s.top_p * total;
    for (uint i = 0; i < MAX_CANDIDATES; ++i) {
        if (order(best_logit[i]) < edge) return edge;
        sum += weight_of(best_logit[i], largest, s.inv_temperature);
        if (sum >= target) return order(best_logit[i]);
    }
    return max(edge, edge_at(target * 2147483648.0, edge, largest, s.inv_temperature));
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

// Draws from the first n of part_weight: the number, and what is left of `share`, a part of 1, in its weight.
// Of one invocation.
uint draw_part(uint n, inout float share) {
    float total = 0;
    for (uint i = 0; i < n; ++i) total += part_weight[i];
    float target = share * total;
    uint chosen = 0;
    for (uint i = 0; i < n; ++i) {
        if (part_weight[i] <= 0.0) continue;
        chosen = i; // the last one with weight, should rounding carry the target past the end
        if (target < part_weight[i]) break;
        target -= part_weight[i];
    }
    share = target / part_weight[chosen];
    return chosen;
}

void draw_listed(uint edge, float largest, SamplerState s, float share) {
    const uint i = thread_index();
    if (i < MAX_CANDIDATES) { // in the order of their tokens
        uint place = 0;
        for (uint k = 0; k < MAX_CANDIDATES; ++k)
            if (best_at[k] < best_at[i] || (best_at[k] == best_at[i] && k < i)) ++place;
        const float w = weight_of(best_logit[i], largest, s.inv_temperature);
        part_weight[place] = order(best_logit[i]) >= edge && w >= s.min_p ? w : 0.0;
        list_at[place] = best_at[i];
    }
    barrier();
    if (i == 0u) drawn = list_at[draw_part(MAX_CANDIDATES, share)];
}

// Draws a tile by its weight, then sixteen neighbours in it, then one of those.
void draw_from_all(uint row, uint edge, float largest, SamplerState s, float share) {
    const uint i = thread_index(), n = n_tiles();
    const bool known = edge == above_masked() && s.min_p <= 0.0;
    for (uint b = 0; b < n && !known; ++b) {
        const float kept = kept_weight(b, edge, largest, s.inv_temperature, s.min_p);
        if (i == 0u) part_weight[b] = kept;
    }
    if (known && i < n) {
        const uvec2 left = left_by(row, i);
        part_weight[i] = sum_of(left, 1u) * weight_of(logit_of(left, 0u), largest, s.inv_temperature);
    }
    barrier();
    if (i == 0u) {
        found = draw_part(n, share);
        found_above = share;
    }
    barrier();
    const uint first = found * TILE_QUADS + i * AT_ONCE;
    share = found_above;
    float weight[4u * AT_ONCE], sum = 0;
    [[unroll]] for (uint k = 0; k < 4u * AT_ONCE; ++k) {
        const uint q = first + k / 4u;
        const float z = q < n_quads ? SharedVec4(searched).v[q][k % 4u] : LOWEST;
        const float w = weight_of(z, largest, s.inv_temperature);
        weight[k] = order(z) >= edge && w >= s.min_p ? w : 0.0;
        sum += weight[k];
    }
    part_weight[i] = sum;
    barrier();
    if (i == 0u) {
        found = draw_part(WORKGROUP, share);
        found_above = share;
    }
    barrier();
    if (i != found) return;
    [[unroll]] for (uint k = 0; k < 4u * AT_ONCE; ++k) part_weight[k] = weight[k];
    share = found_above;
    drawn = 4u * first + draw_part(4u * AT_ONCE, share);
}

void draw(uint row, float largest, SamplerState s, uint position) {
    in_tile = false;
    n_quads = (p.vocab + 3u) / 4u;
    uint edge = above_masked();
    if (s.top_k != 0u && s.top_k < p.vocab)
        edge = max(edge, s.top_k <= MAX_CANDIDATES ? order(best_logit[s.top_k - 1u])
                                                   : edge_at(float(s.top_k), edge, 0.0, 0.0));
    if (s.top_p < 1.0) edge = top_p_edge(row, edge, largest, s);
    const float share = uniform_number(s, position);
    if (all_listed(edge)) draw_listed(edge, largest, s, share);
    else draw_from_all(row, edge, largest, s, share);
    barrier();
}

void tell(uint slot, uint position, float sum, float largest) {
    const uint i = thread_index();
    if (i < MAX_CANDIDATES) {
        const bool valid = best_logit[i] > LOWEST; // a masked token is no candidate
        SampledOut(p.sampled).v[slot].candidate[i] = valid ? best_at[i] : 0xFFFFFFFFu;
        SampledOut(p.sampled).v[slot].logit[i] = best_logit[i];
    }
    if (i != 0u) return;
    SampledOut(p.sampled).v[slot].token = drawn;
    SampledOut(p.sampled).v[slot].position = position;
    SampledOut(p.sampled).v[slot].log_sum = log(sum);
    SampledOut(p.sampled).v[slot].largest = largest;
}

void main() {
    const uint r = gl_WorkGroupID.y;
    if (r >= StepIn(p.state).header.n_samples) return;
    const StepRow row = step_row(p.state, r);
    const SamplerState s = SamplersIn(p.samplers).v[row.sequence];
    const uint slot = row.sequence * SAMPLED_RING + (row.position + 1u) % SAMPLED_RING;
    searched = at(p.adjusted, r, 4u * p.logits_stride);
    adjust_tile(at(p.logits, r, 4u * p.logits_stride), s, row.sequence);
    leave_tile(r, s.inv_temperature);
    if (!arrives_last(p.arrivals, r, n_tiles())) return;

    if (n_tiles() != 1u) find_best_of_all(r);
    const float largest = best_logit[0], sum = whole_weight(r, 0u, largest, 1.0);
    if (thread_index() == 0u) drawn = best_at[0]; // the greedy choice
    if (s.inv_temperature > 0.0) draw(r, largest, s, row.position + 1u);
    tell(slot, row.position + 1u, sum, largest);
    if (thread_index() != 0u) return;
    Step(p.state).rows[r].token = drawn;
    Step(p.state).rows[r].position = row.position + 1u;
    if (r == 0u) Step(p.state).header.trace_slot += n_rows(p.state);
}
