#version 460
#extension GL_GOOGLE_include_directive : require
// y[t, h] = W_UV[h] (sum over parts of exp(m_part - m) value_part) / (sum over parts of exp(m_part - m)
// sum_part). With `chunk`, (values, m, sum) of the expanded half of a prefill, both halves are weighed by
// their log-sum-exp.
// Grid: (heads, rows of the block). The joined latent goes through shared memory to the value up-projection,
// whose rows are the last value_dim of head h.
// variants: FORMAT=*
#include "common.glsl"
layout(constant_id = 0) const uint K_LANES = 4;
layout(constant_id = 1) const uint LATENT_CHUNKS = 1; // latent / 8, rounded up
#include "dequant.glsl"
#include "dot.glsl"
#include "cache.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { AttentionCombine p; };
shared vec4 context[2 * LATENT_CHUNKS];

void main() {
    const uint h = gl_WorkGroupID.x, t = p.first_row + gl_WorkGroupID.y;
    if (t >= n_rows(p.state)) return;
    const uint latent4 = pad4(p.latent_dim) / 4u, stride = 16u * (latent4 + 1u);
    const uvec2 parts = at(p.partial, ((t - p.first_row) * p.n_heads + h) * p.n_parts, stride);

    float largest = LOWEST, sum = 0;
    for (uint part = 0; part < p.n_parts; ++part)
        largest = max(largest, Vec4In(at(parts, part, stride)).v[latent4].x);
    for (uint part = 0; part < p.n_parts; ++part) {
        const vec4 state = Vec4In(at(parts, part, stride)).v[latent4];
        sum = fma(exp(state.x - largest), state.y, sum);
    }
    for (uint c = thread_index(); c < 2u * LATENT_CHUNKS; c += WORKGROUP) {
        vec4 joined = vec4(0);
        for (uint part = 0; part < p.n_parts && c < latent4; ++part) {
            const float weight = exp(Vec4In(at(parts, part, stride)).v[latent4].x - largest);
            joined = fma(vec4(weight), Vec4In(at(parts, part, stride)).v[c], joined);
        }
        context[c] = joined;
    }
    barrier();

    float chunk_weight = 0, history_weight = 1;
    const uvec2 chunk = given(p.chunk) ? at(p.chunk, t * p.n_heads + h, 4u * (p.value_dim + 2u)) : p.weights;
    if (given(p.chunk)) {
        const float chunk_largest = FloatsIn(chunk).v[p.value_dim], m = max(largest, chunk_largest);
        history_weight = exp(largest - m);
        chunk_weight = exp(chunk_largest - m);
        sum = history_weight * sum + chunk_weight * FloatsIn(chunk).v[p.value_dim + 1u];
    }
    const uint lane = thread_index() % K_LANES;
    for (uint r0 = 0; r0 < p.value_dim; r0 += WORKGROUP / K_LANES) { // uniform: all lanes shuffle together
        const uint r = r0 + thread_index() / K_LANES;
        const uint row = h * (p.skipped_rows + p.value_dim) + p.skipped_rows + min(r, p.value_dim - 1u);
        const uvec2 w = at(p.weights, row, p.row_bytes);
        float dot = 0;
        for (uint c = lane; c < LATENT_CHUNKS; c += K_LANES) {
            vec4 wa, wb;
            load8(w, c, p.latent_dim, wa, wb);
            dot = dot8(wa, wb, context[2u * c], context[2u * c + 1u], dot);
        }
        dot = lanes_sum(dot);
        if (lane != 0u || r >= p.value_dim) continue;
        if (given(p.chunk)) dot = history_weight * dot + chunk_weight * FloatsIn(chunk).v[r];
        Floats(at(p.y, t, 4u * p.y_stride)).v[h * p.value_dim + r] = dot / sum;
    }
}
