// Encoding into block formats. Every group of a block gets the scale (and minimum) of the least squared
// error: candidates around the one that just covers its largest value are rounded to levels, and the best
// scale for those levels is that of linear regression. The block's d is then chosen so that the largest scale
// uses its whole range, each group takes the best of the nearby small integers, and d (with dmin) is fitted
// once more to the whole block. Errors are not weighted: nothing is known here of what a weight will be
// multiplied with.
//
// Sums run in four lanes and a fixed order, so results are the same bits on every machine.
#include "checkpoint/block_layout.h"
#include "checkpoint/blocks.h"

#include "base/error.h"
#include "base/numbers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

namespace fathom {

namespace {

using Lanes = float __attribute__((vector_size(16)));
constexpr uint32_t lanes = 4;

float sum(Lanes v) { return (v[0] + v[2]) + (v[1] + v[3]); }
Lanes all(float v) { return Lanes{v, v, v, v}; }

// What a code can stand for before it is scaled: nearest() is the level next to each value.
struct UniformLevels {
    Lanes first, last;
    float edge, edge_gap; // the level for the value farthest from zero, and how far the next one is
    explicit UniformLevels(const BlockLayout& layout)
        : first(all(layout.codes.first)), last(all(layout.codes.last)),
          edge(layout.codes.first < 0 ? layout.codes.first : layout.codes.last), edge_gap(1) {}
    Lanes nearest(Lanes v) const {
        v = v < first ? first : v;
        v = v > last ? last : v;
        return v + 0x1.8p23f - 0x1.8p23f; // rounds to even
    }
};

struct TableLevels {
    Lanes lowest, middle[15], step[15];
    float edge, edge_gap;
    explicit TableLevels(const BlockLayout& layout) {
        int8_t sorted[16];
        std::copy_n(layout.levels, 16, sorted);
        std::sort(sorted, sorted + 16);
        lowest = all(sorted[0]);
        for (int i = 0; i < 15; ++i) {
            step[i] = all(static_cast<float>(sorted[i + 1] - sorted[i]));
            middle[i] = all(static_cast<float>(sorted[i + 1] + sorted[i]) / 2);
        }
        edge = sorted[0], edge_gap = step[0][0];
    }
    Lanes nearest(Lanes v) const {
        Lanes level = lowest;
        for (int i = 0; i < 15; ++i) level += v > middle[i] ? step[i] : Lanes{};
        return level;
    }
};

// A group of values, and what all fits of it need.
struct Group {
    const Lanes* x;
    uint32_t quads;
    float lowest = INFINITY, highest = -INFINITY, total = 0; // total: of all x

