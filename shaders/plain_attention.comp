#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, h] = sum over j of softmax(scale * rotate(q[t, h]) . k[j, h]) v[j, h], for j up to the position of t.
// Grid: (heads, T). A tile is one page: invocation j scores position j, then each invocation accumulates
// channels of the values. Tiles are those of the sequence, so that a token's bits depend on its position
// alone.
#include "common.glsl"
#define QUERIES 1
#define TILE_PAGES 1
layout(constant_id = 0) const uint HEAD_DIM = 2;
layout(constant_id = 1) const uint CHANNELS = 1; // values for each invocation
#include "rope.glsl"
#include "cache.glsl"
#include "softmax.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { PlainAttention p; };
shared float query[HEAD_DIM];

void main() {
    const uint t = gl_WorkGroupID.y, h = gl_WorkGroupID.x;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    const uvec2 q = at(at(p.q, t, 4u * p.q_stride), 4u * h * HEAD_DIM);
    for (uint i = thread_index(); i < HEAD_DIM / 2u; i += WORKGROUP) {
        const uint a = rope_first(i, HEAD_DIM, p.half_split), b = rope_second(i, HEAD_DIM, p.half_split);
        const vec2 pair = vec2(FloatsIn(q).v[a], FloatsIn(q).v[b]);
        const vec2 rotated = rotate(p.rope, row.position, i, HEAD_DIM, pair);
        query[a] = rotated.x;
        query[b] = rotated.y;
    }
    barrier();

    float largest[1], sum[1], rescale[1], score[SCORES], value[CHANNELS];
    largest[0] = LOWEST;
    sum[0] = 0;
    [[unroll]] for (uint c = 0; c < CHANNELS; ++c) value[c] = 0;
    const uint first_value = pad4(p.n_heads * HEAD_DIM) + h * p.value_dim;
    for (uint k0 = 0; k0 <= row.position; k0 += PAGE_TOKENS) {
        const uint keys = min(row.position + 1u - k0, PAGE_TOKENS), j = thread_index();
        const uvec2 page =
            cache_row(p.cache, p.pages, row.sequence, k0, p.max_pages, p.page_bytes,
                      4u * p.row_floats);
        const uvec2 key = at(page, 4u * (min(j, keys - 1u) * p.row_floats + h * HEAD_DIM));
        score[0] = 0;
        for (uint d = 0; d < HEAD_DIM; ++d) score[0] = fma(query[d], FloatsIn(key).v[d], score[0]);
        score[0] = j < keys ? score[0] * p.scale : 2.0 * LOWEST;
        softmax_tile(score, keys, largest, sum, rescale);
        [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
            value[c] *= rescale[0];
            const uint channel = min(thread_index() + c * WORKGROUP, p.value_dim - 1u);
            for (uint k0 = 0; k0 < keys; k0 += 4u) {
                const vec4 weights = tile_p[k0 / 4u];
                [[unroll]] for (uint u = 0; u < 4u; ++u) { // past the end: the last one again, with weight 0
                    const uvec2 cached = at(page, 4u * min(k0 + u, keys - 1u) * p.row_floats);
                    value[c] = fma(weights[u], FloatsIn(cached).v[first_value + channel], value[c]);
                }
            }
        }
    }
    [[unroll]] for (uint c = 0; c < CHANNELS; ++c) {
        const uint channel = thread_index() + c * WORKGROUP;
        if (channel < p.value_dim)
            Floats(at(p.y, t, 4u * p.y_stride)).v[h * p.value_dim + channel] = value[c] / sum[0];
    }
}
