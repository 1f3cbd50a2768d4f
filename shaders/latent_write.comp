#version 460
#extension GL_GOOGLE_include_directive : require
// cache[position of t] = (rms_norm(latent of t), rotate(k_pe of t)), where kv[t] = (latent, k_pe).   Grid:
// (1, T). Replaces a norm, a rotation and a copy; the norm sums in the order of rms_norm.
#include "common.glsl"
#include "norm.glsl"
#include "rope.glsl"
#include "cache.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { LatentWrite p; };

void write_row(uvec2 y, uvec2 kv, float scale, uint position) {
    const uint key = pad4(p.latent_dim);
    for (uint i = thread_index(); i < key; i += WORKGROUP)
        Floats(y).v[i] = i < p.latent_dim ? FloatsIn(kv).v[i] * scale * FloatsIn(p.weight).v[i] : 0.0;
    for (uint i = thread_index(); i < p.rope_dim / 2u; i += WORKGROUP) {
        const uint a = rope_first(i, p.rope_dim, p.half_split), b = rope_second(i, p.rope_dim, p.half_split);
        const vec2 pair = vec2(FloatsIn(kv).v[p.latent_dim + a], FloatsIn(kv).v[p.latent_dim + b]);
        const vec2 rotated = rotate(p.rope, position, i, p.rope_dim, pair);
        Floats(y).v[key + a] = rotated.x;
        Floats(y).v[key + b] = rotated.y;
    }
    for (uint i = key + p.rope_dim + thread_index(); i < p.row_floats; i += WORKGROUP) Floats(y).v[i] = 0.0;
}

void main() {
    const uint t = gl_WorkGroupID.y;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    const uvec2 kv = at(p.kv, t, 4u * p.kv_stride);
    const uvec2 y =
        cache_row(p.cache, p.pages, row.sequence, row.position, p.max_pages, p.page_bytes, p.row_floats);
    const float scale = norm_scale(kv, p.latent_dim, p.eps);
    write_row(y, kv, scale, row.position);
    if (given(p.unpaged)) write_row(at(p.unpaged, t, 4u * p.row_floats), kv, scale, row.position);
}
