// Which kernel makes a matrix product: the tiers of shaders/tiers.h, and which product is given to which.
#pragma once

#include "checkpoint/weight_format.h"
#include "tiers.h" // shaders

#include <map>
#include <string>
#include <string_view>

namespace fathom {

enum class Tier : uint8_t {
    base = TIER_BASE,
    int8 = TIER_INT8,
    tiled = TIER_TILED,
    half = TIER_HALF,
    matrix = TIER_MATRIX
};
inline constexpr Tier TIERS[] = {Tier::base, Tier::int8, Tier::tiled, Tier::half, Tier::matrix};
std::string_view name_of(Tier tier);

// "matmul_int8_q4_k"; the base tier and an absent format are left out.
std::string module_name(std::string_view kernel, Tier tier, std::string_view format = "");

// A matrix product, as far as the choice of its kernel goes. Not how many tokens it takes at once: the tokens
// of one prompt, or those of all that is generated, are computed alike in whatever company.
struct Product {
    std::string kernel;          // "matmul", "moe_up", "moe_down", "expanded_attention", "cached_attention"
    Format format = Format::f32; // of the weights; of attention: of the keys and values, or what is like it
    uint32_t n_out = 0, n_in = 0;
    bool prefill = false;
    auto operator<=>(const Product&) const = default;
    std::string text() const; // "matmul q4_k 2048 x 1408, prefill"
};

// A kernel for a product: its tier and, where lanes make the dot products, how many share one.
struct Variant {
    Tier tier = Tier::base;
    uint32_t lanes = 0; // 0: Caps::k_lanes
    Variant() = default;
    Variant(Tier t, uint32_t n = 0) : tier(t), lanes(n) {} // implicit: a tier as it comes
    auto operator<=>(const Variant&) const = default;
    std::string text() const; // "int8", "int8/16"
};

class Tiers {
  public:
    Tiers() = default; // base for everything
    explicit Tiers(Variant always) : Tiers(always, always) {}
    Tiers(Variant decode, Variant prefill) : decode_(decode), prefill_(prefill) {}
    void set(const Product& product, Variant variant) { chosen_[product] = variant; }
    Variant of(const Product& product) const {
        const auto it = chosen_.find(product);
        return it != chosen_.end() ? it->second : product.prefill ? prefill_ : decode_;
    }

  private:
    Variant decode_, prefill_; // of what was not chosen; where they cannot be, base
    std::map<Product, Variant> chosen_;
};

} // namespace fathom
