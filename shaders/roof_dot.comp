#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
// Sixteen chains of sums of products of four packed signed bytes. GLSL has names for that from glslang 15.2
// on; the instruction (OpSDot of SPV_KHR_integer_dot_product, with packed operands) is older. Only where
// Caps::int8_dot.   Grid: (any).
#include "roof.glsl"

spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450)
int dot_packed(uint a, uint b, spirv_literal int format);

void main() {
    const uint seed = roof_seed();
    uint r[16];
    [[unroll]] for (uint k = 0u; k < 16u; ++k) r[k] = seed + k;
    for (uint round = 0u; round < p.n; ++round)
        [[unroll]] for (uint i = 0u; i < ROOF_STEPS; ++i)
            [[unroll]] for (uint k = 0u; k < 16u; ++k) r[k] += uint(dot_packed(r[k], seed, 0));
    uint sum = 0u;
    [[unroll]] for (uint k = 0u; k < 16u; ++k) sum ^= r[k];
    if (sum == p.seed + 0x9E3779B9u) Words(p.y).v[0] = sum;
}
