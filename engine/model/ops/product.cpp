#include "model/ops/product.h"

#include "base/error.h"
#include "base/numbers.h"
#include "gpu/modules.h"
#include "model/ops/reference.h"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

namespace fathom {

namespace {

constexpr uint32_t BLOCK_ROWS = 128;          // of a workgroup of shaders/block.glsl
constexpr uint32_t LEAST_TOKENS = 16;         // of its tiles
constexpr uint32_t SPAN = 32;                 // terms that it takes at a time
constexpr uint32_t INT8_SPAN_BYTES = 44;      // of shared memory; see shaders/int8.glsl
constexpr uint32_t INT8_SHARED_BYTES = 16384; // that leave room for more than one workgroup

bool is_attention(const Product& product) { return product.kernel.ends_with("_attention"); }

// Whether the product has a kernel of this tier: which formats do, its shader says, and the build.
bool is_built(Tier tier, const Product& product) {
    const std::string name =
        module_name(product.kernel, tier, is_attention(product) ? "" : name_of(product.format));
    const auto all = gpu::modules();
    return std::any_of(all.begin(), all.end(),
                       [&](const gpu::Module& module) { return module.name == name; });
}

// Of the shapes that a subgroup multiplies, the largest that tiles are made of; null: there is none.
const gpu::MatrixShape* matrix_shape(const gpu::Caps& caps) {
    const gpu::MatrixShape* best = nullptr;
    for (const gpu::MatrixShape& s : caps.matrices) {
        const bool fits = s.types == "f16_f32" && s.m % 2 == 0 && caps.subgroup_size % s.m == 0 &&
                          LEAST_TOKENS % s.n == 0 && s.k % 4 == 0 && SPAN % s.k == 0;
        if (fits && (!best || s.m * s.n * s.k > best->m * best->n * best->k)) best = &s;
    }
    return caps.pinned_subgroups && BLOCK_ROWS % caps.subgroup_size == 0 ? best : nullptr;
}

uint32_t most_tokens(Tier tier, const gpu::Caps& caps, bool attention) { // of a tile: by what a lane keeps
    if (caps.registers < (tier == Tier::half || attention ? 256u : 128u)) return LEAST_TOKENS;
    return tier == Tier::matrix && caps.registers >= 256 ? 64 : 32;
}

// Of a workgroup of shaders/block.glsl, or of attention_block.glsl, which includes it.
uint32_t shared_bytes(Tier tier, const Product& product, uint32_t tokens) {
    const bool matrix = tier == Tier::matrix, attention = is_attention(product);
    const uint32_t cell = tier == Tier::tiled ? 16 : 8, stride = matrix ? 10 : 9, spans = attention ? 4 : 1;
    uint32_t bytes = (BLOCK_ROWS + spans * tokens) * stride * cell + (matrix ? BLOCK_ROWS * 32 : 0);
    if (attention) bytes += tokens * 4 * (8 + 8 + 2) + (matrix ? tokens * 4 * (BLOCK_ROWS + 4) : 0);
    return bytes;
}

ProductLaunch block_launch(Tier tier, const gpu::Caps& caps, const Product& product, uint32_t rows,
                           uint32_t tokens) {
    // Two workgroups of 32 KiB hide each other's latency; but matrices are made so fast that what is read for
    // them counts for more.
    const uint32_t room = tier == Tier::matrix ? caps.shared_bytes : std::min(caps.shared_bytes, 32768u);
    uint32_t tile =
        std::clamp(std::bit_ceil(tokens), LEAST_TOKENS, most_tokens(tier, caps, is_attention(product)));
    while (tile > LEAST_TOKENS && shared_bytes(tier, product, tile) > room) tile /= 2;
    ProductLaunch launch{tier, {tile}, div_up(rows, BLOCK_ROWS), tile};
    if (tier != Tier::matrix) return launch;
    const gpu::MatrixShape& shape = *matrix_shape(caps);
    launch.constants = {tile, caps.subgroup_size, shape.m, shape.n, shape.k};
    return launch;
}

// Rows of a group of lanes: few where a lane has few registers, or many tokens. A CPU norms and reads an
// activation for all of its lanes and their rows at once: the more the better, but each core is to have work.
uint32_t lane_rows(const gpu::Caps& caps, uint32_t all_rows, uint32_t parts, uint32_t tokens) {
    if (tokens > 4) return 2;
    if (caps.cpu && tokens == 1)
        return caps.cores == 1 || all_rows * caps.k_lanes / (4 * WORKGROUP) >= 2 * caps.cores ? 4 : 2;
    if (parts == 2) return caps.registers >= 256 || (caps.registers >= 128 && tokens < 4) ? 2 : 1;
    if (caps.registers < 128) return 1;
    return caps.registers >= 256 && tokens == 4 ? 4 : 2;
}

ProductLaunch lanes_launch(const Variant& variant, const gpu::Caps& caps, const Product& product,
                           const Work& work) {
    const Tier tier = variant.tier;
    const uint32_t lanes = variant.lanes ? variant.lanes : caps.k_lanes;
    uint32_t tile = std::min(std::bit_floor(work.tokens), most_lane_tokens(caps));
    const uint32_t spans = div_up(product.n_in, SPAN);
    while (tier == Tier::int8 && tile > 1 && tile * spans * INT8_SPAN_BYTES > INT8_SHARED_BYTES) tile /= 2;
    const uint32_t rows = std::min(lane_rows(caps, product.n_out * work.experts, work.parts, tile),
                                   tier == Tier::int8 ? 2u : 4u);
    ProductLaunch launch{
        tier, {lanes, rows, tile, work.normed}, div_up(product.n_out, rows * WORKGROUP / lanes), tile};
    if (tier == Tier::int8) launch.constants.push_back(spans);
    return launch;
}

} // namespace

uint32_t most_lane_tokens(const gpu::Caps& caps) { return caps.registers >= 512 ? 8 : 4; }

std::string_view name_of(Tier tier) {
    constexpr std::string_view names[] = {"base", "int8", "tiled", "half", "matrix"};
    return names[static_cast<size_t>(tier)];
}

Product expanded_product(const AttentionShape& shape, bool prefill) {
    return {"expanded_attention", Format::f32, shape.value_dim, shape.nope_dim + shape.rope_dim, prefill};
}

Product cached_product(const AttentionShape& shape, uint32_t cache_format, bool prefill) {
    const Format format = cache_format == CACHE_F32   ? Format::f32
                          : cache_format == CACHE_F16 ? Format::f16
                                                      : Format::q8_0;
    return {"cached_attention", format, shape.latent_dim, shape.key_floats(), prefill};
}

std::string module_name(std::string_view kernel, Tier tier, std::string_view format) {
    std::string name(kernel);
    if (tier != Tier::base) name += fmt::format("_{}", name_of(tier));
    if (!format.empty()) name += fmt::format("_{}", format);
    return name;
}

std::string Variant::text() const {
    return std::string(name_of(tier)) + (lanes ? fmt::format("/{}", lanes) : "");
}

std::string Product::text() const {
    return fmt::format("{} {} {} x {}, {}", kernel, name_of(format), n_out, n_in,
                       prefill ? "prefill" : "decode");
}

bool is_possible(Tier tier, const Product& product, const gpu::Caps& caps) {
    if (tier == Tier::base) return true;
    if (!is_built(tier, product)) return false;
    switch (tier) {
    case Tier::int8:
        return caps.int8_dot && product.n_in % SPAN == 0 &&
               product.n_in / SPAN * INT8_SPAN_BYTES <= caps.shared_bytes;
    case Tier::half:
        if (!caps.float16) return false;
        break;
    case Tier::matrix:
        if (!caps.float16 || !matrix_shape(caps)) return false;
        break;
    default:
        break;
    }
    // Tiles are for many rows: of a prompt, or all heads that share a key.
    return (product.prefill || is_attention(product)) &&
           shared_bytes(tier, product, LEAST_TOKENS) <= caps.shared_bytes;
}

double error_limit(Tier tier) {
    switch (tier) {
    case Tier::int8:
        return 3e-2; // activations of 8 bits
    case Tier::half:
        return 1e-2; // sums of 32 products in f16
    case Tier::matrix:
        return 3e-3; // factors in f16
    default:
        return 1e-4; // f32
    }
}

Variant variant_for(const Plan& plan, const Product& product) {
    const Variant variant = plan.tiers().of(product);
    return is_possible(variant.tier, product, plan.caps()) ? variant : Variant();
}

std::vector<uint32_t> lanes_to_try(Tier tier, bool prefill, const gpu::Caps& caps) {
    std::vector<uint32_t> all{0};
    if (tier > Tier::int8 || prefill || caps.cpu) return all;
    const uint32_t most = std::min(caps.subgroup_size, uint32_t{WORKGROUP});
    for (uint32_t lanes = 2 * caps.k_lanes; lanes <= most; lanes *= 2) all.push_back(lanes);
    return all;
}

std::vector<Variant> variants_of(const Product& product, const gpu::Caps& caps) {
    std::vector<Variant> all;
    for (const Tier tier : TIERS)
        if (is_possible(tier, product, caps))
            for (const uint32_t lanes : lanes_to_try(tier, product.prefill || is_attention(product), caps))
                all.emplace_back(tier, lanes);
    return all;
}

ProductLaunch launch_for(const Plan& plan, const Product& product, const Work& work) {
    const Variant variant = variant_for(plan, product);
    if (variant.tier <= Tier::int8) return lanes_launch(variant, plan.caps(), product, work);
    check(!work.normed, "tiles are made of what is normed already");
    return block_launch(variant.tier, plan.caps(), product, product.n_out * work.parts, work.tokens);
}

ProductLaunch launch_of(Plan& plan, const Product& product, const Work& work) {
    plan.note(product);
    return launch_for(plan, product, work);
}

} // namespace fathom
