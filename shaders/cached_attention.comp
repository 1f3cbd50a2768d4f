#version 460
#extension GL_GOOGLE_include_directive : require
// partial[t, h, part] = sum over the part's positions j of exp(s_j - m) v[j, h], with m and the sum of
// exp(s_j - m), where s_j = scale * q[t, h] . k[j, h]. Keys and values are ranges of a cache row: of latent
// attention the whole row and its beginning, for every head; of plain attention each head has its own.
// Grid: (parts, heads / QUERIES, rows of the block). Invocation j scores position j of each page of a tile
// for the QUERIES heads of the group, so a cache row is read once for all of them; then each invocation
// sums four channels a time over the tile, for all heads again. Parts depend on the token's position alone,
// hence so do its bits; those that it leaves without positions are not written.
#include "common.glsl"
layout(constant_id = 0) const uint QUERIES = 4; // heads of a group: 1 where each has ranges of its own
layout(constant_id = 1) const uint ROW_FLOATS = 8;
layout(constant_id = 2) const uint CHANNELS = 1; // vec4 of the values for each invocation
layout(constant_id = 3) const uint TILE_PAGES = 1;
layout(constant_id = 4) const uint CACHE = CACHE_F32;
layout(constant_id = 5) const uint KEY_FLOATS = 8;
#include "cache.glsl"
#include "cached.glsl"
#include "softmax.glsl"
const uint VALUES = QUERIES * CHANNELS, KEY4 = KEY_FLOATS / 4u;
#define UNROLL 4u // of the inner loops: loads under way, and sums that stay in registers
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { CachedAttention p; };

uvec2 partial_of(uint t, uint h, uint part) {
    const uint row = ((t - p.first_row) * p.n_heads + h) * p.n_parts + part;
    return at(p.partial, row, 4u * (pad4(p.value_dim) + 4u));
}

void add_products(uvec2 query[QUERIES], uvec2 row, uint key, uint c, inout float dot[QUERIES]) {
    const vec4 k = cached4(row, key + c);
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        const vec4 q = Vec4In(query[i]).v[c];
        dot[i] += fma(q.w, k.w, fma(q.z, k.z, fma(q.y, k.y, q.x * k.x)));
    }
}

// score[i, s] = scale * query i . key of this invocation on page s of the tile; a key begins `key` vec4 into
// its row.
void score_tile(uvec2 query[QUERIES], uvec2 page[TILE_PAGES], uint keys, uint key, out float score[SCORES]) {
    [[unroll]] for (uint s = 0; s < TILE_PAGES; ++s) {
        const uint j = s * PAGE_TOKENS + thread_index();
        float dot[QUERIES];
        [[unroll]] for (uint i = 0; i < QUERIES; ++i) dot[i] = 0;
        if (s * PAGE_TOKENS < keys) {
            const uvec2 row = at(page[s], min(j, keys - 1u) % PAGE_TOKENS * p.row_bytes);
            const uint whole = KEY4 / UNROLL * UNROLL;
            for (uint c = 0; c < whole; c += UNROLL)
                [[unroll]] for (uint u = 0; u < UNROLL; ++u) add_products(query, row, key, c + u, dot);
            for (uint c = whole; c < KEY4; ++c) add_products(query, row, key, c, dot);
        }
        [[unroll]] for (uint i = 0; i < QUERIES; ++i)
            score[i * TILE_PAGES + s] = j < keys ? dot[i] * p.scale : 2.0 * LOWEST;
    }
}