    Group(const Lanes* values, uint32_t count) : x(values), quads(count / lanes) {
        Lanes low = x[0], high = x[0], sums{};
        for (uint32_t i = 0; i < quads; ++i) {
            low = x[i] < low ? x[i] : low;
            high = x[i] > high ? x[i] : high;
            sums += x[i];
        }
        for (uint32_t i = 0; i < lanes; ++i)
            lowest = std::min(lowest, low[i]), highest = std::max(highest, high[i]);
        total = sum(sums);
    }
    float count() const { return static_cast<float>(quads * lanes); }
    float farthest() const { return -lowest > highest ? lowest : highest; } // from zero
};

enum class Min : uint8_t { none, any, not_negative };

// x is nearly scale * level - min. `gain` is the part of the sum of x^2 that this explains.
struct Fit {
    float scale = 0, min = 0, gain = -INFINITY;
};

// The levels next to (x + min) * inverse, and the best scale and min for them.
template <class Levels>
Fit regression(const Group& group, const Levels& levels, float inverse, float min, Min kind) {
    Lanes sum_q{}, sum_qq{}, sum_xq{};
    for (uint32_t i = 0; i < group.quads; ++i) {
        const Lanes q = levels.nearest((group.x[i] + min) * inverse);
        sum_q += q, sum_qq += q * q, sum_xq += group.x[i] * q;
    }
    const float n = group.count(), q = sum(sum_q), qq = sum(sum_qq), xq = sum(sum_xq);
    if (qq == 0) return {};
    Fit fit{xq / qq, 0, 0};
    const float determinant = n * qq - q * q;
    if (kind != Min::none && determinant > 0) {
        const float scale = (n * xq - group.total * q) / determinant;
        const float best = (scale * q - group.total) / n;
        if (kind == Min::any || best > 0) fit = {scale, best, 0};
    }
    if (kind == Min::not_negative && fit.scale < 0) return {};
    fit.gain = fit.scale * xq - fit.min * group.total;
    return fit;
}

// The best fit of one group, its scale unrestricted.
template <class Levels> Fit best_fit(const Group& group, const Levels& levels, Min kind) {
    const float lowest = kind == Min::not_negative ? std::min(group.lowest, 0.0f) : group.lowest;
    const float range = kind == Min::none ? group.farthest() : group.highest - lowest;
    const float min = kind == Min::none ? 0 : -lowest;
    if (!(std::fabs(range) >= 0x1p-100f)) return {0, min, 0};
    Fit best;
    for (int step = -3; step <= 3; ++step) {
        const float inverse = (levels.edge + 0.3f * levels.edge_gap * static_cast<float>(step)) / range;
        const Fit fit = regression(group, levels, inverse, min, kind);
        if (fit.gain > best.gain) best = fit;
    }
    for (int round = 0; round < 2 && best.scale != 0; ++round) {
        const Fit fit = regression(group, levels, 1 / best.scale, best.min, kind);
        if (fit.gain > best.gain) best = fit;
    }
    return best;
}

float inverse_of(float scale) { return std::fabs(scale) >= 0x1p-100f ? 1 / scale : 0; }

template <class Levels>
float squared_error(const Group& group, const Levels& levels, float scale, float min) {
    const float inverse = inverse_of(scale);
    Lanes errors{};
    for (uint32_t i = 0; i < group.quads; ++i) {
        const Lanes q = levels.nearest((group.x[i] + min) * inverse);
        const Lanes error = group.x[i] - (q * scale - min);
        errors += error * error;
    }
    return sum(errors);
}

float as_half(float value) { return f16_to_f32(f32_to_f16(std::clamp(value, -65504.0f, 65504.0f))); }

// Where halves are coarse, or no half is left but zero, away from zero: smaller codes make up for a scale
// that is too large, nothing does for one that is too small.
float scale_as_half(float value) {
    const float half = as_half(value);
    if (std::fabs(half) >= std::fabs(value) || std::fabs(value) >= 0x1p-14f) return half;
    return std::copysign(std::fabs(half) + 0x1p-24f, value);
}

// One block on its way to its parts.
template <class Levels> class BlockEncoder {
  public:
    BlockEncoder(DType dtype, const BlockLayout& layout, const Levels& levels)
        : dtype_(dtype), layout_(layout), levels_(levels), groups_(block_of(dtype) / layout.group),
          kind_(!layout.has_min()     ? Min::none
                : layout.has_scales() ? Min::not_negative
                                      : Min::any) {
        for (int number = layout.codes.last; number >= layout.codes.first; --number) {
            const auto code = static_cast<uint8_t>(layout.codes.stored(number));
            code_of_[static_cast<uint8_t>(layout.level(code))] = code; // of two codes for a level the lower
        }
    }

    void encode(const float* from, std::byte* block) {
        std::memcpy(x_, from, block_of(dtype_) * sizeof(float));
        if (dtype_ == DType::mxfp4)
            choose_power();
        else
            choose_scales();
        for (uint32_t g = 0; g < groups_; ++g) store_codes(g);
        pack_block(dtype_, parts_, block);
    }

  private:
    std::span<Lanes> values() { return {x_, block_of(dtype_) / lanes}; }
    Group group(uint32_t g) const { return {x_ + g * layout_.group / lanes, layout_.group}; }
    float scale(uint32_t g) const { return parts_.d * static_cast<float>(parts_.scales[g]); }
    float min(uint32_t g) const { return parts_.dmin * static_cast<float>(parts_.mins[g]); }

    // MXFP4's scales are powers of two: the best of those around the one that covers all values. Values are
    // brought near 1 first, so that no square over- or underflows.
    void choose_power() {
        parts_.scales[0] = 1, parts_.mins[0] = 0, parts_.d = 0, parts_.dmin = 0;
        const float covering = std::fabs(group(0).farthest() / levels_.edge);
        if (covering < 0x1p-120f) return;
        const int exponent = std::ilogb(covering);
        for (Lanes& x : values()) x *= std::ldexp(1.0f, -exponent);
        float least = INFINITY, best = 1;
        for (const float power : {0.5f, 1.0f, 2.0f}) {
            const float error = squared_error(group(0), levels_, power, 0);
            if (error < least) least = error, best = power;
        }
        for (Lanes& x : values()) x *= std::ldexp(1.0f, exponent);
        parts_.d = std::min(std::ldexp(best, exponent), 0x1p124f); // 12 times that is finite
    }

    void choose_scales() {
        // More than any block holds, and far from where sums of squares overflow.
        for (Lanes& x : values()) x = x > 0x1p30f ? all(0x1p30f) : x < -0x1p30f ? all(-0x1p30f) : x;
        Fit fits[largest_groups];
        for (uint32_t g = 0; g < groups_; ++g) fits[g] = best_fit(group(g), levels_, kind_);
        if (!layout_.has_scales()) {
            parts_.d = scale_as_half(fits[0].scale), parts_.dmin = as_half(-fits[0].min);
            parts_.scales[0] = 1, parts_.mins[0] = layout_.has_min() ? -1 : 0;
            // The steps of a coarse scale may be worse than none.
            const float least = min(0);
            if (squared_error(group(0), levels_, parts_.d, least) >
                squared_error(group(0), levels_, 0, least))
                parts_.d = 0;
            return;
        }
        float widest = 0, deepest = 0;
        for (uint32_t g = 0; g < groups_; ++g) {
            if (std::fabs(fits[g].scale) > std::fabs(widest)) widest = fits[g].scale;
            deepest = std::max(deepest, fits[g].min);
        }
        const int edge = layout_.scales.first < 0 ? layout_.scales.first : layout_.scales.last;
        parts_.d = scale_as_half(widest / static_cast<float>(edge));
        parts_.dmin = scale_as_half(deepest / static_cast<float>(layout_.scales.last));
        for (uint32_t g = 0; g < groups_; ++g) {
            parts_.scales[g] = nearest_scale(fits[g].scale * inverse_of(parts_.d));
            parts_.mins[g] = layout_.has_min() ? nearest_scale(fits[g].min * inverse_of(parts_.dmin)) : 0;
        }
        improve();
    }

    int16_t nearest_scale(float number) const {
        return static_cast<int16_t>(std::lrint(std::clamp(number, static_cast<float>(layout_.scales.first),
                                                          static_cast<float>(layout_.scales.last))));
    }

    // Takes for each group the best of the integers around its scale and min, fits d and dmin to all, and
    // once more.
    void improve() {
        float error = settle();
        for (int round = 0; round < 2; ++round) {
            const BlockParts before = parts_;
            refit();
            const float now = settle();
            if (!(now < error)) {
                parts_ = before;
                return;
            }
            error = now;
        }
    }

    float settle() {
        float total = 0;
        for (uint32_t g = 0; g < groups_; ++g) {
            const Group values = group(g);
            const int16_t scale_at = parts_.scales[g], min_at = parts_.mins[g];
            const int reach = layout_.has_min() ? 1 : 0;
            float least = squared_error(values, levels_, scale(g), min(g));
            for (int ds = -1; ds <= 1; ++ds)
                for (int dm = -reach; dm <= reach; ++dm) {
                    const int s = scale_at + ds, m = min_at + dm;
                    if (s < layout_.scales.first || s > layout_.scales.last || m < 0 ||
                        m > layout_.scales.last)
                        continue;
                    const float error = squared_error(values, levels_, parts_.d * static_cast<float>(s),
                                                      parts_.dmin * static_cast<float>(m));
                    if (error < least) {
                        least = error;
                        parts_.scales[g] = static_cast<int16_t>(s), parts_.mins[g] = static_cast<int16_t>(m);
                    }
                }
            total += least;
        }
        return total;
    }

    // d and dmin by regression of x on a = scale * level and b = -min.
    void refit() {
        float aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
        for (uint32_t g = 0; g < groups_; ++g) {
            const Group values = group(g);
            const float inverse = inverse_of(scale(g)), s = parts_.scales[g], b = -parts_.mins[g];
            Lanes sum_q{}, sum_qq{}, sum_xq{};
            for (uint32_t i = 0; i < values.quads; ++i) {
                const Lanes q = levels_.nearest((values.x[i] + min(g)) * inverse);
                sum_q += q, sum_qq += q * q, sum_xq += values.x[i] * q;
            }
            aa += s * s * sum(sum_qq), ab += s * b * sum(sum_q), bb += b * b * values.count();
            xa += s * sum(sum_xq), xb += b * values.total;
        }
        const float determinant = aa * bb - ab * ab;
        if (determinant > 0) {
            parts_.d = scale_as_half((xa * bb - xb * ab) / determinant);
            parts_.dmin = scale_as_half((xb * aa - xa * ab) / determinant);
        } else if (aa > 0) {
            parts_.d = scale_as_half(xa / aa);
        }
    }

    void store_codes(uint32_t g) {
        const Group values = group(g);
        const float inverse = inverse_of(scale(g)), least = min(g);
        for (uint32_t i = 0; i < values.quads; ++i) {
            const Lanes q = levels_.nearest((values.x[i] + least) * inverse);
            for (uint32_t lane = 0; lane < lanes; ++lane)
                parts_.codes[g * layout_.group + i * lanes + lane] =
                    code_of_[static_cast<uint8_t>(static_cast<int>(q[lane]))];
        }
    }

    DType dtype_;
    const BlockLayout& layout_;
    const Levels& levels_;
    uint32_t groups_;
    Min kind_;
    uint8_t code_of_[256] = {}; // of a level, as a signed byte
    Lanes x_[largest_block / lanes];
    BlockParts parts_;
};

template <class Bits>
void convert_each(std::span<const float> values, std::byte* stored, float largest, Bits (&from_f32)(float)) {
    for (size_t i = 0; i < values.size(); ++i) {
        const Bits bits = from_f32(std::clamp(values[i], -largest, largest));
        std::memcpy(stored + i * sizeof bits, &bits, sizeof bits);
    }
}

template <class Levels>
void encode_all(DType dtype, std::span<const float> values, std::span<std::byte> stored) {
    const BlockLayout& layout = layout_of(dtype);
    const Levels levels(layout);
    BlockEncoder<Levels> encoder(dtype, layout, levels);
    const uint64_t block = block_of(dtype);
    for (uint64_t b = 0; b < values.size() / block; ++b)
        encoder.encode(values.data() + b * block, stored.data() + b * bytes_of(dtype));
}

} // namespace

uint64_t finite_values(std::span<const float> values) {
    uint64_t at = 0;
    while (at < values.size() && std::isfinite(values[at])) ++at;
    return at;
}

void encode_blocks(DType dtype, std::span<const float> values, std::span<std::byte> stored) {
    check(values.size() % block_of(dtype) == 0 &&
              stored.size() == values.size() / block_of(dtype) * bytes_of(dtype),
          "the blocks to encode are those of the values");
    check(finite_values(values) == values.size(), "values to encode are finite");
    if (dtype == DType::f32) {
        if (!values.empty()) std::memcpy(stored.data(), values.data(), stored.size());
        return;
    }
    if (dtype == DType::f16) return convert_each(values, stored.data(), 65504, f32_to_f16);
    if (dtype == DType::bf16) return convert_each(values, stored.data(), 0x1.FEp127f, f32_to_bf16);
    if (layout_of(dtype).levels)
        encode_all<TableLevels>(dtype, values, stored);
    else
        encode_all<UniformLevels>(dtype, values, stored);
}

} // namespace fathom
