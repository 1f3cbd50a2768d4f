// dots() of the int8 tier: the workgroup rounds its activations to bytes, in shared memory, with one
// scale for each span of 32 (the largest is 127), and a span's products are sums of whole numbers. For
// formats whose quants are whole numbers below 128; their rows are whole spans.
#include "dot_packed.glsl"
layout(constant_id = 4) const uint X_SPANS = 1; // spans in a row of activations
const uint X_QUANTS = TOKENS * X_SPANS * 8u, X_SCALES = TOKENS * X_SPANS * 3u;
shared uint x_quants[X_QUANTS];  // eight words a span
shared float x_scales[X_SCALES]; // of a span: its scale, then the sums of its two halves

// In a word of packed quants their neighbours stand in order, or those of even and of odd number apart.
#if QUANTS == BLOCK
#define IN_WORD(i) (i)
#else
#define IN_WORD(i) (2u * (i % 4u) + i / 4u)
#endif

// Four fields of two bits of a half word, four bits apart, each in a byte of its own.
uint spread2(uint w) { return w & 3u | (w & 0x30u) << 4 | (w & 0x300u) << 8 | (w & 0x3000u) << 12; }

// The quants of chunk c of a span: two words of four bytes each, in the order of IN_WORD.
uvec2 packed8(Span s, uint c) {
#if QUANTS == BLOCK
    const uvec2 q = c % 2u == 0u ? s.quants[c / 2u].xy : s.quants[c / 2u].zw;
#elif 2 * QUANTS == BLOCK
    uvec2 q = uvec2(s.quants[c], s.quants[c] >> 4) & 0x0F0F0F0Fu;
#else
    const uint low = s.quants[c / 2u] >> (16u * (c % 2u));
    uvec2 q = uvec2(spread2(low), spread2(low >> 2));
#endif
#if defined(HIGH)
#if 8 * HIGH == BLOCK
    const uint bits = s.high >> (8u * c);
    const uvec2 even_odd = uvec2(bits, bits >> 1) & 0x55u;
    const uvec2 high = even_odd & 1u | (even_odd & 4u) << 6 | (even_odd & 16u) << 12 | (even_odd & 64u) << 18;
#else
    const uint bits = s.high[c / 2u] >> (16u * (c % 2u));
    const uvec2 high = uvec2(spread2(bits), spread2(bits >> 2));
#endif
    q |= high << (FORMAT == FORMAT_Q3_K ? 2u : 4u);
#endif
    return q;
}

void round_x(X x) {
    for (uint i = thread_index(); i < X_SPANS; i += WORKGROUP) {
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
            vec4 v[8];
            float most = 0;
            [[unroll]] for (uint c = 0; c < 4u; ++c) {
                load_x(x, t, 4u * i + c, v[2u * c], v[2u * c + 1u]);
                const vec4 m = max(abs(v[2u * c]), abs(v[2u * c + 1u]));
                most = max(most, max(max(m.x, m.y), max(m.z, m.w)));
            }
            const float scale = most / 127.0, inverse = most > 0.0 ? 127.0 / most : 0.0;
            const uint at = t * X_SPANS + i;
            x_scales[3u * at] = scale;
            [[unroll]] for (uint h = 0; h < 2u; ++h) {
                int sum = 0;
                [[unroll]] for (uint c = 2u * h; c < 2u * h + 2u; ++c) {
                    const ivec4 a = ivec4(round(v[2u * c] * inverse)),
                                b = ivec4(round(v[2u * c + 1u] * inverse));
                    uvec2 words = uvec2(0);
                    [[unroll]] for (uint k = 0; k < 8u; ++k) {
                        const uint from = IN_WORD(k);
                        const int q = from < 4u ? a[from] : b[from - 4u];
                        words[k / 4u] |= (uint(q) & 255u) << (8u * (k % 4u));
                        sum += q;
                    }
                    x_quants[8u * at + 2u * c] = words.x;
                    x_quants[8u * at + 2u * c + 1u] = words.y;
                }
                x_scales[3u * at + 1u + h] = scale * float(sum);
            }
        }
    }
    barrier();
}

void int8_dots(uvec2 w[TILE_ROWS], X x, uint n, out float sum[TILE]) {
    barrier(); // before, another product may still be reading
    round_x(x);
    [[unroll]] for (uint i = 0; i < TILE; ++i) sum[i] = 0;
    for (uint i = thread_index() % K_LANES; i < X_SPANS; i += K_LANES) {
        [[unroll]] for (uint r = 0; r < TILE_ROWS; ++r) {
            const Span span = load_span(w[r], i, n);
            [[unroll]] for (uint h = 0; h < 2u; ++h) {
                const uvec2 q0 = packed8(span, 2u * h), q1 = packed8(span, 2u * h + 1u);
                [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
                    const uint at = t * X_SPANS + i, xq = 8u * at + 4u * h;
                    const int products =
                        dot_packed(q0.x, x_quants[xq]) + dot_packed(q0.y, x_quants[xq + 1u]) +
                        dot_packed(q1.x, x_quants[xq + 2u]) + dot_packed(q1.y, x_quants[xq + 3u]);
                    const float x_sum = x_scales[3u * at + 1u + h];
                    const float value = fma(x_scales[3u * at], float(products), -ZERO * x_sum);
                    sum[r * TOKENS + t] = fma(span.scales[h].x, value, sum[r * TOKENS + t]);
#ifdef LEAST
                    sum[r * TOKENS + t] = fma(-span.scales[h].y, x_sum, sum[r * TOKENS + t]);
#endif
                }
            }
        }
    }
    [[unroll]] for (uint i = 0; i < TILE; ++i) sum[i] = lanes_sum(sum[i]);
}
