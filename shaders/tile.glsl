// The products of TILE_ROWS weight rows with TOKENS rows of activations, which K_LANES lanes share: a weight
// is read and decoded once for all tokens, an activation once for all rows. Where NORM is true the
// activations are normed as they are read, with the bits of rms_norm.
#include "dot.glsl"
const uint TILE = TILE_ROWS * TOKENS; // arrays of one size are of one type only if its name is the same

struct NormedBy {
    uvec2 weight;
    float scale[TOKENS];
};
#include "norm.glsl"
NormedBy normed_by(uvec2 weight, float eps, uvec2 x[TOKENS], uint n) {
    NormedBy norm;
    norm.weight = weight;
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) norm.scale[t] = NORM ? norm_scale(x[t], n, eps) : 1.0;
    return norm;
}

void load_x(uvec2 x, uint chunk, NormedBy norm, uint t, out vec4 xa, out vec4 xb) {
    xa = Vec4In(x).v[2u * chunk];
    xb = Vec4In(x).v[2u * chunk + 1u];
    if (!NORM) return;
    xa = xa * norm.scale[t] * Vec4In(norm.weight).v[2u * chunk];
    xb = xb * norm.scale[t] * Vec4In(norm.weight).v[2u * chunk + 1u];
}

#if TIER == TIER_INT8
#include "int8.glsl"
#else
// sum[r, t] = w[r] . x[t] over n terms, the same in all lanes of a dot product.
void tile_dots(uvec2 w[TILE_ROWS], uvec2 x[TOKENS], NormedBy norm, uint n, out float sum[TILE]) {
    [[unroll]] for (uint i = 0; i < TILE; ++i) sum[i] = 0;
    const uint lane = thread_index() % K_LANES, spans = n / 32u, chunks = (n + 7u) / 8u;
    vec4 wa[TILE_ROWS], wb[TILE_ROWS], xa, xb;
    for (uint i = lane; i < spans; i += K_LANES) {
        Span span[TILE_ROWS];
        [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) span[r] = load_span(w[r], i, n);
        [[unroll]] for (uint c = 0; c < 4u; ++c) {
            [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) span8(span[r], c, wa[r], wb[r]);
            [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
                load_x(x[t], 4u * i + c, norm, t, xa, xb);
                [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) sum[r * TOKENS + t] =
                    fma(span_scale(span[r], c), dot8(wa[r], wb[r], xa, xb), sum[r * TOKENS + t]);
            }
        }
    }
    for (uint chunk = 4u * spans + lane; chunk < chunks; chunk += K_LANES) {
        [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) load8(w[r], chunk, n, wa[r], wb[r]);
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
            load_x(x[t], chunk, norm, t, xa, xb);
            zero_padding(chunk, n, xa, xb);
            [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) sum[r * TOKENS + t] += dot8(wa[r], wb[r], xa, xb);
        }
    }
    [[unroll]] for (uint i = 0; i < TILE; ++i) sum[i] = lanes_sum(sum[i]);
}
#endif
