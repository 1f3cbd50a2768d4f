// Attention by the tiles of block.glsl: scores are products of WORKGROUP keys with TOKENS queries, what they
// weigh products of as many channels of the values with the weights. Scores of a tile of keys are passed
// through shared memory, whose invocations then take EIGHTHS of a query each: so that a query's sums do not
// depend on TOKENS. A kernel says what is attended to, by weights in the format that load8() reads:
//     void add_keys(uint k, uvec2 query[X_LOADS], inout SUM sums[N_SUMS])
//         adds the products of this invocation's key with the queries whose rows are given
//     uvec2 value_row(uint k)
//         the value of key k, a multiple of 32; those of the 31 that follow lie VALUE_STRIDE bytes apart
//     float value_number(uvec2 row, uint channel)
//     void store(uint n, uint t, float sum[PARTS])
//         takes what a tile sums up for channel n of query t: y = (y before[t] + sum) after[t], where y is 0
//         if is_first
// and calls attend_tiles().
#define PARTS 1
#define W_SCALE 1.0
#define X_SCALE 1.0
#define X_SPANS 4u // the weights of a tile's keys for every query
void store(uint n, uint t, float sum[PARTS]);
#include "block.glsl"
void add_keys(uint k, uvec2 query[X_LOADS], inout SUM sums[N_SUMS]);
uvec2 value_row(uint k);
float value_number(uvec2 row, uint channel);
const uint QUERIES = TOKENS, KEYS = WORKGROUP, EIGHTHS = 8u;
const uint UNITS = (TOKENS * EIGHTHS + WORKGROUP - 1u) / WORKGROUP; // eighths of queries for an invocation
shared float part_max[TOKENS * EIGHTHS], part_sum[TOKENS * EIGHTHS];
shared float before[TOKENS], after[TOKENS]; // what y is multiplied by: before this tile is added, and after
bool is_first; // nothing was summed before this tile

// Key 4 k + i of a tile, of query q, is number i of cell (k % 8, q) of span k / 8.
uint cell_of(uint q, uint k) { return (k / 8u * TOKENS + q) * STRIDE + k % 8u; }

#if TIER == TIER_MATRIX
#define SCORES_STRIDE (WORKGROUP + 4u)
shared float scores[TOKENS * SCORES_STRIDE];
void put_scores(SUM sums[N_SUMS]) {
    [[unroll]] for (uint i = 0; i < ROW_TILES; ++i)
        [[unroll]] for (uint j = 0; j < TOKEN_TILES; ++j)
            coopMatStore(sums[i * TOKEN_TILES + j], scores,
                         j * N * SCORES_STRIDE + gl_SubgroupID * SUBGROUP + i * M, SCORES_STRIDE,
                         gl_CooperativeMatrixLayoutColumnMajor);
}
float score_at(uint q, uint k, uint i) { return scores[q * SCORES_STRIDE + 4u * k + i]; }
#else // in the cells that the weights then take
void put_scores(SUM sums[N_SUMS]) {
    [[unroll]] for (uint i = 0; i < LANE_ROWS; ++i)
        [[unroll]] for (uint j = 0; j < LANE_TOKENS; ++j)
            x_tile[cell_of(lane_token(j), lane_row(i) / 4u)][lane_row(i) % 4u] = sums[i * LANE_TOKENS + j];
}
float score_at(uint q, uint k, uint i) { return x_tile[cell_of(q, k)][i]; }
#endif

// The running largest score and sum of the queries whose eighths this invocation takes.
struct Running { float largest[UNITS], sum[UNITS]; };

uint unit(uint u) { return u * WORKGROUP + thread_index(); }

uint unit_query(uint u) { return unit(u) / EIGHTHS; }

void score_tile(uint k0, uint keys, uvec2 query[X_LOADS]) {
    SUM sums[N_SUMS];
    clear(sums);
    add_keys(min(k0 + thread_index(), keys - 1u), query, sums);
    put_scores(sums);
    barrier();
}

