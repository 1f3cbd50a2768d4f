#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, n] += sum over the token's slots, in turn, of weight * x[t * slots + slot, n].   Grid: (dim /
// WORKGROUP, T).
#include "common.glsl"
#include "moe_pair.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { MoeReduce p; };

void main() {
    const uint t = gl_WorkGroupID.y, n = gl_GlobalInvocationID.x;
    if (t >= n_rows(p.state) || n >= p.dim) return;
    float total = 0;
    for (uint slot = 0; slot < p.n_slots; ++slot) {
        const uint pair = t * p.n_slots + slot;
        const float weight = pair_weight(p.expert_weights, pair, p.state);
        total = fma(weight, FloatsIn(at(p.x, pair, 4u * p.x_stride)).v[n], total);
    }
    Floats(at(p.y, t, 4u * p.y_stride)).v[n] += total;
}
