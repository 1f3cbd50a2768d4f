// Attention over the cache: invocation j scores position j of each page of a tile for the QUERIES heads of
// the group, so a cache row is read once for all of them; then each invocation sums four channels a time
// over the tile, for all heads again.
layout(constant_id = 0) const uint QUERIES = 4; // heads of a group: 1 where each has ranges of its own
layout(constant_id = 1) const uint ROW_FLOATS = 8;
layout(constant_id = 2) const uint CHANNELS = 1; // vec4 of the values for each invocation
layout(constant_id = 3) const uint TILE_PAGES = 1;
layout(constant_id = 4) const uint CACHE = CACHE_F32;
layout(constant_id = 5) const uint KEY_FLOATS = 8;
layout(constant_id = 6) const uint AT_ONCE = 4; // vec4 of a key on their way to an invocation; of values half
#include "cached.glsl"
#include "softmax.glsl"
const uint VALUES = QUERIES * CHANNELS, KEY4 = KEY_FLOATS / 4u, KEYS_AT_ONCE = (AT_ONCE + 7u) / 8u * 4u;

void add_products(uvec2 query[QUERIES], vec4 k, uint c, inout float dot[QUERIES]) {
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
            const uint whole = KEY4 / AT_ONCE * AT_ONCE;
            for (uint c = 0; c < whole; c += AT_ONCE) {
                vec4 k[AT_ONCE];
                [[unroll]] for (uint u = 0; u < AT_ONCE; ++u) k[u] = cached4(row, key + c + u);
                [[unroll]] for (uint u = 0; u < AT_ONCE; ++u) add_products(query, k[u], c + u, dot);
            }
            for (uint c = whole; c < KEY4; ++c) add_products(query, cached4(row, key + c), c, dot);
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
        for (uint k0 = 0; k0 < end; k0 += KEYS_AT_ONCE) {
            vec4 v[KEYS_AT_ONCE * CHANNELS];
            [[unroll]] for (uint u = 0; u < KEYS_AT_ONCE; ++u) { // past the end the last, with weight 0
                const uvec2 row = at(page[s], min(k0 + u, end - 1u) * p.row_bytes);
                [[unroll]] for (uint c = 0; c < CHANNELS; ++c)
                    v[u * CHANNELS + c] = cached4(row, values + channel[c]);
            }
            [[unroll]] for (uint u0 = 0; u0 < KEYS_AT_ONCE; u0 += 4u)
                [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
                    const vec4 weights = tile_p[(i * TILE_KEYS + s * PAGE_TOKENS + k0 + u0) / 4u];
                    [[unroll]] for (uint u = 0; u < 4u; ++u)
                        [[unroll]] for (uint c = 0; c < CHANNELS; ++c) value[i * CHANNELS + c] =
                            fma(vec4(weights[u]), v[(u0 + u) * CHANNELS + c], value[i * CHANNELS + c]);
                }
        }
    }
}

void attend_by_keys(Part part, uint h0) {
    const uint value4 = pad4(p.value_dim) / 4u;
    // uniform: scalar loads where the hardware has them; heads past the end repeat the last one
    uvec2 query[QUERIES];
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) query[i] = query_row(part.t, min(h0 + i, p.n_heads - 1u));
    uint channel[CHANNELS]; // past the end: the last one again, never written
    [[unroll]] for (uint c = 0; c < CHANNELS; ++c)
        channel[c] = min(thread_index() + c * WORKGROUP, value4 - 1u);
    float largest[QUERIES], sum[QUERIES], rescale[QUERIES], score[SCORES];
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) { largest[i] = LOWEST; sum[i] = 0; }

    for (uint tile = 0; tile < part.keys; tile += TILE_KEYS) {
        const uint keys = part.keys - tile;
        uvec2 page[TILE_PAGES];
        [[unroll]] for (uint s = 0; s < TILE_PAGES; ++s)
            page[s] = row_of(part, min(tile + s * PAGE_TOKENS, (part.keys - 1u) / PAGE_TOKENS * PAGE_TOKENS));
        score_tile(query, page, keys, h0 * p.key_step / 4u, score);
        softmax_tile(score, keys, largest, sum, rescale);
        vec4 value[VALUES];
        sum_tile(page, keys, (p.value_first + h0 * p.value_step) / 4u, channel, value);
        // No break leaves a loop that is to be unrolled: arrays in registers want constant indices.
        [[unroll]] for (uint i = 0; i < QUERIES; ++i)
            [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
                if (h0 + i >= p.n_heads || thread_index() + c * WORKGROUP >= value4) continue;
                const uvec2 y = partial_of(part, h0 + i);
                vec4 total = value[i * CHANNELS + c];
                if (tile != 0u) total = fma(Vec4(y).v[channel[c]], vec4(rescale[i]), total);
                Vec4(y).v[channel[c]] = total;
            }
    }
    [[unroll]] for (uint i = 0; i < QUERIES; ++i)
        if (h0 + i < p.n_heads && thread_index() == 0u)
            Vec4(partial_of(part, h0 + i)).v[value4] = vec4(largest[i], sum[i], 0, 0);
}
