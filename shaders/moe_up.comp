#version 460
#extension GL_GOOGLE_include_directive : require
// act[pair, n] = silu(gate[e, n] . x[t]) * (up[e, n] . x[t]) for the pair's token t and expert e. Replaces
// two products and an activation; with NORM, the norm of x before them too. Grid: (blocks of rows, tiles of
// pairs, TOKENS of a tile). Where gate and up differ in format, two launches make the same bits; each is
// given its one matrix as both (such files are rare: not worth a loop of their own).
// variants: FORMAT=* TIER=BASE,TILED,HALF
// variants: FORMAT=INT8 TIER=INT8
// variants: FORMAT=* TIER=MATRIX requires GL_KHR_cooperative_matrix
#include "common.glsl"
#include "dequant.glsl"
#define PARTS 2 // gate, up
#include "product.glsl"

#include "moe_tile.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { MoeUp p; };

MoeItem item;
uint pair(uint t) { return tile_pair(item, t, p.grouped != 0u, p.pairs); }
uvec2 weight_row(uint n, uint part) {
    return at(at(part == 0u ? p.gate : p.up, item.expert, p.expert_bytes), n, p.row_bytes);
}
uvec2 x_row(uint t) { return at(p.x, pair(t) / p.n_slots, 4u * p.x_stride); }
void store(uint n, uint t, float sum[PARTS]) {
    const uvec2 act = at(p.act, pair(t), 4u * p.act_stride);
    const float silu = p.part == MOE_UP_UP ? Floats(act).v[n] : sum[0] / (1.0 + exp(-sum[0]));
    Floats(act).v[n] = p.part == MOE_UP_GATE ? silu : silu * sum[1];
}

void normed(uint t, float scale) {}

void main() {
    const uint pairs = n_rows(p.state) * p.n_slots;
    if (!load_tile(p.grouped != 0u, p.items, p.experts, p.state, pairs, item)) return;
    product(gl_WorkGroupID.x, p.width, item.count, p.dim, p.norm, p.eps);
}
