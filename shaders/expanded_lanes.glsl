// Expanded attention, an invocation for each query: see attention_lanes.glsl.
const uint QUERIES = WORKGROUP;
layout(constant_id = 0) const bool WHOLE = false; // keys are whole vec4, at multiples of 16 bytes
layout(constant_id = 1) const uint SUMS = 8;
#define COLUMNS WORKGROUP
#include "attention_lanes.glsl"
void begin_tile(uint k0) {}
uint value_floats() { return p.value_dim; }

// Numbers 4 d to 4 d + 3 of a key; those past its end are zero.
vec4 key4(uvec2 key, uint d) {
    if (WHOLE) return Vec4In(key).v[d];
    vec4 v = vec4(0);
    [[unroll]] for (uint i = 0; i < 4u; ++i)
        if (4u * d + i < p.nope_dim) v[i] = FloatsIn(key).v[4u * d + i];
    return v;
}

// score[i] = query . key k0 + i of `keys`; past the end, the last one's again.
void score_keys(uvec2 query, uint k0, uint keys, uint h, out float score[SUMS]) {
    uvec2 k_nope[SUMS], k_pe[SUMS];
    [[unroll]] for (uint i = 0; i < SUMS; ++i) {
        k_nope[i] = k_nope_row(min(k0 + i, keys - 1u), h);
        k_pe[i] = k_pe_row(min(k0 + i, keys - 1u));
        score[i] = 0;
    }
    const uint nope4 = pad4(p.nope_dim) / 4u, rope4 = pad4(p.rope_dim) / 4u;
    for (uint d = 0; d < nope4; ++d) {
        const vec4 q = Vec4In(query).v[d];
        [[unroll]] for (uint i = 0; i < SUMS; ++i) score[i] =
            add_product(q, key4(k_nope[i], d), score[i]);
    }
    for (uint d = 0; d < rope4; ++d) {
        const vec4 q = Vec4In(query).v[nope4 + d];
        [[unroll]] for (uint i = 0; i < SUMS; ++i) score[i] =
            add_product(q, Vec4In(k_pe[i]).v[d], score[i]);
    }
}

void attend(uint t0, uint rows, uint h) {
    if (thread_index() >= rows) return;
    const uint t = t0 + thread_index(), seen = keys_of(t), all = subgroupMax(seen);
    const uvec2 running = running_row(t, h);
    const bool is_first = (p.place & EXPANDED_FIRST) != 0u, is_last = (p.place & EXPANDED_LAST) != 0u;
    float largest = LOWEST, sum = 0;
    if (!is_first) {
        largest = FloatsIn(running).v[0];
        sum = FloatsIn(running).v[1];
    }
    attend_to_keys(query_row(t, h), y_row(t, h), h, seen, all, is_first, is_last, largest, sum);
    if (is_last) return;
    Floats(running).v[0] = largest;
    Floats(running).v[1] = sum;
}
