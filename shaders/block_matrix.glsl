// The tiles of block.glsl multiplied by cooperative matrices of a shape of Caps::matrices: each subgroup
// makes as many rows as it has lanes, times all tokens. Sums are a plain array: Intel's compiler in Mesa 26
// crashes over matrices in a struct.
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
layout(constant_id = 1) const uint SUBGROUP = 32;
layout(constant_id = 2) const uint M = 16; // of a matrix: rows,
layout(constant_id = 3) const uint N = 16; // tokens
layout(constant_id = 4) const uint K = 16; // and terms
const uint ROW_TILES = SUBGROUP / M, TOKEN_TILES = TOKENS / N, N_SUMS = ROW_TILES * TOKEN_TILES;
#define SUM coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
const uint STAGED = WORKGROUP / SUBGROUP * M * N;
shared float staged[STAGED]; // a matrix of sums for each subgroup

void clear(out SUM sums[N_SUMS]) { [[unroll]] for (uint i = 0; i < N_SUMS; ++i) sums[i] = SUM(0.0); }

void add_tiles(inout SUM sums[N_SUMS], uint x_at) { // x_at: cells before the span of activations
    [[unroll]] for (uint k = 0; k < 32u / K; ++k) {
        coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA> w[ROW_TILES];
        coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB> x;
        [[unroll]] for (uint i = 0; i < ROW_TILES; ++i)
            coopMatLoad(w[i], w_tile, (gl_SubgroupID * SUBGROUP + i * M) * STRIDE + k * K / 4u, STRIDE,
                        gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint j = 0; j < TOKEN_TILES; ++j) {
            coopMatLoad(x, x_tile, x_at + j * N * STRIDE + k * K / 4u, STRIDE,
                        gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (uint i = 0; i < ROW_TILES; ++i) sums[i * TOKEN_TILES + j] =
                coopMatMulAdd(w[i], x, sums[i * TOKEN_TILES + j]);
        }
    }
}

void store_sums(SUM sums[N_SUMS], uint n0, uint n_out, uint tokens) {
    const uint at = gl_SubgroupID * M * N;
    [[unroll]] for (uint i = 0; i < ROW_TILES; ++i) {
        [[unroll]] for (uint j = 0; j < TOKEN_TILES; ++j) {
            coopMatStore(sums[i * TOKEN_TILES + j], staged, at, M, gl_CooperativeMatrixLayoutColumnMajor);
            subgroupBarrier();
            for (uint e = gl_SubgroupInvocationID; e < M / PARTS * N; e += SUBGROUP) {
                const uint row = e % (M / PARTS), t = e / (M / PARTS);
                const uint n = n0 + (gl_SubgroupID * SUBGROUP + i * M) / PARTS + row;
                if (n >= n_out || j * N + t >= tokens) continue;
                float sum[PARTS];
                [[unroll]] for (uint part = 0; part < PARTS; ++part) sum[part] =
                    staged[at + t * M + row * PARTS + part] * (1.0 / (W_SCALE * X_SCALE));
                store(n, j * N + t, sum);
            }
            subgroupBarrier();
        }
    }
}
