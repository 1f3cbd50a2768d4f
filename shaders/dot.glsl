// The one order in which every matrix product of a tier sums, so that a token's bits do not depend on how
// many tokens are computed beside it or by which kernel. K_LANES neighbouring lanes share a dot product:
// lane l takes the spans of 32 terms l, l + K_LANES, l + 2 K_LANES, ..., then in the same way the chunks of
// eight behind the last whole span. The eight products of a chunk are added one after the other, their sum
// is scaled and added to the lane's, and the lanes' sums meet in a butterfly (in which every lane gets the
// same bits, since addition commutes). K_LANES divides the subgroup size.

float dot8(vec4 wa, vec4 wb, vec4 xa, vec4 xb) {
    float sum = wa.x * xa.x;
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
