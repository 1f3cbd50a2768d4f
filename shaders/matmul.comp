#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, n] = sum over k of weights[n, k] x[t, k], plus y[t, n] itself when add is 1; with NORM, of the normed
// x: x[t, k] norm[k] / sqrt(mean(x[t]^2) + eps).
// Grid: (n_out / (ROWS * WORKGROUP / K_LANES), T / TOKENS). TOKENS = 1 is the mat-vec of decoding; every tile
// shape sums in the same order (dot.glsl).
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint ROWS = 2;
layout(constant_id = 2) const uint TOKENS = 1;
layout(constant_id = 3) const bool NORM = false;
#define TILE_ROWS ROWS
#include "dequant.glsl"
#include "tile.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { MatMul p; };

void main() {
    const uint rows = n_rows(p.state);
    const uint n0 = (gl_WorkGroupID.x * (WORKGROUP / K_LANES) + thread_index() / K_LANES) * ROWS;
    const uint t0 = gl_WorkGroupID.y * TOKENS;
    if (t0 >= rows) return;

    uvec2 w[ROWS], x[TOKENS]; // rows past the end repeat the last one: read, never written
    [[unroll]] for (uint r = 0; r < ROWS; ++r) w[r] = at(p.weights, min(n0 + r, p.n_out - 1u), p.row_bytes);
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) x[t] = at(p.x, min(t0 + t, rows - 1u), 4u * p.x_stride);
    float sum[TILE];
    tile_dots(w, x, normed_by(p.norm, p.eps, x, p.n_in), p.n_in, sum);

    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        [[unroll]] for (uint r = 0; r < ROWS; ++r) {
            if (thread_index() % K_LANES != r % K_LANES || n0 + r >= p.n_out || t0 + t >= rows) continue;
            const uvec2 y = at(p.y, t0 + t, 4u * p.y_stride);
            const float total = sum[r * TOKENS + t];
            Floats(y).v[n0 + r] = p.add != 0u ? Floats(y).v[n0 + r] + total : total;
        }
    }
}
