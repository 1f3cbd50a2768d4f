// Running softmax over tiles of PAGE_TOKENS keys for QUERIES queries at once: invocation j scores key j for
// every query; tile_p then holds the tile's weights, relative to the largest score so far. Two barriers a
// tile.
shared float tile_p[QUERIES * PAGE_TOKENS];
shared float tile_max[QUERIES * WORKGROUP / 4];
shared float tile_sum[QUERIES * WORKGROUP / 4];

// score[i]: this invocation's key for query i, at most LOWEST where it is masked. largest and sum are the
// running state; what was accumulated before is to be multiplied by rescale[i].
void softmax_tile(float score[QUERIES], inout float largest[QUERIES], inout float sum[QUERIES],
                  out float rescale[QUERIES]) {
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        const float part = subgroupMax(score[i]);
        if (subgroupElect()) tile_max[i * (WORKGROUP / 4) + gl_SubgroupID] = part;
    }
    barrier();
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        float m = largest[i];
        for (uint s = 0; s < gl_NumSubgroups; ++s) m = max(m, tile_max[i * (WORKGROUP / 4) + s]);
        rescale[i] = exp(largest[i] - m);
        largest[i] = m;
        const float weight = score[i] > LOWEST ? exp(score[i] - m) : 0.0;
        tile_p[i * PAGE_TOKENS + thread_index()] = weight;
        const float part = subgroupAdd(weight);
        if (subgroupElect()) tile_sum[i * (WORKGROUP / 4) + gl_SubgroupID] = part;
    }
    barrier();
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        float total = 0;
        for (uint s = 0; s < gl_NumSubgroups; ++s) total += tile_sum[i * (WORKGROUP / 4) + s];
        sum[i] = fma(sum[i], rescale[i], total);
    }
}
