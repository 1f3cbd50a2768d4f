#version 460
#extension GL_GOOGLE_include_directive : require
// y[t] = x[t], row_repeat rows of n for each token row: how a tap keeps a tensor.   Grid: (n / WORKGROUP, T
// * row_repeat).
#include "common.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { CopyRows p; };

void main() {
    const uint row = gl_WorkGroupID.y, i = gl_GlobalInvocationID.x;
    if (row >= n_rows(p.state) * p.row_repeat || i >= p.n) return;
    Words(at(p.y, row, 4u * p.y_stride)).v[i] = WordsIn(at(p.x, row, 4u * p.x_stride)).v[i];
}
