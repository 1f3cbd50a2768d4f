#version 460
#extension GL_GOOGLE_include_directive : require
// y = x * weight / sqrt(mean(x^2) + eps), a row at a time.   Grid: (1, T).
#include "common.glsl"
#include "norm.glsl"
#include "trace.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { RmsNorm p; };

void main() {
    const uint t = gl_WorkGroupID.y;
    if (t >= n_rows(p.state)) return;
    const uvec2 x = at(p.x, t, 4u * p.x_stride), y = at(p.y, t, 4u * p.y_stride);
    const float scale = norm_scale(x, p.n, p.eps);
    if (p.trace_stride != 0u && thread_index() == 0u) trace_norm(p.state, p.trace, p.trace_stride, t, scale);
    for (uint i = thread_index(); i < p.n / 4u; i += WORKGROUP)
        Vec4(y).v[i] = Vec4In(x).v[i] * scale * Vec4In(p.weight).v[i];
    const uint i = p.n / 4u * 4u + thread_index();
    if (i < p.n) Floats(y).v[i] = FloatsIn(x).v[i] * scale * FloatsIn(p.weight).v[i];
}
