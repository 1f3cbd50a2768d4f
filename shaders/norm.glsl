// The factor of an RMS norm: 1 / sqrt(mean(x^2) + eps) over n values of x, summed in one fixed order. Every
// invocation of a workgroup must call, and gets the result.
#include "reduce.glsl"

// A vector at any address of a float.
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer LooseVec4In { vec4 v[]; };

float plus_squares(float sum, vec4 a) {
    return fma(a.w, a.w, fma(a.z, a.z, fma(a.y, a.y, fma(a.x, a.x, sum))));
}

float norm_scale(uvec2 x, uint n, float eps) {
    const uint quads = n / 4u;
    float squares = 0;
    uint i = thread_index();
    // Few workgroups hide how far memory is: four loads on their way at a time, not one after the other.
    for (; i + 3u * WORKGROUP < quads; i += 4u * WORKGROUP) {
        vec4 a[4];
        [[unroll]] for (uint k = 0; k < 4u; ++k) a[k] = LooseVec4In(x).v[i + k * WORKGROUP];
        [[unroll]] for (uint k = 0; k < 4u; ++k) squares = plus_squares(squares, a[k]);
    }
    for (; i < quads; i += WORKGROUP) squares = plus_squares(squares, LooseVec4In(x).v[i]);
    i = 4u * quads + thread_index();
    if (i < n) squares = fma(FloatsIn(x).v[i], FloatsIn(x).v[i], squares);
    return inversesqrt(workgroup_sum(squares) / float(n) + eps);
}
