// Expanded attention by the tiles of block.glsl: scores are products of WORKGROUP keys with TOKENS queries,
// what they weigh products of as many channels of the values with the weights. Scores of a tile of keys are
// passed through shared memory, whose invocations then take EIGHTHS of a query each: so that a query's sums
// do not depend on TOKENS.
#define PARTS 1
#define W_SCALE 1.0
#define X_SCALE 1.0
#define X_SPANS 4u // the weights of a tile's keys for every query
void store(uint n, uint t, float sum[PARTS]);
#include "dequant.glsl"
#include "block.glsl"
const uint QUERIES = TOKENS, KEYS = WORKGROUP, EIGHTHS = 8u;
const uint UNITS = (TOKENS * EIGHTHS + WORKGROUP - 1u) / WORKGROUP; // eighths of queries for an invocation
shared float part_max[TOKENS * EIGHTHS], part_sum[TOKENS * EIGHTHS];
shared float before[TOKENS], after[TOKENS]; // what y is multiplied by: before this tile is added, and after
uint first_query, head;
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

void score_tile(uint k0, uint keys, uvec2 nope[X_LOADS], uvec2 pe[X_LOADS]) {
    const uint k = min(k0 + thread_index(), keys - 1u);
    SUM sums[N_SUMS];
    clear(sums);
    add_product(k_nope_row(k, head), nope, p.nope_dim, sums);
    add_product(k_pe_row(k), pe, p.rope_dim, sums);
    put_scores(sums);
    barrier();
}

// Makes weights of a tile's scores, relative to the largest score so far; query i sees the keys below
// seen + i.
void weigh_tile(uint k0, uint keys, uint seen, bool finished, inout Running running) {
    float score[UNITS * 16u];
    [[unroll]] for (uint u = 0; u < UNITS; ++u) {
        const uint q = unit(u) / EIGHTHS, e = unit(u) % EIGHTHS;
        if (q >= TOKENS) continue;
        const uint visible = min(keys, seen + q);
        float most = LOWEST;
        [[unroll]] for (uint s = 0; s < 16u; ++s) {
            const uint k = s / 4u * 8u + e;
            score[16u * u + s] = 2.0 * LOWEST;
            if (k0 + 4u * k + s % 4u < visible) score[16u * u + s] = score_at(q, k, s % 4u) * p.scale;
            most = max(most, score[16u * u + s]);
        }
        part_max[unit(u)] = most;
    }
    barrier();
    [[unroll]] for (uint u = 0; u < UNITS; ++u) {
        const uint q = unit(u) / EIGHTHS, e = unit(u) % EIGHTHS;
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
        const uint q = unit(u) / EIGHTHS;
        if (q >= TOKENS) continue;
        [[unroll]] for (uint i = 0; i < EIGHTHS; ++i) running.sum[u] += part_sum[q * EIGHTHS + i];
        if (unit(u) % EIGHTHS == 0u) after[q] = finished ? 1.0 / running.sum[u] : 1.0;
    }
}

// 32 keys from k0; past the end the last one, of weight 0.
void stage_values(uint k0, uint keys, uint channel) {
    for (uint k = 0; k < 8u; ++k) {
        vec4 v;
        [[unroll]] for (uint i = 0; i < 4u; ++i)
            v[i] = FloatsIn(value_row(min(k0 + 4u * k + i, keys - 1u), head)).v[channel];
        w_tile[thread_index() * STRIDE + k] = cell(v, 1.0);
    }
}

void store(uint n, uint t, float sum[PARTS]) {
    const uvec2 y = y_row(first_query + t, head);
    const float total = is_first ? sum[0] : fma(Floats(y).v[n], before[t], sum[0]);
    Floats(y).v[n] = total * after[t];
}

void add_values(uint k0, uint keys, uint queries) {
    for (uint c0 = 0; c0 < p.value_dim; c0 += WORKGROUP) {
        SUM sums[N_SUMS];
        clear(sums);
        for (uint span = 0; span < 4u && k0 + 32u * span < keys; ++span) {
            stage_values(k0 + 32u * span, keys, min(c0 + thread_index(), p.value_dim - 1u));
            barrier();
            add_tiles(sums, span * TOKENS * STRIDE);
            barrier();
        }
        store_sums(sums, c0, p.value_dim, queries);
    }
}

void attend(uint t0, uint queries, uint h) {
    const uint seen = keys_of(t0), keys = keys_of(t0 + queries - 1u);
    const bool begins = (p.place & EXPANDED_FIRST) != 0u, ends = (p.place & EXPANDED_LAST) != 0u;
    first_query = t0;
    head = h;
    uvec2 nope[X_LOADS], pe[X_LOADS];
    [[unroll]] for (uint load = 0; load < X_LOADS; ++load) {
        const uint q = min((load * WORKGROUP + thread_index()) / 4u, queries - 1u);
        nope[load] = query_row(t0 + q, h);
        pe[load] = at(nope[load], 4u * pad4(p.nope_dim));
    }
    Running running;
    [[unroll]] for (uint u = 0; u < UNITS; ++u) {
        const uvec2 row = running_row(t0 + min(unit(u) / EIGHTHS, queries - 1u), h);
        running.largest[u] = LOWEST;
        running.sum[u] = 0;
        if (begins) continue;
        running.largest[u] = FloatsIn(row).v[0];
        running.sum[u] = FloatsIn(row).v[1];
    }
    for (uint k0 = 0; k0 < keys; k0 += KEYS) {
        is_first = begins && k0 == 0u;
        score_tile(k0, keys, nope, pe);
        weigh_tile(k0, keys, seen, ends && k0 + KEYS >= keys, running);
        add_values(k0, keys, queries);
    }
    [[unroll]] for (uint u = 0; u < UNITS; ++u)
        if (!ends && unit(u) % EIGHTHS == 0u && unit(u) / EIGHTHS < queries) {
            const uvec2 row = running_row(t0 + unit(u) / EIGHTHS, h);
            Floats(row).v[0] = running.largest[u];
            Floats(row).v[1] = running.sum[u];
        }
}
