#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, h, c] = sum over d of q_nope[t, h, d] W_UK[h, d, c], then q_pe[t, h] rotated, in the layout of a
// cache row.
// Grid: (latent / CHANNELS, heads, T / TOKENS). COLUMNS neighbours take eight channels each, for TOKENS
// tokens, so that a row of weights is read together and once for all of them; GROUPS of such neighbours share
// out the rows, and what they sum up meets in shared memory. W_UK[h] are the first nope_dim rows of head h in
// kv_b.
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint TOKENS = 1;
#include "dequant.glsl"
#include "rope.glsl"
#include "cache.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { Absorb p; };
#include "absorb.glsl"

#define COLUMNS 8u
const uint GROUPS = WORKGROUP / COLUMNS, CHANNELS = 8u * COLUMNS;
const uint AT_ONCE = 4; // rows on their way to an invocation: each alone would take as long as memory is away
shared float parts[TOKENS * GROUPS * CHANNELS];

// This invocation's rows of head h times the queries of the tokens from t0 on, into `parts`.
void sum_rows(uint t0, uint rows, uint h) {
    const uint column = thread_index() % COLUMNS, group = thread_index() / COLUMNS;
    const uint chunk = gl_WorkGroupID.x * COLUMNS + column;
    uvec2 q[TOKENS];
    vec4 sum_a[TOKENS], sum_b[TOKENS];
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        q[t] = at(at(p.q, min(t0 + t, rows - 1u), 4u * p.q_stride), 4u * h * (p.nope_dim + p.rope_dim));
        sum_a[t] = sum_b[t] = vec4(0);
    }
    uvec2 w = at(p.weights, h * (p.nope_dim + p.value_dim) + group, p.row_bytes);
    if (8u * chunk < p.latent_dim)
        for (uint d = group; d < p.nope_dim; d += AT_ONCE * GROUPS) {
            vec4 wa[AT_ONCE], wb[AT_ONCE];
            [[unroll]] for (uint k = 0; k < AT_ONCE; ++k) { // past the end: the first again, times 0
                const uint row = d + k * GROUPS < p.nope_dim ? k * GROUPS : 0u;
                load8(at(w, row * p.row_bytes), chunk, p.latent_dim, wa[k], wb[k]);
            }
            w = at(w, AT_ONCE * GROUPS * p.row_bytes);
            [[unroll]] for (uint t = 0; t < TOKENS; ++t)
                [[unroll]] for (uint k = 0; k < AT_ONCE; ++k) {
                    const uint i = d + k * GROUPS;
                    const vec4 x = vec4(i < p.nope_dim ? FloatsIn(q[t]).v[min(i, p.nope_dim - 1u)] : 0.0);
                    sum_a[t] = fma(wa[k], x, sum_a[t]);
                    sum_b[t] = fma(wb[k], x, sum_b[t]);
                }
        }
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        const uint to = (t * GROUPS + group) * CHANNELS + 8u * column;
        [[unroll]] for (uint i = 0; i < 4u; ++i) {
            parts[to + i] = sum_a[t][i];
            parts[to + 4u + i] = sum_b[t][i];
        }
    }
}

void main() {
    const uint rows = n_rows(p.state), h = gl_WorkGroupID.y, t0 = gl_WorkGroupID.z * TOKENS;
    if (t0 >= rows) return;
    sum_rows(t0, rows, h);
    barrier();

    const uint key = pad4(p.latent_dim); // weights past the latent are zero, and so is the padding
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        if (t0 + t >= rows) continue;
        const uvec2 y = at(p.y, (t0 + t) * p.n_heads + h, 4u * p.row_floats);
        for (uint i = thread_index(); i < CHANNELS; i += WORKGROUP) {
            const uint c = gl_WorkGroupID.x * CHANNELS + i;
            float sum = 0;
            for (uint group = 0; group < GROUPS; ++group) sum += parts[(t * GROUPS + group) * CHANNELS + i];
            if (c < key) Floats(y).v[c] = sum;
        }
    }
    if (gl_WorkGroupID.x != 0u) return;
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        if (t0 + t >= rows) continue;
        write_rotated(t0 + t, h);
    }
}
