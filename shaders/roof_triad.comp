#version 460
#extension GL_GOOGLE_include_directive : require
// z = x + 3 y, as STREAM's triad.   Grid: (n / (WORKGROUP * ROOF_STEPS)).
#include "roof.glsl"

void main() {
    const uint first = gl_WorkGroupID.x * WORKGROUP * ROOF_STEPS + gl_LocalInvocationID.x;
    [[unroll]] for (uint i = 0u; i < ROOF_STEPS; ++i) {
        const uint k = first + i * WORKGROUP;
        Vec4(p.z).v[k] = fma(Vec4In(p.y).v[k], vec4(3), Vec4In(p.x).v[k]);
    }
}
