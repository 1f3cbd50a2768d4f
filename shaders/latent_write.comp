#version 460
#extension GL_GOOGLE_include_directive : require
// cache[position of t] = (rms_norm(latent of t), rotate(k_pe of t)), where kv[t] = (latent, k_pe).   Grid:
// (1, T). Replaces a norm, a rotation and a copy; the norm sums in the order of rms_norm.
#include "common.glsl"
layout(constant_id = 0) const uint CACHE = CACHE_F32;
#include "cache.glsl"
#include "cache_write.glsl"
#include "norm.glsl"
#include "rope.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { LatentWrite p; };
uvec2 kv;
uint position;
float scale;

float number(uint i) {
    const uint key = pad4(p.latent_dim);
    if (i < p.latent_dim) return FloatsIn(kv).v[i] * scale * FloatsIn(p.weight).v[i];
    if (i < key || i >= key + p.rope_dim) return 0.0;
    return rotated(p.rope, position, at(kv, 4u * p.latent_dim), i - key, p.rope_dim, p.half_split);
}

void main() {
    const uint t = gl_WorkGroupID.y;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    kv = at(p.kv, t, 4u * p.kv_stride);
    position = row.position;
    scale = norm_scale(kv, p.latent_dim, p.eps);
    const uvec2 y =
        cache_row(p.cache, p.pages, row.sequence, position, p.max_pages, p.page_bytes, p.row_bytes);
    write_numbers(y, 0u, p.row_floats, p.row_floats);
}
