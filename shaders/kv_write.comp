#version 460
#extension GL_GOOGLE_include_directive : require
// cache[position of t] = (rotate(k[t, h]) of all heads, v[t, h] of all heads).   Grid: (1, T).
#include "common.glsl"
#include "rope.glsl"
#include "cache.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { KvWrite p; };

void main() {
    const uint t = gl_WorkGroupID.y;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    const uvec2 k = at(p.k, t, 4u * p.k_stride), v = at(p.v, t, 4u * p.v_stride);
    const uvec2 y =
        cache_row(p.cache, p.pages, row.sequence, row.position, p.max_pages, p.page_bytes,
                  4u * p.row_floats);
    const uint half_dim = p.head_dim / 2u, keys = p.n_heads * p.head_dim, values = p.n_heads * p.value_dim;
    for (uint i = thread_index(); i < p.n_heads * half_dim; i += WORKGROUP) {
        const uint base = i / half_dim * p.head_dim, pair = i % half_dim;
        const uint a = base + rope_first(pair, p.head_dim, p.half_split);
        const uint b = base + rope_second(pair, p.head_dim, p.half_split);
        const vec2 key = vec2(FloatsIn(k).v[a], FloatsIn(k).v[b]);
        const vec2 rotated = rotate(p.rope, row.position, pair, p.head_dim, key);
        Floats(y).v[a] = rotated.x;
        Floats(y).v[b] = rotated.y;
    }
    const uint first = pad4(keys);
    for (uint i = keys + thread_index(); i < first; i += WORKGROUP) Floats(y).v[i] = 0.0;
    for (uint i = thread_index(); i < p.row_floats - first; i += WORKGROUP)
        Floats(y).v[first + i] = i < values ? FloatsIn(v).v[i] : 0.0;
}
