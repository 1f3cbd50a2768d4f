#version 460
#extension GL_GOOGLE_include_directive : require
// One plane of the rows of a matrix, out of a seed: word w of a row is a random word with the bits outside
// `mask` cleared and those of `set` put in, both repeated every `period` words (engine/model/synthetic.h).
// Grid: two numbers whose product is at least rows * words / WORKGROUP.
#include "common.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { RandomRows p; };

// PCG's output function (Jarzynski and Olano, "Hash Functions for GPU Rendering", 2020).
uint mix32(uint x) {
    x = x * 747796405u + 2891336453u;
    x = ((x >> ((x >> 28) + 4u)) ^ x) * 277803737u;
    return (x >> 22) ^ x;
}

void main() {
    const uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    const uint i = group * WORKGROUP + gl_LocalInvocationID.x;
    const uint row = i / p.words, w = i % p.words;
    if (row >= p.rows) return;
    const uint random = mix32(mix32(i ^ p.seed) + p.seed);
    Words(at(p.y, row, p.row_bytes)).v[p.first_word + w] =
        w < p.used ? (random & p.mask[w % p.period]) | p.set[w % p.period] : 0u;
}
