#version 460
#extension GL_GOOGLE_include_directive : require
// Grouped (prefill): y[pair, n] = down[e, n] . act[pair], to be summed by moe_reduce.
// Otherwise (decode): y[t, n] += sum over the token's slots, in turn, of weight * (down[e, n] . act[pair]):
// expert outputs, shared experts and residual in one dispatch, with the bits of the grouped path.
// Grid: (blocks of rows, tiles of pairs or T, TOKENS of a tile).
// variants: FORMAT=* TIER=BASE,TILED,HALF
// variants: FORMAT=INT8 TIER=INT8
// variants: FORMAT=* TIER=MATRIX requires GL_KHR_cooperative_matrix
#include "common.glsl"
#include "dequant.glsl"
#define PARTS 1
#include "product.glsl"

#include "moe_tile.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { MoeDown p; };

MoeItem item;
uint pair(uint t) { return tile_pair(item, t, p.grouped != 0u, p.pairs); }
uvec2 weight_row(uint n, uint part) { return at(at(p.weights, item.expert, p.expert_bytes), n, p.row_bytes); }
uvec2 x_row(uint t) { return at(p.act, pair(t), 4u * p.act_stride); }
void store(uint n, uint t, float sum[PARTS]) { Floats(at(p.y, pair(t), 4u * p.y_stride)).v[n] = sum[0]; }

#if TIER < TIER_TILED
void one_token(uint t) { // TOKENS is 1
    float total[ROWS], sum[TILE];
    [[unroll]] for (uint r = 0; r < ROWS; ++r) total[r] = 0;
    const uint n0 = first_row(gl_WorkGroupID.x);
    for (uint slot = 0; slot < p.n_slots; ++slot) {
        const uint pair = t * p.n_slots + slot;
        item = MoeItem(pair_expert(p.experts, pair, p.state), pair, 1u, 0u);
        row_dots(n0, p.dim, 1u, p.width, p.act, 0.0, sum);
        const float weight = pair_weight(p.expert_weights, pair, p.state);
        [[unroll]] for (uint r = 0; r < ROWS; ++r) total[r] = fma(weight, sum[r * TOKENS], total[r]);
    }
    [[unroll]] for (uint r = 0; r < ROWS; ++r) if (thread_index() % K_LANES == r % K_LANES && n0 + r < p.dim)
        Floats(at(p.y, t, 4u * p.y_stride))
            .v[n0 + r] += total[r];
}
#endif

void normed(uint t, float scale) {}

void main() {
#if TIER < TIER_TILED
    if (p.grouped == 0u) {
        if (gl_WorkGroupID.y < n_rows(p.state)) one_token(gl_WorkGroupID.y);
        return;
    }
#endif
    if (!load_tile(true, p.items, p.experts, p.state, 0u, item)) return;
    product(gl_WorkGroupID.x, p.dim, item.count, p.width, p.act, 0.0);
}
