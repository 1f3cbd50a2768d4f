// Expanded attention, an invocation for each query. All that is read of keys and values is read at addresses
// that a whole subgroup shares; scores stay with the invocation that made them: there are no barriers.
const uint QUERIES = WORKGROUP;
const uint KEYS = 64;                             // of a tile
layout(constant_id = 0) const bool WHOLE = false; // keys are whole vec4, at multiples of 16 bytes
layout(constant_id = 1) const uint SUMS = 8;      // scores, or channels, that an invocation makes at once
shared float tile[KEYS * WORKGROUP];              // scores, then weights, of each invocation a column

// Numbers 4 d to 4 d + 3 of a key; those past its end are zero.
vec4 key4(uvec2 key, uint d) {
    if (WHOLE) return Vec4In(key).v[d];
    vec4 v = vec4(0);
    [[unroll]] for (uint i = 0; i < 4u; ++i)
        if (4u * d + i < p.nope_dim) v[i] = FloatsIn(key).v[4u * d + i];
    return v;
}

float add_product(vec4 a, vec4 b, float sum) {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
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

// y = y * before + the tile's weighted values, all of it times `after`.
void add_values(uvec2 y, uint k0, uint keys, uint h, bool is_first, float before, float after) {
    for (uint c0 = 0; c0 < p.value_dim; c0 += SUMS) {
        float value[SUMS];
        [[unroll]] for (uint c = 0; c < SUMS; ++c) value[c] = 0;
        for (uint k = 0; k < keys; k += 4u) {
            [[unroll]] for (uint u = 0; u < 4u; ++u) { // past the end: the last one again, of weight 0
                const float weight = tile[(k + u) * WORKGROUP + thread_index()];
                const uvec2 row = at(value_row(k0 + min(k + u, keys - 1u), h), 4u * c0);
                [[unroll]] for (uint c = 0; c < SUMS; ++c) // past the end: the last one again, never written
                    value[c] = fma(weight, FloatsIn(row).v[min(c, p.value_dim - c0 - 1u)], value[c]);
            }
        }
        [[unroll]] for (uint c = 0; c < SUMS; ++c) {
            if (c0 + c >= p.value_dim) continue;
            const float total = is_first ? value[c] : fma(Floats(y).v[c0 + c], before, value[c]);
            Floats(y).v[c0 + c] = total * after;
        }
    }
}

void attend(uint t0, uint rows, uint h) {
    if (thread_index() >= rows) return;
    const uint t = t0 + thread_index(), seen = keys_of(t), all = subgroupMax(seen);
    const uvec2 query = query_row(t, h), y = y_row(t, h), running = running_row(t, h);
    const bool is_first = (p.place & EXPANDED_FIRST) != 0u, is_last = (p.place & EXPANDED_LAST) != 0u;
    float largest = LOWEST, sum = 0;
    if (!is_first) {
        largest = FloatsIn(running).v[0];
        sum = FloatsIn(running).v[1];
    }
    for (uint k0 = 0; k0 < all; k0 += KEYS) {
        const uint keys = min(all - k0, KEYS);
        float most = largest;
        for (uint b = 0; b < keys; b += SUMS) {
            float score[SUMS];
            score_keys(query, k0 + b, all, h, score);
            [[unroll]] for (uint i = 0; i < SUMS; ++i) {
                const float s = k0 + b + i < seen ? score[i] * p.scale : 2.0 * LOWEST;
                most = max(most, s);
                tile[(b + i) * WORKGROUP + thread_index()] = s;
            }
        }
        const float before = exp(largest - most);
        largest = most;
        sum *= before;
        for (uint k = 0; k < keys; k += 4u)
            [[unroll]] for (uint i = k * WORKGROUP + thread_index(), u = 0; u < 4u; ++u, i += WORKGROUP) {
                const float weight = tile[i] > LOWEST ? exp(tile[i] - most) : 0.0;
                tile[i] = weight;
                sum += weight;
            }
        const bool finished = is_last && k0 + KEYS >= all;
        add_values(y, k0, keys, h, is_first && k0 == 0u, before, finished ? 1.0 / sum : 1.0);
    }
    if (is_last) return;
    Floats(running).v[0] = largest;
    Floats(running).v[1] = sum;
}