// value[i, c] = sum over the tile's keys of their weight for query i times this invocation's channel c;
// values begin `values` vec4 into their row.
void sum_tile(uvec2 page[TILE_PAGES], uint keys, uint values, uint channel[CHANNELS],
              out vec4 value[VALUES]) {
    [[unroll]] for (uint i = 0; i < VALUES; ++i) value[i] = vec4(0);
    if (gl_SubgroupID * gl_SubgroupSize >= pad4(p.value_dim) / 4u) return; // a subgroup without a channel
    [[unroll]] for (uint s = 0; s < TILE_PAGES; ++s) {
        const uint end = clamp(int(keys) - int(s * PAGE_TOKENS), 0, PAGE_TOKENS);
        for (uint k0 = 0; k0 < end; k0 += UNROLL) {
            vec4 weights[QUERIES];
            [[unroll]] for (uint i = 0; i < QUERIES; ++i) weights[i] =
                tile_p[(i * TILE_KEYS + s * PAGE_TOKENS + k0) / 4u];
            [[unroll]] for (uint u = 0; u < UNROLL; ++u) { // past the end: the last one again, with weight 0
                const uvec2 row = at(page[s], min(k0 + u, end - 1u) * p.row_bytes);
                [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
                    const vec4 v = cached4(row, values + channel[c]);
                    [[unroll]] for (uint i = 0; i < QUERIES; ++i) value[i * CHANNELS + c] =
                        fma(vec4(weights[i][u]), v, value[i * CHANNELS + c]);
                }
            }
        }
    }
}

void main() {
    const uint t = p.first_row + gl_WorkGroupID.z, h0 = gl_WorkGroupID.y * QUERIES;
    // Short texts fill the first parts only: neighbours go apart, for those who share out workgroups in runs.
    const uint part = gl_WorkGroupID.x * (p.n_parts % 4u == 0u ? p.n_parts / 2u + 1u : 1u) % p.n_parts;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    const uint length = row.position + 1u, pages = pages_of(length);
    const uint pages_each = part_pages(pages, p.n_parts);
    const uint first = part * pages_each, last = min(first + pages_each, pages);
    if (first >= last) return;
    const uint value4 = pad4(p.value_dim) / 4u;

    // uniform: scalar loads where the hardware has them; heads past the end repeat the last one
    uvec2 query[QUERIES];
    [[unroll]] for (uint i = 0; i < QUERIES; ++i)
        query[i] = at(p.q, t * p.n_heads + min(h0 + i, p.n_heads - 1u), 4u * KEY_FLOATS);
    uint channel[CHANNELS]; // past the end: the last one again, never written
    [[unroll]] for (uint c = 0; c < CHANNELS; ++c)
        channel[c] = min(thread_index() + c * WORKGROUP, value4 - 1u);
    float largest[QUERIES], sum[QUERIES], rescale[QUERIES], score[SCORES];
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) { largest[i] = LOWEST; sum[i] = 0; }

    for (uint tile = first; tile < last; tile += TILE_PAGES) {
        const uint keys = min(length, last * PAGE_TOKENS) - tile * PAGE_TOKENS;
        uvec2 page[TILE_PAGES];
        [[unroll]] for (uint s = 0; s < TILE_PAGES; ++s)
            page[s] = cache_row(p.cache, p.pages, row.sequence, min(tile + s, last - 1u) * PAGE_TOKENS,
                                p.max_pages, p.page_bytes, p.row_bytes);
        score_tile(query, page, keys, h0 * p.key_step / 4u, score);
        softmax_tile(score, keys, largest, sum, rescale);
        vec4 value[VALUES];
        sum_tile(page, keys, (p.value_first + h0 * p.value_step) / 4u, channel, value);
        // No break leaves a loop that is to be unrolled: arrays in registers want constant indices.
        [[unroll]] for (uint i = 0; i < QUERIES; ++i)
            [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
                if (h0 + i >= p.n_heads || thread_index() + c * WORKGROUP >= value4) continue;
                const uvec2 y = partial_of(t, h0 + i, part);
                vec4 total = value[i * CHANNELS + c];
                if (tile != first) total = fma(Vec4(y).v[channel[c]], vec4(rescale[i]), total);
                Vec4(y).v[channel[c]] = total;
            }
    }
    [[unroll]] for (uint i = 0; i < QUERIES; ++i)
        if (h0 + i < p.n_heads && thread_index() == 0u)
            Vec4(partial_of(t, h0 + i, part)).v[value4] = vec4(largest[i], sum[i], 0, 0);
}
