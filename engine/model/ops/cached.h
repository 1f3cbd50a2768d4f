// Attention over the cache in parts, which latent and plain attention share: shaders/cached_attention.comp.
#pragma once

#include "model/ops/ops.h"

#include <functional>

namespace fathom {

constexpr uint32_t ATTENTION_TILE_PAGES = 4; // keys of a tile, in pages; see shaders/softmax.glsl

// Rows [first, last) of a step, of at most `most` together, and what `parts` ranges of the cache sum up to
// for each of their heads.
struct JoinedRows {
    uint32_t first, last, most, parts;
    View partial;
};
// SUMS of shaders/attention_lanes.glsl. More read past the end of few keys and short values for nothing.
uint32_t attention_sums(const gpu::Caps& caps);

// q (T, heads, key floats) as absorb or kv_write leaves them. Adds the launches for as many rows at a time as
// `partial` holds, each followed by what `join` adds.
void cached_attention(Plan& plan, const std::string& label, const StepMemory& step,
                      const AttentionShape& shape, View q, View cache, View partial,
                      const std::function<void(const JoinedRows&)>& join);

} // namespace fathom
