#version 460
#extension GL_GOOGLE_include_directive : require
// cache[position of t] = (rotate(k[t, h]) of all heads, v[t, h] of all heads), y[t, h] = rotate(q[t, h]); a
// head's numbers are padded to four with zeros everywhere.   Grid: (slices of KV_SLICE numbers, T).
#include "common.glsl"
layout(constant_id = 0) const uint CACHE = CACHE_F32;
#include "cache.glsl"
#include "cache_write.glsl"
#include "rope.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { KvWrite p; };
uvec2 k, v;
uint position;

// Number i of the heads of x, each rotated and padded.
float turned(uvec2 x, uint i) {
    const uint step = pad4(p.head_dim), h = i / step, d = i % step;
    if (d >= p.head_dim) return 0.0;
    return rotated(p.rope, position, at(x, 4u * h * p.head_dim), d, p.head_dim, p.half_split);
}

float number(uint i) {
    const uint keys = p.n_heads * pad4(p.head_dim), step = pad4(p.value_dim);
    if (i < keys) return turned(k, i);
    const uint h = (i - keys) / step, d = (i - keys) % step;
    return d < p.value_dim ? FloatsIn(v).v[h * p.value_dim + d] : 0.0;
}

void main() {
    const uint t = gl_WorkGroupID.y, first = gl_WorkGroupID.x * KV_SLICE, end = first + KV_SLICE;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    k = at(p.k, t, 4u * p.k_stride);
    v = at(p.v, t, 4u * p.v_stride);
    position = row.position;
    const uvec2 cached =
        cache_row(p.cache, p.pages, row.sequence, position, p.max_pages, p.page_bytes, p.row_bytes);
    write_numbers(cached, first, min(end, p.row_floats), p.row_floats);
    const uint queries = p.n_heads * pad4(p.head_dim);
    const uvec2 q = at(p.q, t, 4u * p.q_stride), y = at(p.y, t, 4u * queries);
    for (uint i = first + thread_index(); i < min(end, queries); i += WORKGROUP)
        Floats(y).v[i] = turned(q, i);
}