// Makes weights of a tile's scores, relative to the largest score so far; query i sees the keys below
// seen + i.
void weigh_tile(uint k0, uint keys, uint seen, float scale, bool finished, inout Running running) {
    float score[UNITS * 16u];
    [[unroll]] for (uint u = 0; u < UNITS; ++u) {
        const uint q = unit_query(u), e = unit(u) % EIGHTHS;
        if (q >= TOKENS) continue;
        const uint visible = min(keys, seen + q);
        float most = LOWEST;
        [[unroll]] for (uint s = 0; s < 16u; ++s) {
            const uint k = s / 4u * 8u + e;
            score[16u * u + s] = 2.0 * LOWEST;
            if (k0 + 4u * k + s % 4u < visible) score[16u * u + s] = score_at(q, k, s % 4u) * scale;
            most = max(most, score[16u * u + s]);
        }
        part_max[unit(u)] = most;
    }
    barrier();
    [[unroll]] for (uint u = 0; u < UNITS; ++u) {
        const uint q = unit_query(u), e = unit(u) % EIGHTHS;
        if (q >= TOKENS) continue;
        float most = running.largest[u], sum = 0;
        [[unroll]] for (uint i = 0; i < EIGHTHS; ++i) most = max(most, part_max[q * EIGHTHS + i]);
        [[unroll]] for (uint c = 0; c < 4u; ++c) {
            vec4 weights;
            [[unroll]] for (uint i = 0; i < 4u; ++i) {
                const float s = score[16u * u + 4u * c + i];
                weights[i] = s > LOWEST ? exp(s - most) : 0.0;
                sum += weights[i];
            }
            x_tile[cell_of(q, c * 8u + e)] = cell(weights, 1.0);
        }
        const float rescale = exp(running.largest[u] - most);
        running.largest[u] = most;
        running.sum[u] *= rescale;
        part_sum[unit(u)] = sum;
        if (e == 0u) before[q] = rescale;
    }
    barrier();
    [[unroll]] for (uint u = 0; u < UNITS; ++u) {
        const uint q = unit_query(u);
        if (q >= TOKENS) continue;
        [[unroll]] for (uint i = 0; i < EIGHTHS; ++i) running.sum[u] += part_sum[q * EIGHTHS + i];
        if (unit(u) % EIGHTHS == 0u) after[q] = finished ? 1.0 / running.sum[u] : 1.0;
    }
}

// The keys from k0; past the end the last one, of weight 0.
void stage_values(uint k0, uint keys, uint channel) {
    const uvec2 first = value_row(k0);
    const uint last = keys - 1u - k0;
    [[dont_unroll]] for (uint k = 0; k < 32u; k += 8u) { // eight loads under way
        vec4 v[2];
        [[unroll]] for (uint i = 0; i < 8u; ++i)
            v[i / 4u][i % 4u] = value_number(at(first, min(k + i, last) * VALUE_STRIDE), channel);
        w_tile[thread_index() * STRIDE + k / 4u] = cell(v[0], 1.0);
        w_tile[thread_index() * STRIDE + k / 4u + 1u] = cell(v[1], 1.0);
    }
}

void add_values(uint k0, uint keys, uint channels, uint queries) {
    for (uint c0 = 0; c0 < channels; c0 += WORKGROUP) {
        SUM sums[N_SUMS];
        clear(sums);
        for (uint span = 0; span < 4u && k0 + 32u * span < keys; ++span) {
            stage_values(k0 + 32u * span, keys, min(c0 + thread_index(), channels - 1u));
            barrier();
            add_tiles(sums, span * TOKENS * STRIDE);
            barrier();
        }
        store_sums(sums, c0, channels, queries);
    }
}

// The rows of queries that this invocation stages.
uint staged_query(uint load, uint queries) {
    return min((load * WORKGROUP + thread_index()) / 4u, queries - 1u);
}

// Queries [0, queries), whose rows are given, attend to keys [0, keys); query i sees those below seen + i.
// `begins`, `ends`: nothing was summed before, nothing will be after.
void attend_tiles(uvec2 query[X_LOADS], uint queries, uint keys, uint seen, uint channels, float scale,
                  bool begins, bool ends, inout Running running) {
    for (uint k0 = 0; k0 < keys; k0 += KEYS) {
        is_first = begins && k0 == 0u;
        score_tile(k0, keys, query);
        weigh_tile(k0, keys, seen, scale, ends && k0 + KEYS >= keys, running);
        add_values(k0, keys, channels, queries);
    }
}
