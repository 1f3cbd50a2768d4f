#version 460
#extension GL_GOOGLE_include_directive : require
// y[t] = table[token of t], and the token is counted for the sampler's penalties.
// Grid: (dim / 512, T). An invocation writes eight floats.
// variants: FORMAT=*
#include "common.glsl"
#include "dequant.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { Embed p; };

void main() {
    const uint t = gl_WorkGroupID.y, chunk = gl_GlobalInvocationID.x;
    if (t >= n_rows(p.state) || 8u * chunk >= p.dim) return;
    const StepRow row = step_row(p.state, t);
    if (chunk == 0u) atomicAdd(Words(at(p.counts, row.sequence, 4u * p.vocab)).v[row.token], 1u);
    vec4 a, b;
    load8(at(p.table, row.token, p.row_bytes), chunk, p.dim, a, b);
    const uvec2 y = at(p.y, t, 4u * p.y_stride);
    Vec4(y).v[2u * chunk] = a; // rows of x are padded to eight floats
    Vec4(y).v[2u * chunk + 1u] = b;
}
