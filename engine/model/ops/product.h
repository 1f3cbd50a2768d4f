// How a matrix product is launched in each tier.
#pragma once

#include "model/ops/ops.h"

#include <vector>

namespace fathom {

// Whether this program and this device can make the product so. Throws nothing; the reason is the caller's to
// find: see Caps.
bool is_possible(Tier tier, const Product& product, const gpu::Caps& caps);
// How far a tier's results may be from the reference's: the largest difference over the largest value.
double error_limit(Tier tier);
// What the plan's tiers say, or the base tier where that is not possible.
Variant variant_for(const Plan& plan, const Product& product);
inline Tier tier_for(const Plan& plan, const Product& product) { return variant_for(plan, product).tier; }
// What Variant::lanes may be, 0 first. How many lanes share a dot product is a choice for one token on a GPU:
// more lanes keep more of a small matrix on its way at a time, fewer norm and quantise the activations less
// often.
std::vector<uint32_t> lanes_to_try(Tier tier, bool prefill, const gpu::Caps& caps);
// All that are possible, the base tier's as it comes first.
std::vector<Variant> variants_of(const Product& product, const gpu::Caps& caps);

// The products of expanded_attention, and of cached_attention over latents: queries with keys, and what they
// weigh with values.
Product expanded_product(const AttentionShape& shape, bool prefill);
Product cached_product(const AttentionShape& shape, uint32_t cache_format, bool prefill);

// Tokens of a tile whose sums lanes keep in registers, at most.
uint32_t most_lane_tokens(const gpu::Caps& caps);

// What a launch is to do with a product.
struct Work {
    uint32_t parts = 1;   // matrices at once
    uint32_t tokens = 1;  // of a tile, at most
    bool normed = false;  // x, as it is read
    uint32_t experts = 1; // that do it side by side
};
struct ProductLaunch {
    Tier tier = Tier::base;
    std::vector<uint32_t> constants;
    uint32_t blocks = 0; // workgroups along the rows
    uint32_t tokens = 0; // of a workgroup
};
ProductLaunch launch_for(const Plan& plan, const Product& product, const Work& work);
// The same, noted in the plan as the product of the op that is added next.
ProductLaunch launch_of(Plan& plan, const Product& product, const Work& work);

} // namespace fathom
