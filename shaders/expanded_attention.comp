#version 460
#extension GL_GOOGLE_include_directive : require
// Attention of a prefill chunk to a block of positions, with keys and values expanded from the latent:
// s[t, h, j] = scale * (q_nope . k_nope[j] + q_pe . k_pe[j]) for the positions up to and with t's own,
// y = softmax(s) v. Queries come rotated (rotate_queries), k_pe from the block's latent rows; k_nope and v
// from kv. Blocks are dispatched one after the other; what they sum up goes on in y and `running`.
// Grid: (T / queries of a workgroup, heads).
// variants: TIER=BASE,TILED
// variants: TIER=MATRIX requires GL_KHR_cooperative_matrix
#include "common.glsl"
#include "cache.glsl"
layout(push_constant) uniform Push { ExpandedAttention p; };

uvec2 query_row(uint t, uint h) {
    const uint numbers = pad4(p.nope_dim) + pad4(p.rope_dim);
    return at(at(p.q, t, 4u * p.n_heads * numbers), 4u * h * numbers);
}
uvec2 k_nope_row(uint k, uint h) { return at(at(p.kv, k, 4u * p.kv_stride), 4u * h * p.k_stride); }
uvec2 k_pe_row(uint k) { return at(at(p.latent, k, 4u * p.row_floats), 4u * pad4(p.latent_dim)); }
uvec2 value_row(uint k, uint h) {
    return at(at(p.kv, k, 4u * p.kv_stride), 4u * (p.v_first + h * p.v_stride));
}
uvec2 y_row(uint t, uint h) { return at(at(p.y, t, 4u * p.y_stride), 4u * h * p.value_dim); }
uvec2 running_row(uint t, uint h) { return at(p.running, t * p.n_heads + h, 8u); }

// Keys of the block that row t sees: those up to its own position. Never none: what lies wholly behind a
// chunk is no block of its past.
uint keys_of(uint t) {
    const StepHeader block = StepIn(p.block).header;
    return min(block.n_rows, step_row(p.state, t).position + 1u - block.first);
}

#if TIER == TIER_BASE
#include "expanded_lanes.glsl"
#else
#include "expanded_block.glsl"
#endif
layout(local_size_x = WORKGROUP) in;

void main() {
    const uint rows = n_rows(p.state), t0 = gl_WorkGroupID.x * QUERIES;
    if (t0 < rows) attend(t0, min(rows - t0, QUERIES), gl_WorkGroupID.y);
}
