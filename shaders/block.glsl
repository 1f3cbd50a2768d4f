// A product by tiles in shared memory: a workgroup makes WORKGROUP weight rows, each read and decoded by one
// invocation, times TOKENS tokens, 32 terms at a time. Neighbouring rows of a block are the parts of one n.
// A result depends on its own weights and activations alone, and on the tier: never on TOKENS, nor on what
// else the tile holds.
//
// Halves hold 16 times the weight and a 64th of the activation: activations of deep layers come near 65504,
// weights near the least normal half. What is out of range all the same is clamped.
layout(constant_id = 0) const uint TOKENS = 16;
#if TIER == TIER_TILED
#define CELL vec4
#define STRIDE 9u // cells from row to row: 8, and one that spreads rows over the banks
#define W_SCALE 1.0
#define X_SCALE 1.0
#define RANGE 3.4e38
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define CELL f16vec4
#define W_SCALE 16.0
#define X_SCALE (1.0 / 64.0)
#define RANGE 65504.0
#if TIER == TIER_HALF
#define STRIDE 9u
#else
#define STRIDE 10u // matrices are loaded from addresses that are multiples of 16 bytes
#endif
#endif
const uint X_LOADS = (TOKENS * 4u + WORKGROUP - 1u) / WORKGROUP; // chunks of activations for an invocation
shared CELL w_tile[WORKGROUP * STRIDE];
shared CELL x_tile[TOKENS * STRIDE];

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

// As in product.glsl; `norm` is not for these tiers, which many tokens take.
void product(uint block, uint n_out, uint tokens, uint n_in, uvec2 norm, float eps) {
    const uint first = block * WORKGROUP, row = first + thread_index();
    const uvec2 w = weight_row(min(row / PARTS, n_out - 1u), row % PARTS);
    uvec2 x[X_LOADS];
    [[unroll]] for (uint load = 0; load < X_LOADS; ++load) x[load] =
        x_row(min((load * WORKGROUP + thread_index()) / 4u, tokens - 1u));
    SUM sums[N_SUMS];
    clear(sums);
    for (uint span = 0; 32u * span < n_in; ++span) {
        stage_weights(w, span, n_in);
        stage_x(x, span, n_in);
        barrier();
        add_tiles(sums);
        barrier();
    }
    store_sums(sums, first / PARTS, n_out, tokens);
}
