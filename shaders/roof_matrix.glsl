// Four chains of products of cooperative matrices in registers, by a subgroup each; A, R: the types.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types : require
#include "roof.glsl"
layout(constant_id = 0) const uint M = 16;
layout(constant_id = 1) const uint N = 16;
layout(constant_id = 2) const uint K = 16;

void main() {
    const uint seed = p.seed & 1u; // the same everywhere
    const coopmat<A, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b =
        coopmat<A, gl_ScopeSubgroup, K, N, gl_MatrixUseB>(A(seed));
    coopmat<R, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> r[4];
    [[unroll]] for (uint k = 0u; k < 4u; ++k)
        r[k] = coopmat<R, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(R(k));
    for (uint round = 0u; round < p.n; ++round) { // a changes, or a compiler would multiply once
        const coopmat<A, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a =
            coopmat<A, gl_ScopeSubgroup, M, K, gl_MatrixUseA>(A(round & 1u));
        [[unroll]] for (uint k = 0u; k < 8u; ++k) r[k & 3u] = coopMatMulAdd(a, b, r[k & 3u]);
    }
    roof_use(float(r[0][0]) + float(r[1][0]) + float(r[2][0]) + float(r[3][0]));
}
