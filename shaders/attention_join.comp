#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, h] = (sum over parts of exp(m_part - m) value_part) / (sum over parts of exp(m_part - m) sum_part):
// attention_combine without an up-projection.   Grid: (heads, rows of the block).
#include "common.glsl"
#include "cache.glsl"
#define JOINED 1
#include "join.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { AttentionJoin p; };

void main() {
    const uint h = gl_WorkGroupID.x, t = p.first_row + gl_WorkGroupID.y;
    if (t >= min(n_rows(p.state), p.last_row)) return;
    const uint nth = (t - p.first_row) * p.n_heads + h, length = step_row(p.state, t).position + 1u;
    const Parts parts = parts_of(p.partial, nth, p.n_parts, p.value_dim, length, 0u);
    barrier();
    const uvec2 y = at(at(p.y, t, 4u * p.y_stride), 4u * h * p.value_dim);
    for (uint c = thread_index(); c < parts.value4; c += WORKGROUP) {
        const vec4 value = joined(parts, c) / parts.sum;
        [[unroll]] for (uint i = 0; i < 4u; ++i)
            if (4u * c + i < p.value_dim) Floats(y).v[4u * c + i] = value[i];
    }
}
