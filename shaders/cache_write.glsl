// Writing numbers of a cache row, in the format CACHE. A kernel says what they are:
//     float number(uint i)   number i of the row that this workgroup writes
float number(uint i);

void write_floats(uvec2 y, uint first, uint end) {
    for (uint i = first + thread_index(); i < end; i += WORKGROUP) Floats(y).v[i] = number(i);
}

void write_halves(uvec2 y, uint first, uint end) {
    for (uint i = first / 2u + thread_index(); 2u * i < end; i += WORKGROUP)
        Words(y).v[i] = packHalf2x16(vec2(number(2u * i), number(2u * i + 1u)));
}

// An invocation: 32 numbers, which it makes twice, a few at a time on their way.
void write_bytes(uvec2 y, uint first, uint end, uint row_floats) {
    for (uint block = first / 32u + thread_index(); 32u * block < end; block += WORKGROUP) {
        const uint begin = 32u * block, past = min(begin + 32u, end);
        float most = 0;
        for (uint i = begin; i < past; i += 4u)
            [[unroll]] for (uint k = 0; k < 4u; ++k) most = max(most, abs(number(i + k)));
        const float inverse = most > 0.0 ? 127.0 / most : 0.0;
        for (uint i = begin; i < past; i += 4u) {
            uint word = 0;
            [[unroll]] for (uint k = 0; k < 4u; ++k)
                word |= (uint(int(round(number(i + k) * inverse))) & 255u) << (8u * k);
            Words(y).v[i / 4u] = word;
        }
        Floats(y).v[CACHE_SCALES_AT(row_floats) / 4u + block] = most / 127.0;
    }
}

// Numbers [first, end) of the row at y; both are multiples of 32, or end is the row's.
void write_numbers(uvec2 y, uint first, uint end, uint row_floats) {
    if (CACHE == CACHE_F32) write_floats(y, first, end);
    if (CACHE == CACHE_F16) write_halves(y, first, end);
    if (CACHE == CACHE_Q8) write_bytes(y, first, end, row_floats);
}
