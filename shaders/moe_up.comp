#version 460
#extension GL_GOOGLE_include_directive : require
// act[pair, n] = silu(gate[e, n] . x[t]) * (up[e, n] . x[t]) for the pair's token t and expert e. Replaces
// two products and an activation; with NORM, the norm of x before them too. Grid: (width / (ROWS * WORKGROUP
// / K_LANES), tiles of pairs). Sums as matmul. Where gate and up differ in format, two launches make the same
// bits; each is given its one matrix as both (such files are rare: not worth a loop of their own).
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint ROWS = 1;
layout(constant_id = 2) const uint TOKENS = 1;
layout(constant_id = 3) const bool NORM = false;
const uint TILE_ROWS = 2u * ROWS; // of gate, then of up
#include "dequant.glsl"
#include "tile.glsl"
#include "moe_tile.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { MoeUp p; };

void main() {
    const bool grouped = p.grouped != 0u;
    MoeItem item;
    const uint pairs = n_rows(p.state) * p.n_slots;
    if (!load_tile(gl_WorkGroupID.y, grouped, p.items, p.experts, p.state, pairs, item)) return;
    const uint n0 = (gl_WorkGroupID.x * (WORKGROUP / K_LANES) + thread_index() / K_LANES) * ROWS;
    uvec2 w[TILE_ROWS], x[TOKENS];
    uint pair[TOKENS];
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        const uint n = min(n0 + r, p.width - 1u);
        w[r] = at(at(p.gate, item.expert, p.expert_bytes), n, p.row_bytes);
        w[ROWS + r] = at(at(p.up, item.expert, p.expert_bytes), n, p.row_bytes);
    }
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        pair[t] = tile_pair(item, t, grouped, p.pairs);
        x[t] = at(p.x, pair[t] / p.n_slots, 4u * p.x_stride);
    }
    float sum[TILE];
    tile_dots(w, x, normed_by(p.norm, p.eps, x, p.dim), p.dim, sum);
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        [[unroll]] for (uint r = 0; r < ROWS; ++r) {
            const float g = sum[r * TOKENS + t], u = sum[(ROWS + r) * TOKENS + t];
            if (thread_index() % K_LANES != r % K_LANES || n0 + r >= p.width || t >= item.count) continue;
            const uvec2 act = at(p.act, pair[t], 4u * p.act_stride);
            const float silu = p.part == MOE_UP_UP ? Floats(act).v[n0 + r] : g / (1.0 + exp(-g));
            Floats(act).v[n0 + r] = p.part == MOE_UP_GATE ? silu : silu * u;
        }
    }
}
