// Dot products of a weight row, which K_LANES lanes share, with TOKENS rows of n values in shared memory,
// each padded with zeros to whole chunks of eight: X_CHUNKS of them.
#include "dot.glsl"
shared vec4 shared_x[TOKENS * 2 * X_CHUNKS];

void shared_dots(uvec2 w, uint n, out float sum[TOKENS]) {
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) sum[t] = 0;
    const uint lane = thread_index() % K_LANES, spans = n / 32u;
    vec4 wa, wb;
    for (uint i = lane; i < spans; i += K_LANES) {
        const Span span = load_span(w, i, n);
        [[unroll]] for (uint c = 0; c < 4u; ++c) {
            span8(span, c, wa, wb);
            [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
                const uint x = 2u * (t * X_CHUNKS + 4u * i + c);
                sum[t] = fma(span_scale(span, c), dot8(wa, wb, shared_x[x], shared_x[x + 1u]), sum[t]);
            }
        }
    }
    for (uint chunk = 4u * spans + lane; chunk < X_CHUNKS; chunk += K_LANES) {
        load8(w, chunk, n, wa, wb);
        [[unroll]] for (uint t = 0; t < TOKENS; ++t) {
            const uint x = 2u * (t * X_CHUNKS + chunk);
            sum[t] += dot8(wa, wb, shared_x[x], shared_x[x + 1u]);
        }
    }
    [[unroll]] for (uint t = 0; t < TOKENS; ++t) sum[t] = lanes_sum(sum[t]);
}
