#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, h, d] = sum over c of latent[t, c] k_b[h, c, d]: the keys of a prefill chunk, where W_UK is a matrix
// of its own, transposed.
// Grid: (heads * nope / 512, T / TOKENS). An invocation owns eight dimensions of a key for TOKENS tokens, so
// that weights are read row by row and once for all of them.
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint TOKENS = 1;
#include "dequant.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { ExpandKeys p; };

void main() {
    const uint rows = n_rows(p.state), t0 = gl_WorkGroupID.y * TOKENS;
    const uint chunks = (p.nope_dim + 7u) / 8u;
    const uint h = gl_GlobalInvocationID.x / chunks, chunk = gl_GlobalInvocationID.x % chunks;
    if (t0 >= rows || h >= p.n_heads) return;
    uvec2 x[TOKENS];
    vec4 sum_a[TOKENS], sum_b[TOKENS];
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        x[t] = at(p.latent, min(t0 + t, rows - 1u), 4u * p.latent_stride);
        sum_a[t] = sum_b[t] = vec4(0);
    }
    for (uint c = 0; c < p.latent_dim; ++c) {
        vec4 wa, wb;
        load8(at(p.weights, h * p.latent_dim + c, p.row_bytes), chunk, p.nope_dim, wa, wb);
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
            const vec4 latent = vec4(FloatsIn(x[t]).v[c]);
            sum_a[t] = fma(wa, latent, sum_a[t]);
            sum_b[t] = fma(wb, latent, sum_b[t]);
        }
    }
    const uint n = min(p.nope_dim - 8u * chunk, 8u);
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        if (t0 + t >= rows) continue;
        const uvec2 y = at(at(p.y, t0 + t, 4u * p.y_stride), 4u * (h * p.nope_dim + 8u * chunk));
        for (uint i = 0; i < n; ++i) Floats(y).v[i] = i < 4u ? sum_a[t][i] : sum_b[t][i - 4u];
    }
}
