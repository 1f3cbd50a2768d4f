// Searches among logits: four at a time of a row in memory, or of this workgroup's tile. They never sort: few
// are ranked, and a radix search finds where to cut, over the floats' bit patterns in their order. Wants
// WORKGROUP 256, a bin each.
const uint TILE_QUADS = SAMPLE_TILE / 4, AT_ONCE = TILE_QUADS / WORKGROUP; // quads of an invocation at a time
shared vec4 tile[TILE_QUADS]; // padded with LOWEST
shared uint bin_low[256], bin_high[256];
shared uint found;         // by one invocation, for all
shared float found_above;
shared uint list_count;
shared uint list_at[WORKGROUP], best_at[MAX_CANDIDATES];
shared float list_logit[WORKGROUP], best_logit[MAX_CANDIDATES]; // of best_at: sorted

bool in_tile;   // what is searched: the tile, or the row in memory
uvec2 searched; // that row
uint n_quads;   // of either

// Those of this invocation from quad `first` on, AT_ONCE of them; past the end LOWEST.
void load_quads(uint first, out vec4 z[AT_ONCE]) {
    [[unroll]] for (uint k = 0; k < AT_ONCE; ++k) {
        const uint q = first + k * WORKGROUP + thread_index();
        z[k] = vec4(LOWEST);
        if (q >= n_quads) continue;
        if (in_tile) z[k] = tile[q];
        else z[k] = SharedVec4(searched).v[q];
    }
}

// Bit patterns in the order of the floats.
uint order(float x) {
    const uint bits = floatBitsToUint(x);
    return (bits & 0x80000000u) != 0u ? ~bits : bits | 0x80000000u;
}
uint above_masked() { return order(LOWEST) + 1u; }

float weight_of(float z, float largest, float inv_temperature) {
    return exp((z - largest) * inv_temperature);
}

// The bins count in integers of 64 bits, so that what they hold does not depend on who comes first.
void count(uint bin, uint amount) {
    const uint before = atomicAdd(bin_low[bin], amount);
    if (before + amount < before) atomicAdd(bin_high[bin], 1u);
}

// Adds up the bins from the highest down, to `above`, and finds the first where that reaches `target`, or the
// lowest; `above` then is of those higher than it.
uint bin_that_reaches(float target, inout float above) {
    const uint i = thread_index(), bin = 255u - i;
    float sum = subgroupInclusiveAdd(float(bin_high[bin]) * 4294967296.0 + float(bin_low[bin]));
    if (gl_SubgroupInvocationID == gl_SubgroupSize - 1u) reduce_parts[gl_SubgroupID] = sum;
    barrier();
    float before = above;
    for (uint s = 0; s < gl_SubgroupID; ++s) before += reduce_parts[s];
    sum += before;
    if (sum >= target) atomicMin(found, i);
    barrier();
    const uint first = min(found, 255u);
    if (i + 1u == first) found_above = sum;
    barrier();
    if (first != 0u) above = found_above;
    return 255u - first;
}

// The largest order() such that the logits from it on reach `target`: each counts for 1 or, given a
// temperature, for 2^31 times its weight. Those below `least` do not count.
uint edge_at(float target, uint least, float largest, float inv_temperature) {
    uint prefix = 0, decided = 0;
    float above = 0;
    for (uint shift = 32u; shift != 0u;) {
        shift -= 8u;
        barrier(); // what was found has been read
        bin_low[thread_index()] = bin_high[thread_index()] = 0u;
        if (thread_index() == 0u) found = 256u;
        barrier();
        for (uint first = 0; first < n_quads; first += TILE_QUADS) {
            vec4 z[AT_ONCE];
            load_quads(first, z);
            [[unroll]] for (uint k = 0; k < AT_ONCE; ++k)
                [[unroll]] for (uint i = 0; i < 4u; ++i) {
                    const uint o = order(z[k][i]);
                    if (o < least || (o & decided) != prefix) continue;
                    uint amount = 1u;
                    if (inv_temperature > 0.0)
                        amount = uint(weight_of(z[k][i], largest, inv_temperature) * 2147483648.0);
                    count((o >> shift) & 255u, amount);
                }
        }
        barrier();
        prefix |= bin_that_reaches(target, above) << shift;
        decided |= 255u << shift;
    }
    return prefix;
}

