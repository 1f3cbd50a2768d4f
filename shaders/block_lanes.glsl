// The tiles of block.glsl multiplied by plain arithmetic: an invocation makes LANE_ROWS rows times
// LANE_TOKENS tokens.
#define LANE_ROWS 8u                  // of 16 invocations side by side: a workgroup's 128
const uint LANE_TOKENS = TOKENS / 8u; // of 8 such rows of invocations
const uint N_SUMS = LANE_ROWS * LANE_TOKENS;
#define SUM float

// Row i and token j of an invocation within the tile.
uint lane_row(uint i) { return (thread_index() % 16u + 16u * (i / PARTS)) * PARTS + i % PARTS; }
uint lane_token(uint j) { return thread_index() / 16u + 8u * j; }

void clear(out SUM sums[N_SUMS]) { [[unroll]] for (uint i = 0; i < N_SUMS; ++i) sums[i] = 0; }

void add_tiles(inout SUM sums[N_SUMS], uint x_at) { // x_at: cells before the span of activations
#if TIER == TIER_HALF
    f16vec2 part[N_SUMS]; // sums of 16 products each
    [[unroll]] for (uint i = 0; i < N_SUMS; ++i) part[i] = f16vec2(0);
#endif
    for (uint k = 0; k < 8u; ++k) {
        CELL x[LANE_TOKENS];
        [[unroll]] for (uint j = 0; j < LANE_TOKENS; ++j) x[j] = x_tile[x_at + lane_token(j) * STRIDE + k];
        [[unroll]] for (uint i = 0; i < LANE_ROWS; ++i) {
            const CELL w = w_tile[lane_row(i) * STRIDE + k];
            [[unroll]] for (uint j = 0; j < LANE_TOKENS; ++j) {
                const uint at = i * LANE_TOKENS + j;
#if TIER == TIER_HALF
                part[at] = fma(w.zw, x[j].zw, fma(w.xy, x[j].xy, part[at]));
#else
                sums[at] = fma(w.x, x[j].x, sums[at]);
                sums[at] = fma(w.y, x[j].y, sums[at]);
                sums[at] = fma(w.z, x[j].z, sums[at]);
                sums[at] = fma(w.w, x[j].w, sums[at]);
#endif
            }
        }
    }
#if TIER == TIER_HALF
    [[unroll]] for (uint i = 0; i < N_SUMS; ++i) sums[i] += float(part[i].x) + float(part[i].y);
#endif
}

void store_sums(SUM sums[N_SUMS], uint n0, uint n_out, uint tokens) {
    [[unroll]] for (uint j = 0; j < LANE_TOKENS; ++j) {
        [[unroll]] for (uint i = 0; i < LANE_ROWS; i += PARTS) {
            const uint n = n0 + lane_row(i) / PARTS;
            if (n >= n_out || lane_token(j) >= tokens) continue;
            float sum[PARTS];
            [[unroll]] for (uint part = 0; part < PARTS; ++part) sum[part] =
                sums[(i + part) * LANE_TOKENS + j] * (1.0 / (W_SCALE * X_SCALE));
            store(n, lane_token(j), sum);
        }
    }
}
