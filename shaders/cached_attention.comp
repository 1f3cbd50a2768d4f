#version 460
#extension GL_GOOGLE_include_directive : require
// partial[t, h, part] = sum over the part's positions j of exp(s_j - m) v[j, h], with m and the sum of
// exp(s_j - m), where s_j = scale * q[t, h] . k[j, h]. Keys and values are ranges of a cache row: of latent
// attention the whole row and its beginning, for every head; of plain attention each head has its own.
// Grid: (parts, heads / HEADS, rows of the block). Parts depend on the token's position alone, hence so do
// its bits; those that it leaves without positions are not written.
// variants: TIER=BASE,TILED
// variants: TIER=MATRIX requires GL_KHR_cooperative_matrix
#include "common.glsl"
#include "cache.glsl"
layout(push_constant) uniform Push { CachedAttention p; };

// A part of what a token's row sees: `keys` positions from `first`, which begins a page.
struct Part { uint t, nth, sequence, first, keys; };

uvec2 query_row(uint t, uint h) { return at(p.q, t * p.n_heads + h, 4u * p.key_floats); }
uvec2 row_of(Part part, uint k) {
    return cache_row(p.cache, p.pages, part.sequence, part.first + k, p.max_pages, p.page_bytes, p.row_bytes);
}
uvec2 partial_of(Part part, uint h) {
    const uint row = ((part.t - p.first_row) * p.n_heads + h) * p.n_parts + part.nth;
    return at(p.partial, row, 4u * (pad4(p.value_dim) + 4u));
}

#if TIER == TIER_BASE
#include "cached_lanes.glsl"
#include "cached_heads.glsl"
const uint HEADS = BY_HEADS ? WORKGROUP : QUERIES;
void attend(Part one, uint h0) {
    part = one;
    if (BY_HEADS) attend_by_heads(h0);
    else attend_by_keys(one, h0);
}
#else
#include "cached_block.glsl"
const uint HEADS = QUERIES;
#endif
layout(local_size_x = WORKGROUP) in;

void main() {
    const uint t = p.first_row + gl_WorkGroupID.z;
    // Short texts fill the first parts only: neighbours go apart, for those who share out workgroups in runs.
    const uint nth = gl_WorkGroupID.x * (p.n_parts % 4u == 0u ? p.n_parts / 2u + 1u : 1u) % p.n_parts;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    const uint length = row.position + 1u, pages = pages_of(length);
    const uint pages_each = part_pages(pages, p.n_parts);
    const uint first = nth * pages_each, last = min(first + pages_each, pages);
    if (first >= last) return;
    const uint begin = first * PAGE_TOKENS, end = min(length, last * PAGE_TOKENS);
    attend(Part(t, nth, row.sequence, begin, end - begin), gl_WorkGroupID.y * HEADS);
}
