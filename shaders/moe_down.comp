#version 460
#extension GL_GOOGLE_include_directive : require
// Grouped (prefill): y[pair, n] = down[e, n] . act[pair], to be summed by moe_reduce.
// Otherwise (decode): y[t, n] += sum over the token's slots, in turn, of weight * (down[e, n] . act[pair]):
// expert outputs, shared experts and residual in one dispatch, with the bits of the grouped path.
// Grid: (dim / (ROWS * WORKGROUP / K_LANES), tiles of pairs or T). Sums as matmul.
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint ROWS = 1;
layout(constant_id = 2) const uint TOKENS = 1;
#define NORM false
#define TILE_ROWS ROWS
#include "dequant.glsl"
#include "tile.glsl"
#include "moe_tile.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { MoeDown p; };

// sum[r, t] = down[e, n0 + r] . act[pair[t]]
void expert_dots(uint expert, uint n0, uint pair[TOKENS], out float sum[TILE]) {
    const uvec2 bank = at(p.weights, expert, p.expert_bytes);
    uvec2 w[ROWS], x[TOKENS];
    [[unroll]] for (uint r = 0; r < ROWS; ++r) w[r] = at(bank, min(n0 + r, p.dim - 1u), p.row_bytes);
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) x[t] = at(p.act, pair[t], 4u * p.act_stride);
    tile_dots(w, x, normed_by(p.act, 0.0, x, p.width), p.width, sum);
}

void main() {
    const uint lane = thread_index() % K_LANES;
    const uint n0 = (gl_WorkGroupID.x * (WORKGROUP / K_LANES) + thread_index() / K_LANES) * ROWS;
    uint pair[TOKENS];
    float sum[TILE];
    if (p.grouped != 0u) {
        MoeItem item;
        if (!load_tile(gl_WorkGroupID.y, true, p.items, p.experts, p.state, 0u, item)) return;
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) pair[t] = tile_pair(item, t, true, p.pairs);
        expert_dots(item.expert, n0, pair, sum);
        [[unroll]] for (uint t = 0; t < TOKENS; ++t)
            [[unroll]] for (uint r = 0; r < ROWS; ++r)
                if (lane == r % K_LANES && n0 + r < p.dim && t < item.count)
                    Floats(at(p.y, pair[t], 4u * p.y_stride)).v[n0 + r] = sum[r * TOKENS + t];
        return;
    }
    const uint t = gl_WorkGroupID.y; // TOKENS is 1
    if (t >= n_rows(p.state)) return;
    float total[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; ++r) total[r] = 0;
    for (uint slot = 0; slot < p.n_slots; ++slot) {
        pair[0] = t * p.n_slots + slot;
        expert_dots(pair_expert(p.experts, pair[0], p.state), n0, pair, sum);
        const float weight = pair_weight(p.expert_weights, pair[0], p.state);
        [[unroll]] for (uint r = 0; r < ROWS; ++r) total[r] = fma(weight, sum[r * TOKENS], total[r]);
    }
    [[unroll]] for (uint r = 0; r < ROWS; ++r)
        if (lane == r % K_LANES && n0 + r < p.dim) Floats(at(p.y, t, 4u * p.y_stride)).v[n0 + r] += total[r];
}
