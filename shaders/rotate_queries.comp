#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, h] = (q_nope[t, h], rotated q_pe[t, h]), each padded to four with zeros: the queries of a prompt, as
// expanded_attention takes them.   Grid: (slices of QUERY_SLICE numbers, T).
#include "common.glsl"
#include "cache.glsl"
#include "rope.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { RotateQueries p; };

void main() {
    const uint t = gl_WorkGroupID.y, nope4 = pad4(p.nope_dim), step = nope4 + pad4(p.rope_dim);
    if (t >= n_rows(p.state)) return;
    const uint first = gl_WorkGroupID.x * QUERY_SLICE, end = min(first + QUERY_SLICE, p.n_heads * step);
    const uint position = step_row(p.state, t).position;
    const uvec2 q = at(p.q, t, 4u * p.q_stride), y = at(p.y, t, 4u * p.n_heads * step);
    for (uint i = first + thread_index(); i < end; i += WORKGROUP) {
        const uint d = i % step;
        const uvec2 head = at(q, 4u * (i / step) * (p.nope_dim + p.rope_dim));
        float number = 0.0;
        if (d < p.nope_dim)
            number = FloatsIn(head).v[d];
        else if (d >= nope4 && d - nope4 < p.rope_dim)
            number =
                rotated(p.rope, position, at(head, 4u * p.nope_dim), d - nope4, p.rope_dim, p.half_split);
        Floats(y).v[i] = number;
    }
}
