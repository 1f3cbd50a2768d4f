#version 460
#extension GL_GOOGLE_include_directive : require
// Groups the (token, slot) pairs of a step by expert: counts, running sums, then each expert collects its
// pairs in their own order, so that the result never depends on timing. Each expert's pairs are cut into
// tiles of at most `tile`.
// Grid: (n_experts), a workgroup for each: all count everything, which is less than to wait for each other.
// Where there is no router (a dense layer), n_experts is 1.
#define WORKGROUP 256
#include "common.glsl"
layout(constant_id = 0) const uint N_EXPERTS = 8;
layout(local_size_x = WORKGROUP) in;
layout(push_constant) uniform Push { ExpertSort p; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Items {
    MoeGrids grids;
    MoeItem items[];
};
shared uint counts[N_EXPERTS];          // pairs of every expert
shared uint found[WORKGROUP / 4];       // pairs of this expert, by the subgroup that finds them
shared uint pairs_before, tiles_before; // of the experts before

uint expert_of(uint pair) { return given(p.experts) ? WordsIn(safe(p.experts, p.state)).v[pair] : 0u; }
uint tiles_of(uint n_pairs) { return (n_pairs + p.tile - 1u) / p.tile; }

const uint AT_ONCE = 4; // pairs on their way to an invocation; past the end the last again
void load_experts(uint pair, uint last, out uint expert[AT_ONCE]) {
    [[unroll]] for (uint k = 0; k < AT_ONCE; ++k) expert[k] = expert_of(min(pair + k, last - 1u));
}

void main() {
    const uint e = gl_WorkGroupID.x, thread = thread_index();
    for (uint i = thread; i < N_EXPERTS; i += WORKGROUP) counts[i] = 0;
    if (thread == 0u) pairs_before = tiles_before = 0;
    barrier();
    // Neighbouring pairs to one invocation, which so meets them in their order.
    const uint pairs = n_rows(p.state) * p.n_slots, share = (pairs + WORKGROUP - 1u) / WORKGROUP;
    const uint first = min(thread * share, pairs), last = min(first + share, pairs);
    uint mine = 0, expert[AT_ONCE];
    for (uint pair = first; pair < last; pair += AT_ONCE) {
        load_experts(pair, last, expert);
        [[unroll]] for (uint k = 0; k < AT_ONCE; ++k) {
            if (pair + k >= last) continue;
            mine += expert[k] == e ? 1u : 0u;
            atomicAdd(counts[expert[k]], 1u);
        }
    }
    const uint earlier = subgroupExclusiveAdd(mine);
    if (gl_SubgroupInvocationID == gl_SubgroupSize - 1u) found[gl_SubgroupID] = earlier + mine;
    barrier();
    uint before = 0, tiles = 0;
    for (uint i = thread; i < e; i += WORKGROUP) {
        before += counts[i];
        tiles += tiles_of(counts[i]);
    }
    atomicAdd(pairs_before, before);
    atomicAdd(tiles_before, tiles);
    barrier();
    uint next = pairs_before + earlier;
    for (uint i = 0; i < gl_SubgroupID; ++i) next += found[i];
    for (uint pair = first; pair < last && mine != 0u; pair += AT_ONCE) {
        load_experts(pair, last, expert);
        [[unroll]] for (uint k = 0; k < AT_ONCE; ++k)
            if (pair + k < last && expert[k] == e) Words(p.pairs).v[next++] = pair + k;
    }
    const uint n_tiles = tiles_of(counts[e]);
    for (uint i = thread; i < n_tiles; i += WORKGROUP)
        Items(p.items).items[tiles_before + i] =
            MoeItem(e, pairs_before + i * p.tile, min(p.tile, counts[e] - i * p.tile), 0u);
    const uint all_tiles = tiles_before + n_tiles;
    if (thread == 0u && e == N_EXPERTS - 1u)
        Items(p.items).grids = MoeGrids(p.up_blocks, all_tiles, p.up_parts, p.down_blocks, all_tiles,
                                        p.down_parts, 0u, 0u);
}
