// The factor of an RMS norm: 1 / sqrt(mean(x^2) + eps) over n values of x, summed in one fixed order. Every
// invocation of a workgroup must call, and gets the result.
#include "reduce.glsl"

float norm_scale(uvec2 x, uint n, float eps) {
    float squares = 0;
    for (uint i = thread_index(); i < n; i += WORKGROUP)
        squares = fma(FloatsIn(x).v[i], FloatsIn(x).v[i], squares);
    return inversesqrt(workgroup_sum(squares) / float(n) + eps);
}
