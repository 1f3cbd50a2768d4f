// Reading a row of the cache, whose numbers are in the format CACHE and ROW_FLOATS many.

// Numbers 4 c to 4 c + 3 of a cache row.
vec4 cached4(uvec2 row, uint c) {
    if (CACHE == CACHE_F32) return Vec4In(row).v[c];
    if (CACHE == CACHE_F16) {
        const uvec2 halves = Words2In(row).v[c];
        return vec4(unpackHalf2x16(halves.x), unpackHalf2x16(halves.y));
    }
    const int bytes = int(WordsIn(row).v[c]);
    const float scale = FloatsIn(row).v[CACHE_SCALES_AT(ROW_FLOATS) / 4u + c / 8u];
    return scale * vec4(ivec4(bytes << 24, bytes << 16, bytes << 8, bytes) >> 24);
}

// Number i of a cache row.
float cached_number(uvec2 row, uint i) {
    if (CACHE == CACHE_F32) return FloatsIn(row).v[i];
    if (CACHE == CACHE_F16) {
        const vec2 pair = unpackHalf2x16(WordsIn(row).v[i / 2u]);
        return i % 2u == 0u ? pair.x : pair.y;
    }
    const int byte = int(WordsIn(row).v[i / 4u]) << (24u - 8u * (i % 4u)) >> 24;
    return FloatsIn(row).v[CACHE_SCALES_AT(ROW_FLOATS) / 4u + i / 32u] * float(byte);
}
