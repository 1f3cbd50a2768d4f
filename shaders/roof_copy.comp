#version 460
#extension GL_GOOGLE_include_directive : require
// y = x, 16 bytes at a time, ROOF_STEPS of them by each invocation.   Grid: (n / (WORKGROUP * ROOF_STEPS)).
#include "roof.glsl"

void main() {
    const uint first = gl_WorkGroupID.x * WORKGROUP * ROOF_STEPS + gl_LocalInvocationID.x;
    [[unroll]] for (uint i = 0u; i < ROOF_STEPS; ++i)
        Vec4(p.y).v[first + i * WORKGROUP] = Vec4In(p.x).v[first + i * WORKGROUP];
}
