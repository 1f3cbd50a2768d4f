// Running softmax over tiles of TILE_PAGES * PAGE_TOKENS keys for QUERIES queries at once: invocation j
// scores key j of every page of the tile for every query; tile_p then holds the tile's weights, relative to
// the largest score so far, and zeros to the end of a page that is used in part. Two barriers a tile. What
// the weights sum up belongs to the tile alone and is merged into what memory holds of the tiles before:
// nothing but the running state lives in registers across barriers.
const uint TILE_KEYS = TILE_PAGES * PAGE_TOKENS, SCORES = QUERIES * TILE_PAGES;
shared vec4 tile_p[QUERIES * TILE_KEYS / 4u]; // four keys each: a load for several products
shared float tile_max[QUERIES * WORKGROUP / 4];
shared float tile_sum[QUERIES * WORKGROUP / 4];

// score[i * TILE_PAGES + s]: this invocation's key of page s for query i, at most LOWEST where it is masked;
// keys: how many of the tile's are used, at least. largest and sum are the running state; what was summed
// before is to be multiplied by rescale[i].
void softmax_tile(float score[SCORES], uint keys, inout float largest[QUERIES], inout float sum[QUERIES],
                  out float rescale[QUERIES]) {
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        float part = score[i * TILE_PAGES];
        [[unroll]] for (uint s = 1u; s < TILE_PAGES; ++s) part = max(part, score[i * TILE_PAGES + s]);
        part = subgroupMax(part);
        if (subgroupElect()) tile_max[i * (WORKGROUP / 4) + gl_SubgroupID] = part;
    }
    barrier();
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        float m = largest[i], part = 0;
        for (uint s = 0; s < gl_NumSubgroups; ++s) m = max(m, tile_max[i * (WORKGROUP / 4) + s]);
        rescale[i] = exp(largest[i] - m);
        largest[i] = m;
        [[unroll]] for (uint s = 0; s < TILE_PAGES; ++s) {
            if (s * PAGE_TOKENS >= keys) continue;
            const float x = score[i * TILE_PAGES + s], weight = x > LOWEST ? exp(x - m) : 0.0;
            tile_p[(i * TILE_KEYS + s * PAGE_TOKENS + thread_index()) / 4u][thread_index() % 4u] = weight;
            part += weight;
        }
        part = subgroupAdd(part);
        if (subgroupElect()) tile_sum[i * (WORKGROUP / 4) + gl_SubgroupID] = part;
    }
    barrier();
    [[unroll]] for (uint i = 0; i < QUERIES; ++i) {
        float total = 0;
        for (uint s = 0; s < gl_NumSubgroups; ++s) total += tile_sum[i * (WORKGROUP / 4) + s];
        sum[i] = fma(sum[i], rescale[i], total);
    }
}
