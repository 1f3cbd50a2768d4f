// The one order in which every matrix product of a tier sums, so that a token's bits do not depend on how
// many tokens are computed beside it or by which kernel. K_LANES neighbouring lanes share a dot product:
// lane l takes the chunks of eight terms l, l + K_LANES, l + 2 K_LANES, ..., adds their terms one after the
// other, and the lanes' sums meet in a butterfly (in which every lane gets the same bits, since addition
// commutes). K_LANES divides the subgroup size.

float dot8(vec4 wa, vec4 wb, vec4 xa, vec4 xb, float sum) {
    sum = fma(wa.x, xa.x, sum);
    sum = fma(wa.y, xa.y, sum);
    sum = fma(wa.z, xa.z, sum);
    sum = fma(wa.w, xa.w, sum);
    sum = fma(wb.x, xb.x, sum);
    sum = fma(wb.y, xb.y, sum);
    sum = fma(wb.z, xb.z, sum);
    return fma(wb.w, xb.w, sum);
}

float lanes_sum(float sum) {
    [[unroll]] for (uint step = 1u; step < K_LANES; step *= 2u) sum += subgroupShuffleXor(sum, step);
    return sum;
}

// Eight floats of x from a row that holds n; those beyond n, which are padding, count as zero.
void load_x8(uvec2 x, uint chunk, uint n, out vec4 a, out vec4 b) {
    a = Vec4In(x).v[2u * chunk];
    b = Vec4In(x).v[2u * chunk + 1u];
    if (8u * chunk + 8u > n) {
        const uvec4 i = 8u * chunk + uvec4(0u, 1u, 2u, 3u);
        a = mix(vec4(0), a, lessThan(i, uvec4(n)));
        b = mix(vec4(0), b, lessThan(i + 4u, uvec4(n)));
    }
}
