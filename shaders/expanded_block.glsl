// Expanded attention by tiles.
#define FORMAT FORMAT_F32
#include "dequant.glsl"
#define VALUE_STRIDE (4u * p.kv_stride)
#include "attention_block.glsl"
uint first_query, head;

void add_keys(uint k, uvec2 query[X_LOADS], inout SUM sums[N_SUMS]) {
    add_product(k_nope_row(k, head), query, p.nope_dim, sums);
    [[unroll]] for (uint load = 0; load < X_LOADS; ++load)
        query[load] = at(query[load], 4u * pad4(p.nope_dim));
    add_product(k_pe_row(k), query, p.rope_dim, sums);
}

uvec2 value_row(uint k) { return value_row(k, head); }
float value_number(uvec2 row, uint channel) { return FloatsIn(row).v[channel]; }

void store(uint n, uint t, float sum[PARTS]) {
    const uvec2 y = y_row(first_query + t, head);
    const float total = is_first ? sum[0] : fma(Floats(y).v[n], before[t], sum[0]);
    Floats(y).v[n] = total * after[t];
}

void attend(uint t0, uint queries, uint h) {
    const bool begins = (p.place & EXPANDED_FIRST) != 0u, ends = (p.place & EXPANDED_LAST) != 0u;
    first_query = t0;
    head = h;
    uvec2 query[X_LOADS];
    [[unroll]] for (uint load = 0; load < X_LOADS; ++load)
        query[load] = query_row(t0 + staged_query(load, queries), h);
    Running running;
    [[unroll]] for (uint u = 0; u < UNITS; ++u) {
        const uvec2 row = running_row(t0 + min(unit_query(u), queries - 1u), h);
        running.largest[u] = LOWEST;
        running.sum[u] = 0;
        if (begins) continue;
        running.largest[u] = FloatsIn(row).v[0];
        running.sum[u] = FloatsIn(row).v[1];
    }
    attend_tiles(query, queries, keys_of(t0 + queries - 1u), keys_of(t0), p.value_dim, p.scale, begins, ends,
                 running);
    [[unroll]] for (uint u = 0; u < UNITS; ++u)
        if (!ends && unit(u) % EIGHTHS == 0u && unit_query(u) < queries) {
            const uvec2 row = running_row(t0 + unit_query(u), h);
            Floats(row).v[0] = running.largest[u];
            Floats(row).v[1] = running.sum[u];
        }
}
