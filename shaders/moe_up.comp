#version 460
#extension GL_GOOGLE_include_directive : require
// act[pair, n] = silu(gate[e, n] . x[t]) * (up[e, n] . x[t]) for the pair's token t and expert e. Replaces
// two products and an activation. Grid: (width / (ROWS * WORKGROUP / K_LANES), tiles of pairs). Sums as
// matmul. Where gate and up differ in format, two launches make the same bits; each is given its one matrix
// as both (such files are rare: not worth a loop of their own).
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint ROWS = 1;
layout(constant_id = 2) const uint TOKENS = 1;
#include "dequant.glsl"
#include "dot.glsl"
#include "moe_tile.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { MoeUp p; };

void main() {
    const bool grouped = p.grouped != 0u;
    MoeItem item;
    const uint pairs = n_rows(p.state) * p.n_slots;
    if (!load_tile(gl_WorkGroupID.y, grouped, p.items, p.experts, p.state, pairs, item)) return;
    const uint lane = thread_index() % K_LANES;
    const uint n0 = (gl_WorkGroupID.x * (WORKGROUP / K_LANES) + thread_index() / K_LANES) * ROWS;
    uvec2 gate[ROWS], up[ROWS], x[TOKENS];
    uint pair[TOKENS];
    [[unroll]] for (uint r = 0; r < ROWS; ++r) {
        const uint n = min(n0 + r, p.width - 1u);
        gate[r] = at(at(p.gate, item.expert, p.expert_bytes), n, p.row_bytes);
        up[r] = at(at(p.up, item.expert, p.expert_bytes), n, p.row_bytes);
    }
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        pair[t] = tile_pair(item, t, grouped, p.pairs);
        x[t] = at(p.x, pair[t] / p.n_slots, 4u * p.x_stride);
    }
    float gate_sum[ROWS * TOKENS], up_sum[ROWS * TOKENS];
    [[unroll]] for (uint i = 0; i < ROWS * TOKENS; ++i) gate_sum[i] = up_sum[i] = 0;
    const uint chunks = (p.dim + 7u) / 8u;
    for (uint chunk = lane; chunk < chunks; chunk += K_LANES) {
        vec4 xa[TOKENS], xb[TOKENS], wa, wb;
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) load_x8(x[t], chunk, p.dim, xa[t], xb[t]);
        [[unroll]] for (uint r = 0; r < ROWS; ++r) {
            load8(gate[r], chunk, p.dim, wa, wb);
            [[unroll]] for (uint t = 0; t < TOKENS; ++t)
                gate_sum[r * TOKENS + t] = dot8(wa, wb, xa[t], xb[t], gate_sum[r * TOKENS + t]);
            load8(up[r], chunk, p.dim, wa, wb);
            [[unroll]] for (uint t = 0; t < TOKENS; ++t)
                up_sum[r * TOKENS + t] = dot8(wa, wb, xa[t], xb[t], up_sum[r * TOKENS + t]);
        }
    }
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        [[unroll]] for (uint r = 0; r < ROWS; ++r) {
            const float g = lanes_sum(gate_sum[r * TOKENS + t]), u = lanes_sum(up_sum[r * TOKENS + t]);
            if (lane != r % K_LANES || n0 + r >= p.width || t >= item.count) continue;
            const uvec2 act = at(p.act, pair[t], 4u * p.act_stride);
            const float silu = p.part == MOE_UP_UP ? Floats(act).v[n0 + r] : g / (1.0 + exp(-g));
            Floats(act).v[n0 + r] = p.part == MOE_UP_GATE ? silu : silu * u;
        }
    }
}
