#version 460
#extension GL_GOOGLE_include_directive : require
// Attention of a prefill chunk to itself, with keys and values expanded from the latent:
// s[t, h, j] = scale * (q_nope . k_nope[j] + rotated q_pe . k_pe[j]) for j <= t, y = softmax(s) v.
// Grid: (T / QUERIES, heads). The shape of latent_attention, with QUERIES rows of one head in place of the
// heads of one row. k_pe comes rotated from the cache; k_nope and v from kv.
#include "common.glsl"
layout(constant_id = 0) const uint QUERIES = 4;  // token rows of a tile
layout(constant_id = 1) const uint HEAD_DIM = 8; // nope + rope
layout(constant_id = 2) const uint CHANNELS = 1; // values for each invocation
#include "rope.glsl"
#include "cache.glsl"
#include "softmax.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { ExpandedAttention p; };
shared float query[QUERIES * HEAD_DIM];

void load_queries(uint t0, uint rows, uint h) {
    for (uint i = thread_index(); i < QUERIES * p.nope_dim; i += WORKGROUP) {
        const uint q = i / p.nope_dim, d = i % p.nope_dim;
        query[q * HEAD_DIM + d] =
            FloatsIn(at(p.q, min(t0 + q, rows - 1u), 4u * p.q_stride)).v[h * HEAD_DIM + d];
    }
    for (uint i = thread_index(); i < QUERIES * p.rope_dim / 2u; i += WORKGROUP) {
        const uint q = i / (p.rope_dim / 2u), pair = i % (p.rope_dim / 2u), t = min(t0 + q, rows - 1u);
        const uint a = p.nope_dim + rope_first(pair, p.rope_dim, p.half_split);
        const uint b = p.nope_dim + rope_second(pair, p.rope_dim, p.half_split);
        const uvec2 row = at(p.q, t, 4u * p.q_stride);
        const vec2 q_pe = vec2(FloatsIn(row).v[h * HEAD_DIM + a], FloatsIn(row).v[h * HEAD_DIM + b]);
        const vec2 rotated = rotate(p.rope, step_row(p.state, t).position, pair, p.rope_dim, q_pe);
        query[q * HEAD_DIM + a] = rotated.x;
        query[q * HEAD_DIM + b] = rotated.y;
    }
}

void main() {
    const uint rows = n_rows(p.state), t0 = gl_WorkGroupID.x * QUERIES, h = gl_WorkGroupID.y;
    if (t0 >= rows) return;
    load_queries(t0, rows, h);
    barrier();

    const uint keys_at = h * p.k_stride, values_at = p.v_first + h * p.v_stride;
    float largest[QUERIES], sum[QUERIES], rescale[QUERIES], score[QUERIES], value[QUERIES * CHANNELS];
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) { largest[i] = LOWEST; sum[i] = 0; }
    [[unroll]] for (uint i = 0; i < QUERIES * CHANNELS; ++i) value[i] = 0;

    const uint keys = min(t0 + QUERIES, rows); // the last query of the tile sees these
    for (uint k0 = 0; k0 < keys; k0 += PAGE_TOKENS) {
        const uint j = k0 + thread_index(), k = min(j, keys - 1u);
        const StepRow row = step_row(p.state, k);
        const uvec2 k_nope = at(p.kv, k, 4u * p.kv_stride);
        const uvec2 k_pe =
            cache_row(p.cache, p.pages, row.sequence, row.position, p.max_pages, p.page_bytes, p.row_floats);
        [[unroll]] for (uint i = 0; i < QUERIES; ++i) score[i] = 0;
        for (uint d = 0; d < HEAD_DIM; ++d) {
            const float x = d < p.nope_dim ? FloatsIn(k_nope).v[keys_at + d]
                                           : FloatsIn(k_pe).v[pad4(p.latent_dim) + d - p.nope_dim];
            [[unroll]] for (uint i = 0; i < QUERIES; ++i) score[i] =
                fma(query[i * HEAD_DIM + d], x, score[i]);
        }
        [[unroll]] for (uint i = 0; i < QUERIES; ++i)
            score[i] = j <= t0 + i && j < rows ? score[i] * p.scale : 2.0 * LOWEST;
        softmax_tile(score, largest, sum, rescale);
        [[unroll]] for (uint i = 0; i < QUERIES; ++i)
            [[unroll]] for (uint c = 0; c < CHANNELS; ++c) value[i * CHANNELS + c] *= rescale[i];
        const uint tile_keys = min(keys - k0, PAGE_TOKENS);
        [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
            const uint channel = thread_index() + c * WORKGROUP;
            if (channel >= p.value_dim) break;
            for (uint key = 0; key < tile_keys; ++key) {
                const float v = FloatsIn(at(p.kv, k0 + key, 4u * p.kv_stride)).v[values_at + channel];
                [[unroll]] for (uint i = 0; i < QUERIES; ++i)
                    value[i * CHANNELS + c] = fma(tile_p[i * PAGE_TOKENS + key], v, value[i * CHANNELS + c]);
            }
        }
    }
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        const uint t = t0 + i;
        if (t >= rows) break;
        const bool join = p.join != 0u;
        const uvec2 y =
            join ? at(p.y, t * p.n_heads + h, 4u * (p.value_dim + 2u)) : at(p.y, t, 4u * p.y_stride);
        [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
            const uint channel = thread_index() + c * WORKGROUP;
            if (channel >= p.value_dim) break;
            if (join) Floats(y).v[channel] = value[i * CHANNELS + c];
            else Floats(y).v[h * p.value_dim + channel] = value[i * CHANNELS + c] / sum[i];
        }
        if (join && thread_index() == 0u) {
            Floats(y).v[p.value_dim] = largest[i];
            Floats(y).v[p.value_dim + 1u] = sum[i];
        }
    }
}
