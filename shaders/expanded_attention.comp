#version 460
#extension GL_GOOGLE_include_directive : require
// Attention of a prefill chunk to a block of positions, with keys and values expanded from the latent:
// s[t, h, j] = scale * (q_nope . k_nope[j] + rotated q_pe . k_pe[j]) for the positions up to and with t's
// own, y = softmax(s) v. Blocks are dispatched one after the other; what they sum up goes on in y and
// `running`.   Grid: (T / QUERIES, heads). The shape of cached_attention, with QUERIES rows of one head in
// place of the heads of one row. k_pe comes rotated from the block's latent rows; k_nope and v from kv.
#include "common.glsl"
layout(constant_id = 0) const uint QUERIES = 4;  // token rows of a tile
layout(constant_id = 1) const uint HEAD4 = 2;    // vec4 of a query: nope, then rope, each padded with zeros
layout(constant_id = 2) const uint CHANNELS = 1; // values for each invocation
layout(constant_id = 3) const uint TILE_PAGES = 1;
layout(constant_id = 4) const bool WHOLE = false; // keys are whole vec4, at multiples of 16 bytes
#include "rope.glsl"
#include "cache.glsl"
#include "softmax.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { ExpandedAttention p; };
const uint VALUES = QUERIES * CHANNELS;
shared vec4 query[QUERIES * HEAD4];

uvec2 query_row(uint t, uint rows, uint h) { // past the end: the last one again, never written
    return at(at(p.q, min(t, rows - 1u), 4u * p.q_stride), 4u * h * (p.nope_dim + p.rope_dim));
}
void load_queries(uint t0, uint rows, uint h) {
    const uint nope4 = pad4(p.nope_dim) / 4u;
    for (uint i = thread_index(); i < QUERIES * HEAD4; i += WORKGROUP) query[i] = vec4(0);
    barrier();
    for (uint i = thread_index(); i < QUERIES * p.nope_dim; i += WORKGROUP) {
        const uint q = i / p.nope_dim, d = i % p.nope_dim;
        query[q * HEAD4 + d / 4u][d % 4u] = FloatsIn(query_row(t0 + q, rows, h)).v[d];
    }
    for (uint i = thread_index(); i < QUERIES * p.rope_dim / 2u; i += WORKGROUP) {
        const uint q = i / (p.rope_dim / 2u), pair = i % (p.rope_dim / 2u), t = min(t0 + q, rows - 1u);
        const uint a = rope_first(pair, p.rope_dim, p.half_split),
                   b = rope_second(pair, p.rope_dim, p.half_split);
        const uvec2 row = at(query_row(t, rows, h), 4u * p.nope_dim);
        const vec2 q_pe = vec2(FloatsIn(row).v[a], FloatsIn(row).v[b]);
        const vec2 rotated = rotate(p.rope, step_row(p.state, t).position, pair, p.rope_dim, q_pe);
        query[q * HEAD4 + nope4 + a / 4u][a % 4u] = rotated.x;
        query[q * HEAD4 + nope4 + b / 4u][b % 4u] = rotated.y;
    }
}

// Numbers 4 d to 4 d + 3 of a key; those past its end are zero.
vec4 key4(uvec2 key, uint d) {
    if (WHOLE) return Vec4In(key).v[d];
    vec4 v = vec4(0);
    [[unroll]] for (uint i = 0; i < 4u; ++i)
        if (4u * d + i < p.nope_dim) v[i] = FloatsIn(key).v[4u * d + i];
    return v;
}

void add_products(vec4 k, uint d, inout float dot[QUERIES]) {
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        const vec4 q = query[i * HEAD4 + d];
        dot[i] = fma(q.w, k.w, fma(q.z, k.z, fma(q.y, k.y, fma(q.x, k.x, dot[i]))));
    }
}

// score[i, s] = scale * query i . key of this invocation on page s of the tile that starts at key k0. Query i
// sees the keys below seen + i.
void score_tile(uint k0, uint keys, uint seen, uint keys_at, out float score[SCORES]) {
    const uint nope4 = pad4(p.nope_dim) / 4u;
    [[unroll]] for (uint s = 0; s < TILE_PAGES; ++s) {
        const uint j = k0 + s * PAGE_TOKENS + thread_index(), k = min(j, keys - 1u);
        float dot[QUERIES];
        [[unroll]] for (uint i = 0; i < QUERIES; ++i) dot[i] = 0;
        if (k0 + s * PAGE_TOKENS < keys) {
            const uvec2 k_nope = at(at(p.kv, k, 4u * p.kv_stride), 4u * keys_at);
            const uvec2 k_pe = at(at(p.latent, k, 4u * p.row_floats), 4u * pad4(p.latent_dim));
            for (uint d = 0; d < nope4; ++d) add_products(key4(k_nope, d), d, dot);
            for (uint d = nope4; d < HEAD4; ++d) add_products(Vec4In(k_pe).v[d - nope4], d, dot);
        }
        [[unroll]] for (uint i = 0; i < QUERIES; ++i)
            score[i * TILE_PAGES + s] = j < min(keys, seen + i) ? dot[i] * p.scale : 2.0 * LOWEST;
    }
}

