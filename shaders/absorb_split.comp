#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, h, c] = sum over d of k_b[h, c, d] q_nope[t, h, d], then q_pe[t, h] rotated, in the layout of a cache
// row.
// Grid: (latent / 64, heads, T / TOKENS). What absorb does where W_UK is a matrix of its own, transposed: a
// latent channel is then a dot product with one row, which K_LANES lanes share, for TOKENS tokens at once.
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint TOKENS = 1;
layout(constant_id = 2) const uint X_CHUNKS = 1;    // nope / 8, rounded up
#include "dequant.glsl"
#include "shared_dot.glsl"
#include "rope.glsl"
#include "cache.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { AbsorbSplit p; };
#include "absorb.glsl"

void load_queries(uint t0, uint rows, uint h) {
    for (uint i = thread_index(); i < TOKENS * 2u * X_CHUNKS; i += WORKGROUP) {
        const uint t = min(t0 + i / (2u * X_CHUNKS), rows - 1u), d = i % (2u * X_CHUNKS) * 4u;
        const uvec2 q = at(p.q, t, 4u * p.q_stride);
        vec4 x = vec4(0);
        [[unroll]] for (uint k = 0; k < 4u; ++k)
            if (d + k < p.nope_dim) x[k] = FloatsIn(q).v[h * (p.nope_dim + p.rope_dim) + d + k];
        shared_x[i] = x;
    }
}

void main() {
    const uint rows = n_rows(p.state), h = gl_WorkGroupID.y, t0 = gl_WorkGroupID.z * TOKENS;
    if (t0 >= rows) return;
    load_queries(t0, rows, h);
    barrier();

    const uint lane = thread_index() % K_LANES, key = pad4(p.latent_dim);
    const uint first = gl_WorkGroupID.x * WORKGROUP, last = min(first + WORKGROUP, key);
    for (uint c0 = first; c0 < last; c0 += WORKGROUP / K_LANES) {
        if (c0 + first_dot() >= last) break;
        const uint c = c0 + thread_index() / K_LANES;
        const uvec2 w = at(p.weights, h * p.latent_dim + min(c, p.latent_dim - 1u), p.row_bytes);
        float sum[TILE];
        shared_dots(w, p.nope_dim, sum);
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
            if (lane != 0u || c >= key || t0 + t >= rows) continue;
            const uvec2 y = at(p.y, (t0 + t) * p.n_heads + h, 4u * p.row_floats);
            Floats(y).v[c] = c < p.latent_dim ? sum[t] : 0.0;
        }
    }
    if (gl_WorkGroupID.x != 0u) return;
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        if (t0 + t >= rows) continue;
        write_rotated(t0 + t, h);
    }
}
