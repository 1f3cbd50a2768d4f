// Joining what cached_attention left of one head's parts.
struct Parts {
    uvec2 first; // of `used` parts, `stride` bytes apart: value4 vec4, then the largest score and the sum
    uint used, stride, value4;
    float largest, sum; // of all of them
};

Parts parts_of(uvec2 partial, uint nth, uint n_parts, uint value_dim, uint length) {
    Parts parts;
    parts.value4 = pad4(value_dim) / 4u;
    parts.stride = 16u * (parts.value4 + 1u);
    parts.first = at(partial, nth * n_parts, parts.stride);
    const uint pages = pages_of(length);
    parts.used = (pages - 1u) / part_pages(pages, n_parts) + 1u;
    parts.largest = LOWEST;
    parts.sum = 0;
    for (uint i = 0; i < parts.used; ++i)
        parts.largest = max(parts.largest, Vec4In(at(parts.first, i, parts.stride)).v[parts.value4].x);
    for (uint i = 0; i < parts.used; ++i) {
        const vec4 state = Vec4In(at(parts.first, i, parts.stride)).v[parts.value4];
        parts.sum = fma(exp(state.x - parts.largest), state.y, parts.sum);
    }
    return parts;
}

// Values 4 c to 4 c + 3, still to be divided by the sum.
vec4 joined(Parts parts, uint c) {
    vec4 value = vec4(0);
    for (uint i = 0; i < parts.used; ++i) {
        const uvec2 part = at(parts.first, i, parts.stride);
        value = fma(vec4(exp(Vec4In(part).v[parts.value4].x - parts.largest)), Vec4In(part).v[c], value);
    }
    return value;
}
