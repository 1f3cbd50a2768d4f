// Attention over the cache of latents by tiles, whose queries are heads: all share keys, and the values that
// these begin with.
layout(constant_id = 5) const uint ROW_FLOATS = 8; // after those of block.glsl
layout(constant_id = 6) const uint CACHE = CACHE_F32;
#include "cached.glsl"

// As in dequant.glsl.
void load8(uvec2 row, uint chunk, uint cols, out vec4 a, out vec4 b) {
    a = cached4(row, 2u * chunk);
    b = 8u * chunk + 4u < cols ? cached4(row, 2u * chunk + 1u) : vec4(0);
}
struct Span { uvec2 row; uint first; };
Span load_span(uvec2 row, uint span, uint cols) { return Span(row, 4u * span); }
void span8(Span s, uint i, out vec4 a, out vec4 b) {
    a = cached4(s.row, 2u * (s.first + i));
    b = cached4(s.row, 2u * (s.first + i) + 1u);
}
float span_scale(Span s, uint i) { return 1.0; }

#define VALUE_STRIDE p.row_bytes
#include "attention_block.glsl"
Part attended;
uint first_head;

void add_keys(uint k, uvec2 query[X_LOADS], inout SUM sums[N_SUMS]) {
    add_product(row_of(attended, k), query, p.row_floats, sums);
}

uvec2 value_row(uint k) { return row_of(attended, k); } // pages hold whole runs of 32
float value_number(uvec2 row, uint channel) { return cached_number(row, channel); }

void store(uint n, uint t, float sum[PARTS]) {
    const uvec2 y = partial_of(attended, first_head + t);
    Floats(y).v[n] = is_first ? sum[0] : fma(Floats(y).v[n], before[t], sum[0]);
}

void attend(Part part, uint h0) {
    const uint heads = min(p.n_heads - h0, TOKENS);
    attended = part;
    first_head = h0;
    uvec2 query[X_LOADS];
    [[unroll]] for (uint load = 0; load < X_LOADS; ++load)
        query[load] = query_row(part.t, h0 + staged_query(load, heads));
    Running running;
    [[unroll]] for (uint u = 0; u < UNITS; ++u) {
        running.largest[u] = LOWEST;
        running.sum[u] = 0;
    }
    attend_tiles(query, heads, part.keys, part.keys, pad4(p.value_dim), p.scale, true, false, running);
    [[unroll]] for (uint u = 0; u < UNITS; ++u)
        if (unit(u) % EIGHTHS == 0u && unit_query(u) < heads)
            Vec4(partial_of(part, h0 + unit_query(u))).v[pad4(p.value_dim) / 4u] =
                vec4(running.largest[u], running.sum[u], 0, 0);
}
