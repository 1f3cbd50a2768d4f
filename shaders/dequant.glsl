// Weights of the FORMAT this module is compiled for, eight at a time, as floats. A row holds a multiple of 8
// weights and starts at a multiple of 16 bytes.
#if FORMAT == FORMAT_F32
void load8(uvec2 row, uint chunk, out vec4 a, out vec4 b) {
    a = Vec4In(row).v[2u * chunk];
    b = Vec4In(row).v[2u * chunk + 1u];
}
#else
vec2 unpack2(uint word) {
#if FORMAT == FORMAT_F16
    return unpackHalf2x16(word);
#elif FORMAT == FORMAT_BF16
    return vec2(uintBitsToFloat(word << 16), uintBitsToFloat(word & 0xFFFF0000u));
#endif
}
void load8(uvec2 row, uint chunk, out vec4 a, out vec4 b) {
    const uvec4 w = Words4In(row).v[chunk];
    a = vec4(unpack2(w.x), unpack2(w.y));
    b = vec4(unpack2(w.z), unpack2(w.w));
}
#endif
