// A product by tiles in shared memory: a workgroup makes WORKGROUP weight rows, each read and decoded by one
// invocation, times TOKENS tokens, 32 terms at a time. Neighbouring rows of a block are the parts of one n.
// A result depends on its own weights and activations alone, and on the tier: never on TOKENS, nor on what
// else the tile holds.
//
// Tiles hold W_SCALE times the weight and X_SCALE times the activation. What is out of the range of halves
// all the same is clamped.
layout(constant_id = 0) const uint TOKENS = 16;
#if TIER == TIER_TILED
#define CELL vec4
#define STRIDE 9u // cells from row to row: 8, and one that spreads rows over the banks
#define RANGE 3.4e38
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define CELL f16vec4
#define RANGE 65504.0
#if TIER == TIER_HALF
#define STRIDE 9u
#else
#define STRIDE 10u // matrices are loaded from addresses that are multiples of 16 bytes
#endif
#endif
const uint X_LOADS = (TOKENS * 4u + WORKGROUP - 1u) / WORKGROUP; // chunks of activations for an invocation
shared CELL w_tile[WORKGROUP * STRIDE];
#ifndef X_SPANS
#define X_SPANS 1u // of activations that there is room for
#endif
shared CELL x_tile[X_SPANS * TOKENS * STRIDE];

CELL cell(vec4 v, float scale) { return CELL(clamp(v * scale, vec4(-RANGE), vec4(RANGE))); }

// 32 terms of this invocation's weight row.
void stage_weights(uvec2 row, uint span, uint n) {
    const uint to = thread_index() * STRIDE;
    vec4 a, b;
    if (span < n / 32u) {
        const Span s = load_span(row, span, n);
        [[unroll]] for (uint c = 0; c < 4u; ++c) {
            span8(s, c, a, b);
            w_tile[to + 2u * c] = cell(a, span_scale(s, c) * W_SCALE);
            w_tile[to + 2u * c + 1u] = cell(b, span_scale(s, c) * W_SCALE);
        }
        return;
    }
    for (uint c = 0; c < 4u; ++c) {
        a = b = vec4(0);
        if (8u * (4u * span + c) < n) {
            load8(row, 4u * span + c, n, a, b);
            zero_padding(4u * span + c, n, a, b);
        }
        w_tile[to + 2u * c] = cell(a, W_SCALE);
        w_tile[to + 2u * c + 1u] = cell(b, W_SCALE);
    }
}

// 32 terms of every token: chunk i of eight belongs to token i / 4.
void stage_x(uvec2 x[X_LOADS], uint span, uint n) {
    [[unroll]] for (uint load = 0; load < X_LOADS; ++load) {
        const uint i = load * WORKGROUP + thread_index(), chunk = 4u * span + i % 4u;
        if (i >= TOKENS * 4u) continue;
        vec4 a = vec4(0), b = vec4(0);
        if (8u * chunk < n) {
            a = Vec4In(x[load]).v[2u * chunk];
            b = Vec4In(x[load]).v[2u * chunk + 1u];
            zero_padding(chunk, n, a, b);
        }
        x_tile[i / 4u * STRIDE + i % 4u * 2u] = cell(a, X_SCALE);
        x_tile[i / 4u * STRIDE + i % 4u * 2u + 1u] = cell(b, X_SCALE);
    }
}

#if TIER == TIER_MATRIX
#include "block_matrix.glsl"
#else
#include "block_lanes.glsl"
#endif

// Adds the products of `n` terms: of this invocation's weight row with the activations of its loads.
void add_product(uvec2 w, uvec2 x[X_LOADS], uint n, inout SUM sums[N_SUMS]) {
    for (uint span = 0; 32u * span < n; ++span) {
        stage_weights(w, span, n);
        stage_x(x, span, n);
        barrier();
        add_tiles(sums, 0u);
        barrier();
    }
}
