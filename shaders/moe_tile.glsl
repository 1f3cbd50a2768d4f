// The tile of (token, slot) pairs that a workgroup of the expert kernels serves: one expert, up to TOKENS
// pairs.
// Grouped: the tile listed by expert_sort. Otherwise: one pair, whose expert the router wrote.
#include "moe_pair.glsl"
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer ItemsIn {
    MoeGrids grids;
    MoeItem items[];
};

// The tile of this workgroup; of a listed tile of more than TOKENS pairs, the part that gl_WorkGroupID.z
// says.
bool load_tile(bool grouped, uvec2 items, uvec2 experts, uvec2 state, uint pairs, out MoeItem item) {
    const uint index = gl_WorkGroupID.y, skipped = gl_WorkGroupID.z * TOKENS;
    if (grouped) {
        if (index >= ItemsIn(items).grids.n_items) return false;
        item = ItemsIn(items).items[index];
        if (skipped >= item.count) return false;
        item.first += skipped;
        item.count = min(item.count - skipped, TOKENS);
        return true;
    }
    if (index >= pairs) return false;
    item = MoeItem(pair_expert(experts, index, state), index, 1u, 0u);
    return true;
}
uint tile_pair(MoeItem item, uint i, bool grouped, uvec2 pairs) {
    return grouped ? WordsIn(pairs).v[item.first + i] : item.first + i;
}
