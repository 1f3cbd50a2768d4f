#version 460
#extension GL_GOOGLE_include_directive : require
// partial[t, h, part] = sum over the part's positions j of exp(s_j - m) latent_j, with m and the sum of
// exp(s_j - m), where s_j = scale * q[t, h] . cache[j].
// Grid: (parts, heads / QUERIES, rows of the block). A tile is one page: invocation j scores position j for
// the QUERIES heads of the group, so a cache row is read once for all of them; then each invocation
// accumulates four channels a time, for all heads again. Parts depend on the token's position alone, hence
// so do its bits.
#include "common.glsl"
layout(constant_id = 0) const uint QUERIES = 4;    // heads of a group
layout(constant_id = 1) const uint ROW_FLOATS = 8;
layout(constant_id = 2) const uint CHANNELS = 1;   // vec4 of the latent for each invocation
#include "cache.glsl"
#include "softmax.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { LatentAttention p; };

void main() {
    const uint t = p.first_row + gl_WorkGroupID.z, h0 = gl_WorkGroupID.y * QUERIES, part = gl_WorkGroupID.x;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    const uint length = p.history_only != 0u ? row.history : row.position + 1u;
    const uint tiles = (length + PAGE_TOKENS - 1u) / PAGE_TOKENS;
    const uint tiles_per_part = (tiles + p.n_parts - 1u) / p.n_parts;
    const uint first = part * tiles_per_part, last = min(first + tiles_per_part, tiles);
    const uint row4 = ROW_FLOATS / 4u, latent4 = pad4(p.latent_dim) / 4u;

    uvec2 query[QUERIES]; // uniform: scalar loads where the hardware has them; heads past the end repeat the
                          // last one
    [[unroll]] for (uint i = 0; i < QUERIES; ++i)
        query[i] = at(p.q, t * p.n_heads + min(h0 + i, p.n_heads - 1u), 4u * ROW_FLOATS);

    float largest[QUERIES], sum[QUERIES], rescale[QUERIES], score[QUERIES];
    vec4 value[QUERIES * CHANNELS];
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) { largest[i] = LOWEST; sum[i] = 0; }
    [[unroll]] for (uint i = 0; i < QUERIES * CHANNELS; ++i) value[i] = vec4(0);

    for (uint tile = first; tile < last; ++tile) {
        const uint keys = min(length - tile * PAGE_TOKENS, PAGE_TOKENS), j = thread_index();
        const uvec2 page = cache_row(p.cache, p.pages, row.sequence, tile * PAGE_TOKENS, p.max_pages,
                                     p.page_bytes, ROW_FLOATS);
        [[unroll]] for (uint i = 0; i < QUERIES; ++i) score[i] = 0;
        const uvec2 key = at(page, min(j, keys - 1u) * ROW_FLOATS * 4u);
        for (uint c = 0; c < row4; ++c) {
            const vec4 k = Vec4In(key).v[c];
            [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
                const vec4 q = Vec4In(query[i]).v[c];
                score[i] = fma(q.w, k.w, fma(q.z, k.z, fma(q.y, k.y, fma(q.x, k.x, score[i]))));
            }
        }
        [[unroll]] for (uint i = 0; i < QUERIES; ++i) score[i] = j < keys ? score[i] * p.scale : 2.0 * LOWEST;
        softmax_tile(score, largest, sum, rescale);
        [[unroll]] for (uint i = 0; i < QUERIES; ++i)
            [[unroll]] for (uint c = 0; c < CHANNELS; ++c) value[i * CHANNELS + c] *= rescale[i];
        [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
            const uint channel = thread_index() + c * WORKGROUP;
            if (channel >= latent4) break;
            for (uint k = 0; k < keys; ++k) {
                const vec4 v = Vec4In(at(page, k * ROW_FLOATS * 4u)).v[channel];
                [[unroll]] for (uint i = 0; i < QUERIES; ++i) value[i * CHANNELS + c] =
                    fma(vec4(tile_p[i * PAGE_TOKENS + k]), v, value[i * CHANNELS + c]);
            }
        }
    }
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        if (h0 + i >= p.n_heads) break;
        const uint block_row = (t - p.first_row) * p.n_heads + h0 + i;
        const uvec2 y = at(p.partial, block_row * p.n_parts + part, 16u * (latent4 + 1u));
        [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
            const uint channel = thread_index() + c * WORKGROUP;
            if (channel < latent4) Vec4(y).v[channel] = value[i * CHANNELS + c];
        }
        if (thread_index() == 0u) Vec4(y).v[latent4] = vec4(largest[i], sum[i], 0, 0);
    }
}
