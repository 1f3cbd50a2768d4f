#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
// As roof_fma, in pairs of 16-bit numbers: sixteen chains of two. Only where Caps::float16.   Grid: (any).
#include "roof.glsl"

void main() {
    const float seed = float(roof_seed() & 1023u) * 1e-4;
    const f16vec4 a = f16vec4(0.99 - seed * 1e-3), b = f16vec4(seed + 1e-3);
    f16vec4 r[8];
    [[unroll]] for (uint k = 0u; k < 8u; ++k) r[k] = f16vec4(seed + 0.1 * float(k));
    for (uint round = 0u; round < p.n; ++round)
        [[unroll]] for (uint i = 0u; i < ROOF_STEPS; ++i)
            [[unroll]] for (uint k = 0u; k < 8u; ++k) r[k] = fma(r[k], a, b);
    f16vec4 sum = r[0];
    [[unroll]] for (uint k = 1u; k < 8u; ++k) sum += r[k];
    roof_use(float(sum.x + sum.y + sum.z + sum.w));
}
