#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, h, c] = sum over d of q_nope[t, h, d] W_UK[h, d, c], then q_pe[t, h] rotated, in the layout of a
// cache row.
// Grid: (latent / 512, heads, T / TOKENS). An invocation owns eight latent channels for TOKENS tokens, so
// that weights are read row by row and once for all of them. W_UK[h] are the first nope_dim rows of head h
// in kv_b.
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint TOKENS = 1;
#include "dequant.glsl"
#include "rope.glsl"
#include "cache.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { Absorb p; };
#include "absorb.glsl"

void main() {
    const uint rows = n_rows(p.state), h = gl_WorkGroupID.y, t0 = gl_WorkGroupID.z * TOKENS;
    if (t0 >= rows) return;
    const uint chunk = gl_GlobalInvocationID.x, head_dim = p.nope_dim + p.rope_dim, key = pad4(p.latent_dim);
    uvec2 q[TOKENS];
    [[unroll]] for (uint t = 0; t < TOKENS; ++t)
        q[t] = at(p.q, min(t0 + t, rows - 1u), 4u * p.q_stride);

    if (8u * chunk < key) {
        vec4 sum_a[TOKENS], sum_b[TOKENS];
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) sum_a[t] = sum_b[t] = vec4(0);
        for (uint d = 0; d < p.nope_dim; ++d) {
            vec4 wa, wb;
            const uvec2 w = at(p.weights, h * (p.nope_dim + p.value_dim) + d, p.row_bytes);
            load8(w, chunk, p.latent_dim, wa, wb);
            [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
                const vec4 x = vec4(FloatsIn(q[t]).v[h * head_dim + d]);
                sum_a[t] = fma(wa, x, sum_a[t]);
                sum_b[t] = fma(wb, x, sum_b[t]);
            }
        }
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
            if (t0 + t >= rows) continue;
            const uvec2 y = at(p.y, (t0 + t) * p.n_heads + h, 4u * p.row_floats);
            Vec4(y).v[2u * chunk] = sum_a[t]; // weights past the latent are zero, and so is the padding
            if (8u * chunk + 4u < key) Vec4(y).v[2u * chunk + 1u] = sum_b[t];
        }
    }
    if (gl_WorkGroupID.x != 0u) return;
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        if (t0 + t >= rows) continue;
        write_rotated(t0 + t, h);
    }
}
