#version 460
#extension GL_GOOGLE_include_directive : require
// Sixteen chains of f32 fma in registers, n rounds of ROOF_STEPS.   Grid: (any).
#include "roof.glsl"

void main() {
    const float seed = float(roof_seed() & 1023u) * 1e-4;
    const vec4 a = vec4(0.9991 - seed * 1e-3), b = vec4(seed + 1e-3);
    vec4 r[4] = {vec4(seed), vec4(seed + 0.1), vec4(seed + 0.2), vec4(seed + 0.3)};
    for (uint round = 0u; round < p.n; ++round)
        [[unroll]] for (uint i = 0u; i < ROOF_STEPS; ++i)
            [[unroll]] for (uint k = 0u; k < 4u; ++k) r[k] = fma(r[k], a, b);
    const vec4 sum = r[0] + r[1] + r[2] + r[3];
    roof_use(sum.x + sum.y + sum.z + sum.w);
}
