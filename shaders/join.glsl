// Joining what cached_attention left of one head's parts. Wants JOINED, how many heads and rows a workgroup
// joins, each with a number of its own.
shared float part_weight[JOINED * MAX_PARTS];

struct Parts {
    uvec2 first; // of `used` parts, `stride` bytes apart: value4 vec4, then the largest score and the sum
    uint used, stride, value4;
    uint weights; // of part_weight: exp(largest score of the part - that of all)
    float sum;    // of all of them
};

vec2 state_of(Parts parts, uint i) { return Vec4In(at(parts.first, i, parts.stride)).v[parts.value4].xy; }

// Every invocation must call; a barrier before joined() is the caller's to set. Each subgroup adds up all
// parts, for few of them are not worth one more barrier.
Parts parts_of(uvec2 partial, uint nth, uint n_parts, uint value_dim, uint length, uint number) {
    Parts parts;
    parts.value4 = pad4(value_dim) / 4u;
    parts.stride = 16u * (parts.value4 + 1u);
    parts.first = at(partial, nth * n_parts, parts.stride);
    const uint pages = pages_of(length);
    parts.used = (pages - 1u) / part_pages(pages, n_parts) + 1u;
    parts.weights = number * MAX_PARTS;
    float largest = LOWEST, sum = 0;
    for (uint i = gl_SubgroupInvocationID; i < parts.used; i += gl_SubgroupSize)
        largest = max(largest, state_of(parts, i).x);
    largest = subgroupMax(largest);
    for (uint i = gl_SubgroupInvocationID; i < parts.used; i += gl_SubgroupSize) {
        const vec2 state = state_of(parts, i);
        const float weight = exp(state.x - largest);
        sum = fma(weight, state.y, sum);
        if (gl_SubgroupID == 0u) part_weight[parts.weights + i] = weight;
    }
    parts.sum = subgroupAdd(sum);
    return parts;
}

// Values 4 c to 4 c + 3, still to be divided by the sum.
vec4 joined(Parts parts, uint c) {
    vec4 value = vec4(0);
    uint i = 0;
    for (; i + 4u <= parts.used; i += 4u) { // four on their way at a time
        vec4 part[4];
        [[unroll]] for (uint k = 0; k < 4u; ++k)
            part[k] = Vec4In(at(parts.first, i + k, parts.stride)).v[c];
        [[unroll]] for (uint k = 0; k < 4u; ++k)
            value = fma(vec4(part_weight[parts.weights + i + k]), part[k], value);
    }
    for (; i < parts.used; ++i) {
        const vec4 part = Vec4In(at(parts.first, i, parts.stride)).v[c];
        value = fma(vec4(part_weight[parts.weights + i]), part, value);
    }
    return value;
}
