#version 460
#extension GL_GOOGLE_include_directive : require
// y[i] = the cache row of the block's position i, as floats and unpaged.   Grid: (1, rows of the block).
#include "common.glsl"
layout(constant_id = 0) const uint CACHE = CACHE_F32;
layout(constant_id = 1) const uint ROW_FLOATS = 8;
#include "cache.glsl"
#include "cached.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { CacheRead p; };

void main() {
    const StepHeader block = StepIn(p.block).header;
    const uint i = gl_WorkGroupID.y;
    if (i >= block.n_rows) return;
    const uvec2 row = cache_row(p.cache, p.pages, step_row(p.state, 0).sequence, block.first + i, p.max_pages,
                                p.page_bytes, p.row_bytes);
    const uvec2 y = at(p.y, i, 4u * ROW_FLOATS);
    for (uint c = thread_index(); c < ROW_FLOATS / 4u; c += WORKGROUP) Vec4(y).v[c] = cached4(row, c);
}
