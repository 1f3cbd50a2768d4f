#version 460
#extension GL_GOOGLE_include_directive : require
// Groups the (token, slot) pairs of a step by expert: counts, running sums, then each expert collects its
// pairs in their own order, so that the result never depends on timing. Each expert's pairs are cut into
// tiles of at most `tile`.
// Grid: (1, 1). An invocation serves every 256th expert. Where there is no router (a dense layer), n_experts
// is 1.
#define WORKGROUP 256
#include "common.glsl"
layout(constant_id = 0) const uint N_EXPERTS = 8;
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { ExpertSort p; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Items { uvec4 count; MoeItem items[]; };
shared uint first_pair[N_EXPERTS + 1u];
shared uint first_item[N_EXPERTS + 1u];

bool is_for(uint pair, uint e) { return WordsIn(safe(p.experts, p.state)).v[pair] == e || !given(p.experts); }

void main() {
    const uint pairs = n_rows(p.state) * p.n_slots;
    for (uint e = gl_LocalInvocationIndex; e < N_EXPERTS; e += WORKGROUP) {
        uint count = 0;
        for (uint pair = 0; pair < pairs; ++pair) count += is_for(pair, e) ? 1u : 0u;
        first_pair[e + 1u] = count;
        first_item[e + 1u] = (count + p.tile - 1u) / p.tile;
    }
    barrier();
    if (gl_LocalInvocationIndex == 0u) {
        first_pair[0] = first_item[0] = 0;
        for (uint e = 0; e < N_EXPERTS; ++e) {
            first_pair[e + 1u] += first_pair[e];
            first_item[e + 1u] += first_item[e];
        }
        Items(p.items).count = uvec4(first_item[N_EXPERTS], 0, 0, 0);
    }
    barrier();
    for (uint e = gl_LocalInvocationIndex; e < N_EXPERTS; e += WORKGROUP) {
        uint next = first_pair[e];
        const uint end = first_pair[e + 1u];
        for (uint i = first_item[e]; i < first_item[e + 1u]; ++i) {
            const uint first = next + (i - first_item[e]) * p.tile;
            Items(p.items).items[i] = MoeItem(e, first, min(p.tile, end - first), 0u);
        }
        for (uint pair = 0; pair < pairs && next < end; ++pair)
            if (is_for(pair, e)) Words(p.pairs).v[next++] = pair;
    }
}
