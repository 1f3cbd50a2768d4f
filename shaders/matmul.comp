#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, n] = sum over k of weights[n, k] x[t, k], plus y[t, n] itself when add is 1; with NORM, of the normed
// x: x[t, k] norm[k] / sqrt(mean(x[t]^2) + eps).
// Grid: (blocks of rows, T / TOKENS).
// variants: FORMAT=* TIER=BASE,TILED,HALF
// variants: FORMAT=INT8 TIER=INT8
// variants: FORMAT=* TIER=MATRIX requires GL_KHR_cooperative_matrix
#include "common.glsl"
#include "dequant.glsl"
#define PARTS 1
#include "product.glsl"
#include "trace.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { MatMul p; };

uint t0() { return gl_WorkGroupID.y * TOKENS; }
uvec2 weight_row(uint n, uint part) { return at(p.weights, n, p.row_bytes); }
uvec2 x_row(uint t) { return at(p.x, t0() + t, 4u * p.x_stride); }
void store(uint n, uint t, float sum[PARTS]) {
    const uvec2 y = at(p.y, t0() + t, 4u * p.y_stride);
    Floats(y).v[n] = p.add != 0u ? Floats(y).v[n] + sum[0] : sum[0];
}

void normed(uint t, float scale) {
    if (p.trace_stride != 0u && gl_WorkGroupID.x == 0u && thread_index() == 0u)
        trace_norm(p.state, p.trace, p.trace_stride, t0() + t, scale);
}

void main() {
    const uint rows = n_rows(p.state);
    if (t0() >= rows) return;
    product(gl_WorkGroupID.x, p.n_out, min(rows - t0(), TOKENS), p.n_in, p.norm, p.eps);
}
