// What every kernel needs: references to memory by address, address arithmetic, the step's state. Addresses
// are advanced by at() alone: `reference + i` and uint64_t would ask for the Int64 capability.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#include "formats.h"
#include "params.h"
#include "tiers.h"

#if defined(TIER) && TIER >= TIER_TILED
#define WORKGROUP 128
#elif !defined(WORKGROUP)
#define WORKGROUP                                                                                            \
    64 // invocations, unless a kernel says otherwise: a multiple of every subgroup size from 4 to 64
#endif
#define LOWEST (-1.7e38) // stands for minus infinity where inf - inf must not happen

layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer FloatsIn { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Vec4In { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Words4In { uvec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Words2In { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer WordsIn { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Floats { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Vec4 { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer StepIn {
    StepHeader header;
    StepRow rows[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Step {
    StepHeader header;
    StepRow rows[];
};

uvec2 at(uvec2 base, uint bytes) {
    uint carry;
    const uint low = uaddCarry(base.x, bytes, carry);
    return uvec2(low, base.y + carry);
}
// base + index * stride, where the product may exceed 32 bits.
uvec2 at(uvec2 base, uint index, uint stride) {
    uint high, low;
    umulExtended(index, stride, high, low);
    const uvec2 a = at(base, low);
    return uvec2(a.x, a.y + high);
}
uvec2 at(uvec2 base, uint index, uvec2 stride) {
    const uvec2 a = at(base, index, stride.x);
    return uvec2(a.x, a.y + index * stride.y);
}
bool given(uvec2 address) { return (address.x | address.y) != 0u; }
// An address that may be absent, made safe to load from: lavapipe of Mesa 26 hoists loads from uniform
// addresses out of branches that no invocation takes. What is loaded from `instead` is never used.
uvec2 safe(uvec2 address, uvec2 instead) { return given(address) ? address : instead; }

uint n_rows(uvec2 state) { return StepIn(state).header.n_rows; }
StepRow step_row(uvec2 state, uint t) { return StepIn(state).rows[t]; }

// The invocation's number such that consecutive numbers share a subgroup.
uint thread_index() { return gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID; }

// Of a chunk of a row of n values: those beyond n, which are padding, count as zero.
void zero_padding(uint chunk, uint n, inout vec4 a, inout vec4 b) {
    const uvec4 i = 8u * chunk + uvec4(0u, 1u, 2u, 3u);
    a = mix(vec4(0), a, lessThan(i, uvec4(n)));
    b = mix(vec4(0), b, lessThan(i + 4u, uvec4(n)));
}
