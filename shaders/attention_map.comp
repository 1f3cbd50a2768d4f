#version 460
#extension GL_GOOGLE_include_directive : require
// map[t, h, b] = log of the sum of exp(scale * q[t, h] . k[j, h]) over the positions j of bin b: what head h
// pays to each bin, once these are divided by the sum of all. Nothing of the model reads it.
// Grid: (parts, heads watched, T). A workgroup takes every parts-th span, a page or the pages of one longer
// bin; invocation j scores position j of a page. No sum crosses a span, so that the number of parts changes
// no bit.
#include "common.glsl"
layout(constant_id = 0) const uint KEY_FLOATS = 4; // of one key
layout(constant_id = 1) const uint ROW_FLOATS = 4; // of a cache row
layout(constant_id = 2) const uint CACHE = CACHE_F32;
#include "cache.glsl"
#include "cached.glsl"
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { AttentionMap p; };
shared float query[KEY_FLOATS];
shared float largest_of[WORKGROUP], sum_of[WORKGROUP];

float score(uvec2 row, uint h) {
    float dot = 0;
    for (uint c = 0; c < KEY_FLOATS / 4u; ++c) {
        const vec4 k = cached4(row, h * p.key_step / 4u + c);
        dot += fma(query[4u * c + 3u], k.w,
                   fma(query[4u * c + 2u], k.z, fma(query[4u * c + 1u], k.y, query[4u * c] * k.x)));
    }
    return dot * p.scale;
}

void main() {
    const uint t = gl_WorkGroupID.z, h = gl_WorkGroupID.y;
    if (t >= n_rows(p.state)) return;
    const StepRow row = step_row(p.state, t);
    const uint length = row.position + 1u, pool = attention_pool(length, p.width);
    const uint span = max(pool, uint(PAGE_TOKENS)), run = min(pool, uint(PAGE_TOKENS));
    const uvec2 bins = at(at(p.map, (StepIn(p.state).header.trace_slot + t) % p.map_rows, 4u * p.map_stride),
                          4u * h * p.width);
    const uvec2 q = at(at(p.q, t, 4u * p.q_stride), 4u * (p.first_head + h) * KEY_FLOATS);
    for (uint i = thread_index(); i < KEY_FLOATS; i += WORKGROUP) query[i] = FloatsIn(q).v[i];
    barrier();

    for (uint first = gl_WorkGroupID.x * span; first < length; first += gl_NumWorkGroups.x * span) {
        float largest = LOWEST, sum = 0;
        for (uint page = first; page < min(first + span, length); page += PAGE_TOKENS) {
            const uint j = page + thread_index();
            const uvec2 at_page = cache_row(p.cache, p.pages, row.sequence, page, p.max_pages, p.page_bytes,
                                            p.row_bytes);
            const uint within = min(j, length - 1u) % PAGE_TOKENS;
            const float s = score(at(at_page, within * p.row_bytes), p.first_head + h);
            if (j >= length) continue;
            const float m = max(largest, s);
            sum = sum * exp(largest - m) + exp(s - m);
            largest = m;
        }
        barrier(); // before: the last span's are read
        largest_of[thread_index()] = largest;
        sum_of[thread_index()] = sum;
        barrier();
        // The first invocation of each run of neighbours that make a bin joins them.
        const uint i0 = thread_index();
        if (i0 % run == 0u && first + i0 < length) {
            float m = LOWEST, total = 0;
            for (uint i = i0; i < i0 + run; ++i) m = max(m, largest_of[i]);
            for (uint i = i0; i < i0 + run; ++i) total += sum_of[i] * exp(largest_of[i] - m);
            Floats(bins).v[first / pool + i0 / run] = m + log(total);
        }
    }
}
