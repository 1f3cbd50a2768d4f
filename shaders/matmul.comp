#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, n] = sum over k of weights[n, k] x[t, k], plus y[t, n] itself when add is 1.
// Grid: (n_out / (ROWS * WORKGROUP / K_LANES), T / TOKENS). K_LANES lanes share a tile of ROWS x TOKENS
// products: a weight is read once for TOKENS tokens, an activation once for ROWS rows. TOKENS = 1 is the
// mat-vec of decoding; every tile shape sums in the same order (dot.glsl).
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint ROWS = 2;
layout(constant_id = 2) const uint TOKENS = 1;
#include "dequant.glsl"
#include "dot.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { MatMul p; };

void main() {
    const uint rows = n_rows(p.state);
    const uint lane = thread_index() % K_LANES;
    const uint n0 = (gl_WorkGroupID.x * (WORKGROUP / K_LANES) + thread_index() / K_LANES) * ROWS;
    const uint t0 = gl_WorkGroupID.y * TOKENS;
    if (t0 >= rows) return;

    uvec2 w[ROWS], x[TOKENS]; // rows past the end repeat the last one: read, never written
    [[unroll]] for (uint r = 0; r < ROWS; ++r) w[r] = at(p.weights, min(n0 + r, p.n_out - 1u), p.row_bytes);
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) x[t] = at(p.x, min(t0 + t, rows - 1u), 4u * p.x_stride);
    float sum[ROWS * TOKENS];
    [[unroll]] for (uint i = 0; i < ROWS * TOKENS; ++i) sum[i] = 0;

    const uint chunks = (p.n_in + 7u) / 8u;
    for (uint chunk = lane; chunk < chunks; chunk += K_LANES) {
        vec4 xa[TOKENS], xb[TOKENS];
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) load_x8(x[t], chunk, p.n_in, xa[t], xb[t]);
        [[unroll]] for (uint r = 0; r < ROWS; ++r) {
            vec4 wa, wb;
            load8(w[r], chunk, p.n_in, wa, wb);
            [[unroll]] for (uint t = 0; t < TOKENS; ++t)
                sum[r * TOKENS + t] = dot8(wa, wb, xa[t], xb[t], sum[r * TOKENS + t]);
        }
    }
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        [[unroll]] for (uint r = 0; r < ROWS; ++r) {
            const float total = lanes_sum(sum[r * TOKENS + t]);
            if (lane != r % K_LANES || n0 + r >= p.n_out || t0 + t >= rows) continue;
            const uvec2 y = at(p.y, t0 + t, 4u * p.y_stride);
            Floats(y).v[n0 + r] = p.add != 0u ? Floats(y).v[n0 + r] + total : total;
        }
    }
}
