// The tile of (token, slot) pairs that a workgroup of the expert kernels serves: one expert, up to TOKENS pairs.
// Grouped: the tile listed by expert_sort. Otherwise: one pair, whose expert the router wrote (no list: expert 0).
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer ItemsIn { uvec4 count; MoeItem items[]; };

bool load_tile(uint index, bool grouped, uvec2 items, uvec2 experts, uint pairs, out MoeItem item) {
    if (grouped) {
        if (index >= ItemsIn(items).count.x) return false;
        item = ItemsIn(items).items[index];
        return true;
    }
    if (index >= pairs) return false;
    item = MoeItem(given(experts) ? WordsIn(experts).v[index] : 0u, index, 1u, 0u);
    return true;
}
uint tile_pair(MoeItem item, uint i, bool grouped, uvec2 pairs) {
    const uint index = item.first + min(i, item.count - 1u); // past the end: the last one again
    return grouped ? WordsIn(pairs).v[index] : index;
}
