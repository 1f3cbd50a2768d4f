#version 460
#extension GL_GOOGLE_include_directive : require
// cache[position of t] = (rms_norm(latent of t), rotate(k_pe of t)), where kv[t] = (latent, k_pe).   Grid:
// (1, T). Replaces a norm, a rotation and a copy; the norm sums in the order of rms_norm.
#include "common.glsl"
layout(constant_id = 0) const uint CACHE = CACHE_F32;
#include "cache.glsl"
#include "norm.glsl"
#include "rope.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { LatentWrite p; };

// Number i of a row.
float number(uvec2 kv, float scale, uint position, uint i) {
    const uint key = pad4(p.latent_dim), half_dim = p.rope_dim / 2u;
    if (i < p.latent_dim) return FloatsIn(kv).v[i] * scale * FloatsIn(p.weight).v[i];
    if (i < key || i >= key + p.rope_dim) return 0.0;
    const uint d = i - key;
    const uint pair = p.half_split != 0u ? d % half_dim : d / 2u;
    const bool second = p.half_split != 0u ? d >= half_dim : d % 2u == 1u;
    const uint a = rope_first(pair, p.rope_dim, p.half_split),
               b = rope_second(pair, p.rope_dim, p.half_split);
    const vec2 k_pe = vec2(FloatsIn(kv).v[p.latent_dim + a], FloatsIn(kv).v[p.latent_dim + b]);
    const vec2 rotated = rotate(p.rope, position, pair, p.rope_dim, k_pe);
    return second ? rotated.y : rotated.x;
}

void write_floats(uvec2 y, uvec2 kv, float scale, uint position) {
    for (uint i = thread_index(); i < p.row_floats; i += WORKGROUP)
        Floats(y).v[i] = number(kv, scale, position, i);
}

void write_halves(uvec2 y, uvec2 kv, float scale, uint position) {
    for (uint i = thread_index(); 2u * i < p.row_floats; i += WORKGROUP)
        Words(y).v[i] =
            packHalf2x16(vec2(number(kv, scale, position, 2u * i), number(kv, scale, position, 2u * i + 1u)));
}

void write_bytes(uvec2 y, uvec2 kv, float scale, uint position) { // an invocation: 32 numbers
    for (uint block = thread_index(); 32u * block < p.row_floats; block += WORKGROUP) {
        const uint first = 32u * block, end = min(first + 32u, p.row_floats);
        float most = 0;
        for (uint i = first; i < end; ++i) most = max(most, abs(number(kv, scale, position, i)));
        const float inverse = most > 0.0 ? 127.0 / most : 0.0;
        for (uint i = first; i < end; i += 4u) {
            uint word = 0;
            for (uint k = 0; k < 4u; ++k)
                word |= (uint(int(round(number(kv, scale, position, i + k) * inverse))) & 255u) << (8u * k);
            Words(y).v[i / 4u] = word;
        }
        Floats(y).v[CACHE_SCALES_AT(p.row_floats) / 4u + block] = most / 127.0;
    }
}

void main() {
    const uint t = gl_WorkGroupID.y;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    const uvec2 kv = at(p.kv, t, 4u * p.kv_stride);
    const uvec2 y =
        cache_row(p.cache, p.pages, row.sequence, row.position, p.max_pages, p.page_bytes, p.row_bytes);
    const float scale = norm_scale(kv, p.latent_dim, p.eps);
    if (CACHE == CACHE_F32) write_floats(y, kv, scale, row.position);
    if (CACHE == CACHE_F16) write_halves(y, kv, scale, row.position);
    if (CACHE == CACHE_Q8) write_bytes(y, kv, scale, row.position);
}
