// The tile of (token, slot) pairs that a workgroup of the expert kernels serves: one expert, up to TOKENS
// pairs.
// Grouped: the tile listed by expert_sort. Otherwise: one pair, whose expert the router wrote.
// A dense layer has neither experts nor weights: its one expert is 0, with weight 1.
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer ItemsIn {
    uvec4 count;
    MoeItem items[];
};

uint pair_expert(uvec2 experts, uint pair, uvec2 state) {
    const uint expert = WordsIn(safe(experts, state)).v[pair];
    return given(experts) ? expert : 0u;
}
float pair_weight(uvec2 weights, uint pair, uvec2 state) {
    const float weight = FloatsIn(safe(weights, state)).v[pair];
    return given(weights) ? weight : 1.0;
}

bool load_tile(uint index, bool grouped, uvec2 items, uvec2 experts, uvec2 state, uint pairs,
               out MoeItem item) {
    if (grouped) {
        if (index >= ItemsIn(items).count.x) return false;
        item = ItemsIn(items).items[index];
        return true;
    }
    if (index >= pairs) return false;
    item = MoeItem(pair_expert(experts, index, state), index, 1u, 0u);
    return true;
}
uint tile_pair(MoeItem item, uint i, bool grouped, uvec2 pairs) {
    const uint index = item.first + min(i, item.count - 1u); // past the end: the last one again
    return grouped ? WordsIn(pairs).v[index] : index;
}
