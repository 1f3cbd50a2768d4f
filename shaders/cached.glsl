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
