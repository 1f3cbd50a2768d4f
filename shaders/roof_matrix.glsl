// Four chains of products of cooperative matrices in registers, by a subgroup each; A, R: the types.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types : require
#include "roof.glsl"
layout(constant_id = 0) const uint M = 16;
layout(constant_id = 1) const uint N = 16;
layout(constant_id = 2) const uint K = 16;

void main() {
    // Elements that no compiler can tell from each other, and a factor of 1 that it does not know: a product
    // of the same matrices would be made once.
    const uint first = (p.seed & 1u) + 3u * gl_SubgroupInvocationID;
    const A one = A(1u + (p.seed & 1u));
    coopmat<A, gl_ScopeSubgroup, M, K, gl_MatrixUseA> a[4];
    coopmat<A, gl_ScopeSubgroup, K, N, gl_MatrixUseB> b;
    coopmat<R, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator> r[4];
    [[unroll]] for (uint k = 0u; k < 4u; ++k) {
        for (uint i = 0u; i < a[k].length(); ++i) a[k][i] = A((first + 5u * i + k) & 1u);
        r[k] = coopmat<R, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>(R(k));
    }
    for (uint i = 0u; i < b.length(); ++i) b[i] = A((first + i) & 1u);
    for (uint round = 0u; round < p.n; ++round) {
        [[unroll]] for (uint k = 0u; k < 8u; ++k)
            r[k & 3u] = coopMatMulAdd(a[(k + k / 4u) & 3u], b, r[k & 3u]);
        for (uint i = 0u; i < b.length(); ++i) b[i] = b[i] * one;
    }
    roof_use(float(r[0][0]) + float(r[1][0]) + float(r[2][0]) + float(r[3][0]));
}
