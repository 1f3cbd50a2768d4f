// Patterns for random_rows; see synthetic.h.
#include "model/synthetic.h"

#include "base/error.h"
#include "base/numbers.h"
#include "checkpoint/block_layout.h"
#include "model/layout.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fathom {

namespace {

bool is_router(const TensorSpec& spec) { return spec.shape.size() > 1 && !spec.quantisable; }
bool is_embedding(const TensorSpec& spec) { return spec.name.starts_with("model.embed_tokens."); }

// What every word of a plane keeps of a random one, and what is put in.
struct Pattern {
    std::vector<uint32_t> mask, set; // repeated
};

// A random sign and mantissa under the exponent that comes next to the wished size.
Pattern plain_pattern(Format format, double rms) {
    const int exponent = static_cast<int>(std::lround(std::log2(rms / std::sqrt(7.0 / 3))));
    if (format == Format::f32) return {{0x807FFFFF}, {static_cast<uint32_t>(127 + exponent) << 23}};
    const bool half = format == Format::f16;
    const uint32_t set =
        half ? static_cast<uint32_t>(15 + exponent) << 10 : static_cast<uint32_t>(127 + exponent) << 7;
    const uint32_t mask = half ? 0x83FF : 0x807F;
    return {{mask | mask << 16}, {set | set << 16}};
}

// One block of a format, in memory, with the scales for quants that are random.
std::vector<std::byte> sample_block(Format format, double rms, uint32_t fp8_mask) {
    std::vector<std::byte> row(row_bytes(format, block_of(format)));
    if (format == Format::fp8) {
        double squares = 0;
        for (uint32_t code = 0; code < 256; ++code)
            squares += std::pow(f8_to_f32(static_cast<uint8_t>(code & fp8_mask)), 2) / 256;
        const std::vector<std::byte> codes(FP8_BLOCK);
        const auto scale = static_cast<float>(rms / std::sqrt(squares));
        pack_fp8_row(codes.data(), &scale, FP8_BLOCK, row.data());
        return row;
    }
    const DType dtype = dtype_of(format);
    const BlockLayout& layout = layout_of(dtype);
    const uint32_t codes = 1u << (layout.codes.fields[0].bits + layout.codes.fields[1].bits);
    double mean = 0, squares = 0;
    for (uint32_t code = 0; code < codes; ++code) {
        const double level = layout.level(static_cast<uint8_t>(code));
        mean += level / codes;
        squares += level * level / codes;
    }
    if (!layout.has_min()) mean = 0;
    BlockParts parts{};
    const int scale = layout.has_scales() ? std::max(1, layout.scales.last / 2) : 1,
              min = layout.has_scales() ? scale : -1;
    std::fill(std::begin(parts.scales), std::end(parts.scales), static_cast<int16_t>(scale));
    std::fill(std::begin(parts.mins), std::end(parts.mins), static_cast<int16_t>(min));
    parts.d = static_cast<float>(rms / std::sqrt(squares - mean * mean) / scale);
    parts.dmin = static_cast<float>(parts.d * scale * mean / min);
    std::vector<std::byte> block(bytes_of(dtype));
    pack_block(dtype, parts, block.data());
    pack_row(format, block.data(), block_of(format), row.data());
    return row;
}

// The pattern of each plane of a row whose weights have this root mean square.
std::vector<Pattern> patterns_of(Format format, double rms) {
    if (block_of(format) == 1) return {plain_pattern(format, rms)};
    constexpr uint32_t FP8_MASK = 0xF7; // an even exponent: no NaN
    const std::vector<std::byte> sample = sample_block(format, rms, FP8_MASK);
    std::vector<Pattern> patterns;
    for (const RowPlane& plane : planes_of_row(format, block_of(format))) {
        if (plane.quants) {
            patterns.push_back({{format == Format::fp8 ? FP8_MASK * 0x01010101u : ~0u}, {0}});
            continue;
        }
        std::vector<uint32_t> words(std::max(1u, plane.of_block / 4));
        for (uint32_t i = 0; i < 4 * words.size(); ++i)
            words[i / 4] |= std::to_integer<uint32_t>(sample[plane.at + i % plane.of_block]) << 8 * (i % 4);
        patterns.push_back({std::vector<uint32_t>(words.size()), words});
    }
    return patterns;
}

void fill_rows(const Matrix& m, uint32_t rows, const std::vector<Pattern>& patterns, uint32_t seed,
               Plan& plan) {
    const std::vector<RowPlane> planes = planes_of_row(m.format, m.cols);
    for (size_t i = 0; i < planes.size(); ++i) {
        const RowPlane& plane = planes[i];
        check(plane.used % 4 == 0 || !plane.quants, "rows of synthetic weights are whole words");
        const auto period = static_cast<uint32_t>(patterns[i].mask.size());
        RandomRows p{m.view.address,
                     rows,
                     m.row_bytes,
                     plane.at / 4,
                     plane.bytes / 4,
                     div_up(plane.used, 4u),
                     seed + static_cast<uint32_t>(i) * 0x9E3779B9u,
                     period};
        std::copy(patterns[i].mask.begin(), patterns[i].mask.end(), p.mask);
        std::copy(patterns[i].set.begin(), patterns[i].set.end(), p.set);
        random_rows(plan, "random_rows", p);
    }
}

} // namespace

DType dtype_in(const TensorSpec& spec, DType dtype) {
    if (spec.shape.size() == 1) return DType::f32;
    const bool table = is_embedding(spec) || spec.name.starts_with("lm_head.");
    if (is_router(spec) || (dtype == DType::f8_e4m3 && table)) return DType::bf16;
    if (spec.cols() % block_of(dtype) == 0) return dtype;
    return spec.cols() % block_of(DType::q8_0) == 0 ? DType::q8_0 : DType::f16;
}

void fill_target(const Target& target, const Layout& layout, const SyntheticWeights& weights, uint32_t index,
                 Plan& plan) {
    const TensorSpec& tensor = layout.tensors[target.pieces.front().tensor];
    const Matrix& m = target.shape;
    const uint32_t seed = (weights.seed * 0x9E3779B9u) ^ (index * 0x85EBCA6Bu);
    if (target.vector) {
        const float value = tensor.name.ends_with("_bias") ? 0.0f : 1.0f;
        return fill_rows(m, 1, {{{0}, {std::bit_cast<uint32_t>(value)}}}, seed, plan);
    }
    const double rms = is_embedding(tensor) ? 1 : 1 / std::sqrt(double(m.cols));
    fill_rows(m, m.rows * m.count, patterns_of(m.format, rms), seed, plan);
}

WeightSource source_of(const SyntheticWeights& weights) {
    const auto fill = [weights](const Layout& layout, Executor& executor) {
        for (size_t i = 0; i < layout.targets.size(); ++i) {
            Plan plan("synthetic weights", executor.caps(), 1);
            fill_target(layout.targets[i], layout, weights, static_cast<uint32_t>(i), plan);
            plan.finish();
            executor.run(plan);
            executor.forget(plan);
        }
    };
    return {.format_of =
                [dtype = weights.dtype](const TensorSpec& spec) { return format_of(dtype_in(spec, dtype)); },
            .fill = fill};
}

} // namespace fathom
