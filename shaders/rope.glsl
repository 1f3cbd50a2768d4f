// Rotary position embedding from a table made on the CPU: (positions, rope_dim / 2) pairs of cos and sin.
// Pair i is (2i, 2i + 1), or (i, i + rope_dim / 2) when half_split is 1.
uint rope_first(uint i, uint rope_dim, uint half_split) { return half_split != 0u ? i : 2u * i; }
uint rope_second(uint i, uint rope_dim, uint half_split) {
    return half_split != 0u ? i + rope_dim / 2u : 2u * i + 1u;
}

vec2 rotate(uvec2 table, uint position, uint i, uint rope_dim, vec2 pair) {
    const uvec2 row = at(table, position, 4u * rope_dim);
    const float c = FloatsIn(row).v[2u * i], s = FloatsIn(row).v[2u * i + 1u];
    return vec2(pair.x * c - pair.y * s, pair.x * s + pair.y * c);
}

// Number d of the vector of rope_dim numbers at x, rotated.
float rotated(uvec2 table, uint position, uvec2 x, uint d, uint rope_dim, uint half_split) {
    const uint half_dim = rope_dim / 2u, i = half_split != 0u ? d % half_dim : d / 2u;
    const bool second = half_split != 0u ? d >= half_dim : d % 2u == 1u;
    const vec2 pair = vec2(FloatsIn(x).v[rope_first(i, rope_dim, half_split)],
                           FloatsIn(x).v[rope_second(i, rope_dim, half_split)]);
    const vec2 turned = rotate(table, position, i, rope_dim, pair);
    return second ? turned.y : turned.x;
}
