#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, h] = W_UV[h] (sum over parts of exp(m_part - m) value_part) / (sum over parts of exp(m_part - m)
// sum_part).
// Grid: (heads, slices of the values, rows of the block / TOKENS). The joined latents go through shared
// memory to the value up-projection, whose rows are the last value_dim of head h: a weight is decoded once
// for TOKENS tokens.
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint X_CHUNKS = 1; // latent / 8, rounded up
layout(constant_id = 2) const uint TOKENS = 1;
#include "dequant.glsl"
#include "shared_dot.glsl"
#include "cache.glsl"
#define JOINED TOKENS
#include "join.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { AttentionCombine p; };

Parts parts_of_row(uint slot, uint t, uint h) {
    const uint length = step_row(p.state, t).position + 1u;
    return parts_of(p.partial, (t - p.first_row) * p.n_heads + h, p.n_parts, p.latent_dim, length, slot);
}

// What the parts of a row sum up to, the latent, into shared memory.
void join_parts(uint slot, Parts parts) {
    for (uint c = thread_index(); c < 2u * X_CHUNKS; c += WORKGROUP) {
        vec4 value = vec4(0);
        if (c < parts.value4) value = joined(parts, c);
        shared_x[slot * 2u * X_CHUNKS + c] = value;
    }
}

void main() {
    const uint h = gl_WorkGroupID.x, t0 = p.first_row + gl_WorkGroupID.z * TOKENS;
    const uint end = min(n_rows(p.state), p.last_row);
    if (t0 >= end) return;
    Parts parts[TOKENS];
    [[unroll]] for (uint i = 0; i < TOKENS; ++i) // past the end: the last one again, never written
        parts[i] = parts_of_row(i, min(t0 + i, end - 1u), h);
    barrier();
    [[unroll]] for (uint i = 0; i < TOKENS; ++i) join_parts(i, parts[i]);
    barrier();

    const uint step = gl_NumWorkGroups.y * (WORKGROUP / K_LANES);
    for (uint r0 = gl_WorkGroupID.y * (WORKGROUP / K_LANES); r0 < p.value_dim; r0 += step) {
        if (r0 + first_dot() >= p.value_dim) break;
        const uint r = r0 + thread_index() / K_LANES;
        const uint row = h * (p.skipped_rows + p.value_dim) + p.skipped_rows + min(r, p.value_dim - 1u);
        float dot[TILE];
        shared_dots(at(p.weights, row, p.row_bytes), p.latent_dim, dot);
        [[unroll]] for (uint i = 0; i < TOKENS; ++i) {
            if (thread_index() % K_LANES != 0u || r >= p.value_dim || t0 + i >= end) continue;
            Floats(at(p.y, t0 + i, 4u * p.y_stride)).v[h * p.value_dim + r] = dot[i] / parts[i].sum;
        }
    }
}
