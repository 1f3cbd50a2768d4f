#version 460
#extension GL_GOOGLE_include_directive : require
// Reads x, 16 bytes at a time, ROOF_STEPS of them by each invocation, and writes nothing.   Grid: (n /
// (WORKGROUP * ROOF_STEPS)).
#include "roof.glsl"

void main() {
    const uint first = gl_WorkGroupID.x * WORKGROUP * ROOF_STEPS + gl_LocalInvocationID.x;
    vec4 sum = vec4(0);
    [[unroll]] for (uint i = 0u; i < ROOF_STEPS; ++i) sum += Vec4In(p.x).v[first + i * WORKGROUP];
    roof_use(sum.x + sum.y + sum.z + sum.w);
}
