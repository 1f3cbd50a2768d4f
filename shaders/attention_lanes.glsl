// Attention, an invocation for each query. All that is read of keys and values is read at addresses that a
// whole subgroup shares; scores stay with the invocation that made them: there are no barriers. Wants
// p.scale; SUMS, how many scores or channels an invocation makes at once; COLUMNS, WORKGROUP where this form
// is used. A kernel says what is attended to, key by key, tile by tile:
void begin_tile(uint k0);        // keys k0 to k0 + KEYS - 1 are next
uvec2 value_row(uint k, uint h); // floats of key k's value
uint value_floats();             // how many
// score[i] = query . key k0 + i of `keys`; past the end, the last one's again.
void score_keys(uvec2 query, uint k0, uint keys, uint h, out float score[SUMS]);

const uint KEYS = 64;              // of a tile
shared float tile[KEYS * COLUMNS]; // scores, then weights, of each invocation a column

float add_product(vec4 a, vec4 b, float sum) {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

// y = y * before + the tile's weighted values, all of it times `after`.
void add_values(uvec2 y, uint k0, uint keys, uint h, bool is_first, float before, float after) {
    for (uint c0 = 0; c0 < value_floats(); c0 += SUMS) {
        float value[SUMS];
        [[unroll]] for (uint c = 0; c < SUMS; ++c) value[c] = 0;
        for (uint k = 0; k < keys; k += 4u) {
            [[unroll]] for (uint u = 0; u < 4u; ++u) { // past the end: the last one again, of weight 0
                const float weight = tile[(k + u) * COLUMNS + thread_index()];
                const uvec2 row = at(value_row(k0 + min(k + u, keys - 1u), h), 4u * c0);
                [[unroll]] for (uint c = 0; c < SUMS; ++c) // past the end: the last one again, never written
                    value[c] = fma(weight, FloatsIn(row).v[min(c, value_floats() - c0 - 1u)], value[c]);
            }
        }
        [[unroll]] for (uint c = 0; c < SUMS; ++c) {
            if (c0 + c >= value_floats()) continue;
            const float total = is_first ? value[c] : fma(Floats(y).v[c0 + c], before, value[c]);
            Floats(y).v[c0 + c] = total * after;
        }
    }
}

// What a softmax over `all` keys, of which this query sees the first `seen`, goes on with: the largest score,
// the sum of the weights and, in y, the weighted values; `is_first`: y holds nothing yet; `is_last`: it is to
// be divided by the sum.
void attend_to_keys(uvec2 query, uvec2 y, uint h, uint seen, uint all, bool is_first, bool is_last,
                    inout float largest, inout float sum) {
    for (uint k0 = 0; k0 < all; k0 += KEYS) {
        const uint keys = min(all - k0, KEYS);
        float most = largest;
        begin_tile(k0);
        for (uint b = 0; b < keys; b += SUMS) {
            float score[SUMS];
            score_keys(query, k0 + b, all, h, score);
            [[unroll]] for (uint i = 0; i < SUMS; ++i) {
                const float s = k0 + b + i < seen ? score[i] * p.scale : 2.0 * LOWEST;
                most = max(most, s);
                tile[(b + i) * COLUMNS + thread_index()] = s;
            }
        }
        const float before = exp(largest - most);
        largest = most;
        sum *= before;
        for (uint k = 0; k < keys; k += 4u)
            [[unroll]] for (uint i = k * COLUMNS + thread_index(), u = 0; u < 4u; ++u, i += COLUMNS) {
                const float weight = tile[i] > LOWEST ? exp(tile[i] - most) : 0.0;
                tile[i] = weight;
                sum += weight;
            }
        const bool finished = is_last && k0 + KEYS >= all;
        add_values(y, k0, keys, h, is_first && k0 == 0u, before, finished ? 1.0 / sum : 1.0);
    }
}
