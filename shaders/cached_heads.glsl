// Attention over cached latents in f32, an invocation for each head, which share keys and values: see
// attention_lanes.glsl. For CPUs, on which invocations that read rows of their own gather every number apart.
layout(constant_id = 7) const bool BY_HEADS = false;
layout(constant_id = 8) const uint SUMS = 8;
const uint COLUMNS = BY_HEADS ? WORKGROUP : 1u;
#include "attention_lanes.glsl"
Part part;
uvec2 page; // a tile is one
void begin_tile(uint k0) { page = row_of(part, k0); }
uvec2 value_row(uint k, uint h) { return at(page, k % PAGE_TOKENS * p.row_bytes); }
uint value_floats() { return pad4(p.value_dim); } // what a row is padded with is zero

void score_keys(uvec2 query, uint k0, uint keys, uint h, out float score[SUMS]) {
    uvec2 key[SUMS];
    [[unroll]] for (uint i = 0; i < SUMS; ++i) {
        key[i] = value_row(min(k0 + i, keys - 1u), h);
        score[i] = 0;
    }
    for (uint d = 0; d < p.key_floats / 4u; ++d) {
        const vec4 q = Vec4In(query).v[d];
        [[unroll]] for (uint i = 0; i < SUMS; ++i) score[i] = add_product(q, Vec4In(key[i]).v[d], score[i]);
    }
}

void attend_by_heads(uint h0) {
    const uint h = h0 + thread_index();
    if (h >= p.n_heads) return;
    const uvec2 y = partial_of(part, h);
    float largest = LOWEST, sum = 0;
    attend_to_keys(query_row(part.t, h), y, h, part.keys, part.keys, true, false, largest, sum);
    Vec4(y).v[pad4(p.value_dim) / 4u] = vec4(largest, sum, 0, 0);
}