// value[i, c] = sum over the tile's keys of their weight for query i times this invocation's channel c.
void sum_tile(uint k0, uint keys, uint values_at, uint channel[CHANNELS], out float value[VALUES]) {
    [[unroll]] for (uint i = 0; i < VALUES; ++i) value[i] = 0;
    if (gl_SubgroupID * gl_SubgroupSize >= p.value_dim) return; // a subgroup without a channel
    for (uint key = 0; key < keys; key += 4u) {
        vec4 weights[QUERIES];
        [[unroll]] for (uint i = 0; i < QUERIES; ++i) weights[i] = tile_p[(i * TILE_KEYS + key) / 4u];
        [[unroll]] for (uint u = 0; u < 4u; ++u) { // past the end: the last one again, with weight 0
            const uvec2 values = at(at(p.kv, k0 + min(key + u, keys - 1u), 4u * p.kv_stride), 4u * values_at);
            [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
                const float v = FloatsIn(values).v[channel[c]];
                [[unroll]] for (uint i = 0; i < QUERIES; ++i)
                    value[i * CHANNELS + c] = fma(weights[i][u], v, value[i * CHANNELS + c]);
            }
        }
    }
}

void main() {
    const uint rows = n_rows(p.state), t0 = gl_WorkGroupID.x * QUERIES, h = gl_WorkGroupID.y;
    if (t0 >= rows) return;
    const StepHeader block = StepIn(p.block).header;
    const uint seen = step_row(p.state, t0).position + 1u - block.first; // by the first query: never none
    const uint keys = min(block.n_rows, seen + min(rows - t0, QUERIES) - 1u);
    if (keys == 0u) return; // a block that this chunk's past does not reach
    load_queries(t0, rows, h);
    barrier();

    const bool is_first = (p.place & EXPANDED_FIRST) != 0u, is_last = (p.place & EXPANDED_LAST) != 0u;
    float largest[QUERIES], sum[QUERIES], rescale[QUERIES], score[SCORES];
    uvec2 y[QUERIES], running[QUERIES];
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        const uint t = min(t0 + i, rows - 1u);
        y[i] = at(at(p.y, t, 4u * p.y_stride), 4u * h * p.value_dim);
        running[i] = at(p.running, t * p.n_heads + h, 8u);
        largest[i] = LOWEST;
        sum[i] = 0;
        if (is_first) continue;
        largest[i] = FloatsIn(running[i]).v[0];
        sum[i] = FloatsIn(running[i]).v[1];
    }
    uint channel[CHANNELS]; // past the end: the last one again, never written
    [[unroll]] for (uint c = 0; c < CHANNELS; ++c)
        channel[c] = min(thread_index() + c * WORKGROUP, p.value_dim - 1u);

    for (uint k0 = 0; k0 < keys; k0 += TILE_KEYS) {
        const uint tile_keys = min(keys - k0, TILE_KEYS);
        score_tile(k0, keys, seen, h * p.k_stride, score);
        softmax_tile(score, tile_keys, largest, sum, rescale);
        float value[VALUES];
        sum_tile(k0, tile_keys, p.v_first + h * p.v_stride, channel, value);
        const bool finished = k0 + TILE_KEYS >= keys && is_last;
        [[unroll]] for (uint i = 0; i < QUERIES; ++i)
            [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
                if (t0 + i >= rows || thread_index() + c * WORKGROUP >= p.value_dim) continue;
                float total = value[i * CHANNELS + c];
                if (k0 != 0u || !is_first) total = fma(Floats(y[i]).v[channel[c]], rescale[i], total);
                Floats(y[i]).v[channel[c]] = finished ? total / sum[i] : total;
            }
    }
    [[unroll]] for (uint i = 0; i < QUERIES; ++i)
        if (!is_last && t0 + i < rows && thread_index() == 0u) {
            Floats(running[i]).v[0] = largest[i];
            Floats(running[i]).v[1] = sum[i];
        }
}
