// Dot products (dot.glsl) with activations in memory. Where NORM is true they are normed as they are read,
// with the bits of rms_norm.
#include "norm.glsl"
struct X {
    uvec2 row[TOKENS], norm;
    float scale[TOKENS];
};
void set_norm(inout X x, uint n, uvec2 norm, float eps) {
    x.norm = norm;
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) x.scale[t] = NORM ? norm_scale(x.row[t], n, eps) : 1.0;
}
void load_x(X x, uint t, uint chunk, out vec4 a, out vec4 b) {
    a = Vec4In(x.row[t]).v[2u * chunk];
    b = Vec4In(x.row[t]).v[2u * chunk + 1u];
    if (!NORM) return;
    a = a * x.scale[t] * Vec4In(x.norm).v[2u * chunk];
    b = b * x.scale[t] * Vec4In(x.norm).v[2u * chunk + 1u];
}
#include "dot.glsl"
#if TIER == TIER_INT8
#include "int8.glsl"
#endif
