// The matrix product of a kernel, by the TIER it is compiled for. A kernel says what is multiplied and what
// becomes of it:
//     uvec2 weight_row(uint n, uint part)           address of row n of matrix `part`, of PARTS
//     uvec2 x_row(uint t)                           address of the activations of the workgroup's token t
//     void store(uint n, uint t, float sum[PARTS])  takes the products of token t with row n of every matrix
//     void normed(uint t, float scale)              takes what its x was normed by, where NORM
// and calls product(). Row n of one part and of the next meet in one invocation, which is what a gated MLP
// needs.
uvec2 weight_row(uint n, uint part);
uvec2 x_row(uint t);
void store(uint n, uint t, float sum[PARTS]);
void normed(uint t, float scale);

#if TIER >= TIER_TILED
#if TIER == TIER_TILED
#define W_SCALE 1.0
#define X_SCALE 1.0
#else // activations of deep layers come near 65504, weights near the least normal half
#define W_SCALE 16.0
#define X_SCALE (1.0 / 64.0)
#endif
#include "block.glsl"

// As below; `norm` is not for these tiers, which many tokens take.
void product(uint block, uint n_out, uint tokens, uint n_in, uvec2 norm, float eps) {
    const uint first = block * WORKGROUP, row = first + thread_index();
    const uvec2 w = weight_row(min(row / PARTS, n_out - 1u), row % PARTS);
    uvec2 x[X_LOADS];
    [[unroll]] for (uint load = 0; load < X_LOADS; ++load) x[load] =
        x_row(min((load * WORKGROUP + thread_index()) / 4u, tokens - 1u));
    SUM sums[N_SUMS];
    clear(sums);
    add_product(w, x, n_in, sums);
    store_sums(sums, first / PARTS, n_out, tokens);
}
#else
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint ROWS = 1;
layout(constant_id = 2) const uint TOKENS = 1;
layout(constant_id = 3) const bool NORM = false;
const uint TILE_ROWS = ROWS * PARTS;
#include "tile.glsl"

uint first_row(uint block) { return (block * (WORKGROUP / K_LANES) + thread_index() / K_LANES) * ROWS; }

// sum[r * PARTS + part, t] of the rows n0 + r; those past the end repeat the last one.
void row_dots(uint n0, uint n_out, uint tokens, uint n_in, uvec2 norm, float eps, out float sum[TILE]) {
    uvec2 w[TILE_ROWS];
    X x;
    [[unroll]] for (uint i = 0; i < TILE_ROWS; ++i) w[i] =
        weight_row(min(n0 + i / PARTS, n_out - 1u), i % PARTS);
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) x.row[t] = x_row(min(t, tokens - 1u));
    set_norm(x, n_in, norm, eps);
    [[unroll]] for (uint t = 0; t < TOKENS; ++t)
        if (NORM && t < tokens) normed(t, x.scale[t]);
#if TIER == TIER_INT8
    int8_dots(w, x, n_in, sum);
#else
    // Lanes of a subgroup shuffle together: either all of them have rows to do, or none.
    if (n0 - gl_SubgroupInvocationID / K_LANES * ROWS < n_out) dots(w, x, n_in, sum);
#endif
}

// Block number `block` of rows of n_out, with `tokens` tokens, at most TOKENS. Every invocation must call.
void product(uint block, uint n_out, uint tokens, uint n_in, uvec2 norm, float eps) {
    const uint n0 = first_row(block);
    float sum[TILE];
    row_dots(n0, n_out, tokens, n_in, norm, eps, sum);
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
        [[unroll]] for (uint r = 0; r < ROWS; ++r) {
            if (thread_index() % K_LANES != r % K_LANES || n0 + r >= n_out || t >= tokens) continue;
            float sums[PARTS];
            [[unroll]] for (uint part = 0; part < PARTS; ++part) sums[part] =
                sum[(r * PARTS + part) * TOKENS + t];
            store(n0 + r, t, sums);
        }
    }
}
#endif
