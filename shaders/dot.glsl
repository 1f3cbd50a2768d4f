// The one order in which every matrix product of a tier sums, so that a token's bits do not depend on how
// many tokens are computed beside it or by which kernel. K_LANES neighbouring lanes share a dot product:
// lane l takes the spans of 32 terms l, l + K_LANES, l + 2 K_LANES, ..., then in the same way the chunks of
// eight behind the last whole span. The eight products of a chunk are added one after the other, their sum
// is scaled and added to the lane's, and the lanes' sums meet in a butterfly (in which every lane gets the
// same bits, since addition commutes). K_LANES divides the subgroup size.
//
// TILE_ROWS weight rows are multiplied with TOKENS rows of activations: a weight is read and decoded once for
// all tokens, activations once for all rows. Where these lie, and how a chunk of eight of token t is read,
// says what includes this:
//     struct X
//     void load_x(X x, uint t, uint chunk, out vec4 a, out vec4 b)
const uint TILE = TILE_ROWS * TOKENS; // arrays of one size are of one type only if its name is the same

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

// The first of the workgroup's dot products that this subgroup has. Its lanes shuffle together: either all of
// them have one to make, or none.
uint first_dot() { return gl_SubgroupID * gl_SubgroupSize / K_LANES; }

// sum[r, t] = w[r] . x[t] over n terms, the same in all lanes of a dot product.
void dots(uvec2 w[TILE_ROWS], X x, uint n, out float sum[TILE]) {
    [[unroll]] for (uint i = 0; i < TILE; ++i) sum[i] = 0;
    const uint lane = thread_index() % K_LANES, spans = n / 32u, chunks = (n + 7u) / 8u;
    vec4 wa[TILE_ROWS], wb[TILE_ROWS], xa, xb;
    for (uint i = lane; i < spans; i += K_LANES) {
        Span span[TILE_ROWS];
        [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) span[r] = load_span(w[r], i, n);
        [[unroll]] for (uint c = 0; c < 4u; ++c) {
            [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) span8(span[r], c, wa[r], wb[r]);
            [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
                load_x(x, t, 4u * i + c, xa, xb);
                [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) sum[r * TOKENS + t] =
                    fma(span_scale(span[r], c), dot8(wa[r], wb[r], xa, xb), sum[r * TOKENS + t]);
            }
        }
    }
    for (uint chunk = 4u * spans + lane; chunk < chunks; chunk += K_LANES) {
        [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) load8(w[r], chunk, n, wa[r], wb[r]);
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
            load_x(x, t, chunk, xa, xb);
            zero_padding(chunk, n, xa, xb);
            [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) sum[r * TOKENS + t] += dot8(wa[r], wb[r], xa, xb);
        }
    }
    [[unroll]] for (uint i = 0; i < TILE; ++i) sum[i] = lanes_sum(sum[i]);
}