// An order() that at least FLOOR_GROUPS of the tile's logits reach, and of most tiles few others: the least
// of the largest of so many groups.
const uint FLOOR_GROUPS = 32; // at least MAX_CANDIDATES
uint floor_of_best() {
    const uint i = thread_index(), members = WORKGROUP / FLOOR_GROUPS;
    vec4 z[AT_ONCE];
    load_quads(0u, z);
    uint largest = 0u;
    [[unroll]] for (uint k = 0; k < AT_ONCE; ++k)
        [[unroll]] for (uint j = 0; j < 4u; ++j) largest = max(largest, order(z[k][j]));
    bin_low[i] = largest;
    if (i == 0u) {
        found = 0xFFFFFFFFu;
        list_count = 0u;
    }
    barrier();
    if (i < FLOOR_GROUPS) {
        largest = 0u;
        for (uint k = 0; k < members; ++k) largest = max(largest, bin_low[i * members + k]);
        atomicMin(found, largest);
    }
    barrier();
    return found;
}

// Adds the tile's logits from `least` on to the list, as far as they fit, in any order.
void list_from(uint least) {
    vec4 z[AT_ONCE];
    load_quads(0u, z);
    uint hits = 0u; // a bit each: most invocations have none or one
    [[unroll]] for (uint k = 0; k < AT_ONCE; ++k)
        [[unroll]] for (uint i = 0; i < 4u; ++i)
            if (order(z[k][i]) >= least) hits |= 1u << (4u * k + i);
    for (; hits != 0u; hits &= hits - 1u) {
        const uint hit = findLSB(hits), slot = atomicAdd(list_count, 1u);
        if (slot >= WORKGROUP) break;
        const uint at = 4u * (hit / 4u * WORKGROUP + thread_index()) + hit % 4u;
        list_at[slot] = at;
        list_logit[slot] = tile[at / 4u][at % 4u];
    }
    barrier();
}

// Of the tile's logits that equal the edge, the lowest `from` on; SAMPLE_TILE: none.
uint next_at_edge(uint edge, uint from) {
    barrier();
    if (thread_index() == 0u) found = SAMPLE_TILE;
    barrier();
    vec4 z[AT_ONCE];
    load_quads(0u, z);
    uint lowest = SAMPLE_TILE;
    [[unroll]] for (uint k = 0; k < AT_ONCE; ++k)
        [[unroll]] for (uint i = 0; i < 4u; ++i) {
            const uint at = 4u * (k * WORKGROUP + thread_index()) + i;
            if (at >= from && order(z[k][i]) == edge) lowest = min(lowest, at);
        }
    if (lowest != SAMPLE_TILE) atomicMin(found, lowest);
    barrier();
    return found;
}

// Lists the `wanted` largest logits of the tile, of those from `least` on, which are too many to rank.
void list_at_edge(uint wanted, uint least) {
    const uint edge = edge_at(float(wanted), least, 0.0, 0.0);
    if (thread_index() == 0u) list_count = 0u;
    barrier();
    if (edge != 0xFFFFFFFFu) list_from(edge + 1u); // nothing is above that, which a NaN may have
    for (uint slot = list_count, from = 0; slot < wanted; ++slot) {
        const uint at = next_at_edge(edge, from);
        if (thread_index() == 0u) {
            list_at[slot] = at;
            list_logit[slot] = tile[at / 4u][at % 4u];
        }
        from = at + 1u;
    }
    barrier();
}

// The `wanted` largest logits of the tile and where they are, sorted; the first one of equals comes first.
// Masked ones are as good as each other.
void find_best(uint wanted) {
    const uint i = thread_index();
    in_tile = true;
    n_quads = TILE_QUADS;
    const uint least = max(floor_of_best(), above_masked());
    list_from(least);
    uint n = list_count;
    if (n > WORKGROUP) {
        list_at_edge(wanted, least);
        n = wanted;
    }
    if (i >= n && i < wanted) {
        best_at[i] = 0u;
        best_logit[i] = LOWEST;
    }
    if (i < n) {
        const uint at = list_at[i], mine = order(list_logit[i]);
        uint rank = 0;
        for (uint k = 0; k < n; ++k) { // by order(), in which what is no number has a place, too
            const uint other = order(list_logit[k]);
            if (other > mine || (other == mine && list_at[k] < at)) ++rank;
        }
        if (rank < wanted) {
            best_at[rank] = at;
            best_logit[rank] = list_logit[i];
        }
    }
    barrier();
}
