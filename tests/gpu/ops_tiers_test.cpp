// The tiers of the matrix products against their references, and that a token's bits depend on its tier
// alone. Which tiers there are to be tested is the device's affair: each case says which it took.
#include "gpu/moe.h"
#include "model/ops/product.h"
#include "model/traffic.h"

using namespace fathom;
using namespace fathom::test;

namespace {

// How far products may be from the reference's: sums in f32; activations in 8 bits; sums of 32 products in
// f16; factors in f16.
double limit_of(Tier tier) {
    switch (tier) {
    case Tier::int8:
        return 2e-4;
    case Tier::half:
        return 2e-5;
    case Tier::matrix:
        return 1e-6;
    default:
        return 1e-12;
    }
}

bool can(Tier tier, Format format, uint32_t n_out, uint32_t n_in) {
    return is_possible(tier, {"matmul", format, n_out, n_in, tier >= Tier::tiled}, executor(GPU).caps());
}

std::vector<Tier> tiers_of_this_device() {
    std::vector<Tier> found;
    std::string names;
    for (const Tier tier : TIERS) {
        if (tier == Tier::base || !can(tier, Format::q8_0, 32, 32)) continue;
        found.push_back(tier);
        names += fmt::format(" {}", name_of(tier));
    }
    MESSAGE("tiers of " << executor(GPU).device_name() << ":" << names);
    return found;
}

std::vector<uint32_t> widths_of(Format format) { // that a row may have: of plain formats, any
    if (block_of(format) == 1) return {1, 20, 97, 288};
    return {block_of(format), 3 * block_of(format)};
}

struct MatmulCase {
    Weights w;
    Tensor x;
    std::string what;
    MatmulCase(Format format, uint32_t n_rows, uint32_t n_out, uint32_t n_in, Tier tier)
        : what(fmt::format("matmul {} {} ({}, {}) of {} rows", name_of(tier), name_of(format), n_out, n_in,
                           n_rows)) {
        w = random_weights(what, format, n_out, n_in);
        x = random_tensor(what + " x", bucket_of(n_rows), n_in);
    }
};

void check_matmul(Format format, uint32_t n_rows, uint32_t n_out, uint32_t n_in, Tier tier, Worst& worst) {
    const Scratch scratch;
    const MatmulCase c(format, n_rows, n_out, n_in, tier);
    const Step step = step_of(n_rows);
    const uint32_t bucket = bucket_of(n_rows);
    const Tensor y = output(bucket, n_out), sum = random_tensor(c.what + " y", bucket, n_out);
    run(
        bucket,
        [&](Plan& plan, Side side) {
            matmul(plan, "matmul", step.memory(side), c.w.matrix(side), c.x.rows(side), y.rows(side), false);
            matmul(plan, "matmul", step.memory(side), c.w.matrix(side), c.x.rows(side), sum.rows(side), true);
            if (side == GPU) CHECK(plan.ops()[0].module.find(name_of(tier)) != std::string::npos);
        },
        0, tier);
    compare(y, n_rows, limit_of(tier), worst, c.what);
    compare(sum, n_rows, limit_of(tier), worst, c.what + " added", false);
}

} // namespace

TEST_CASE("ops: matmul in every tier and format" * doctest::test_suite("formats")) {
    for (const Tier tier : tiers_of_this_device()) {
        Worst worst(fmt::format("matmul {}", name_of(tier)));
        for (uint32_t f = 0; f < std::size(FORMATS); ++f)
            for (const uint32_t n_in : widths_of(FORMATS[f]))
                for (const uint32_t n_rows : {1u, 65u})
                    if (can(tier, FORMATS[f], 33, n_in))
                        check_matmul(FORMATS[f], n_rows, 33, n_in, tier, worst);
    }
}

TEST_CASE("ops: a dot product by as many lanes as were chosen for it") {
    const uint32_t n_out = 33, n_in = 288, n_rows = 5;
    Worst worst("lanes");
    for (const Tier tier : {Tier::base, Tier::int8})
        for (const uint32_t lanes : possible_lanes()) {
            if (!can(tier, Format::q8_0, n_out, n_in)) continue;
            const Scratch scratch;
            const MatmulCase c(Format::q8_0, n_rows, n_out, n_in, tier);
            const Tensor y = output(bucket_of(n_rows), n_out);
            const Step step = step_of(n_rows);
            run(
                bucket_of(n_rows),
                [&](Plan& plan, Side side) {
                    matmul(plan, "matmul", step.memory(side), c.w.matrix(side), c.x.rows(side), y.rows(side),
                           false);
                    CHECK(plan.ops()[0].constants[0] == lanes);
                    CHECK(tier_of(plan.ops()[0].module) == tier);
                },
                0, Variant(tier, lanes));
            compare(y, n_rows, limit_of(tier), worst, fmt::format("{} by {} lanes", c.what, lanes));
        }
}

TEST_CASE("ops: matmul in every tier, of many shapes") {
    for (const Tier tier : tiers_of_this_device()) {
        Worst worst(fmt::format("matmul {}", name_of(tier)));
        for (const uint32_t n_out : {1u, 128u, 129u, 300u})
            for (const uint32_t n_rows : {2u, 7u, 16u, 31u, 130u}) {
                check_matmul(Format::q8_0, n_rows, n_out, 96, tier, worst);
                if (can(tier, Format::bf16, n_out, 97))
                    check_matmul(Format::bf16, n_rows, n_out, 97, tier, worst);
            }
    }
}

TEST_CASE("ops: moe_up and moe_down in every tier") {
    for (const Tier tier : tiers_of_this_device()) {
        Worst worst(fmt::format("experts {}", name_of(tier)));
        for (const Format format : {Format::f32, Format::bf16, Format::q8_0, Format::q4_k}) {
            const uint32_t dim = format == Format::q4_k ? 256 : 96,
                           width = format == Format::q4_k ? 256 : 160;
            if (!can(tier, format, width, dim)) continue;
            const Scratch scratch;
            const auto name = fmt::format("experts {} {}", name_of(tier), name_of(format));
            // Activations are products already, so an error of theirs comes on top.
            const Experts layer(name, format, dim, width, 5, 3);
            for (const uint32_t n_rows : {1u, 3u, 31u, 65u, 150u})
                check_experts(layer, n_rows, worst, name, 0, tier, 4 * limit_of(tier));
        }
    }
}

TEST_CASE("ops: a token's bits depend on its tier, not on its company") {
    for (const Tier tier : tiers_of_this_device()) {
        const Scratch scratch;
        const MatmulCase c(Format::q8_0, 130, 200, 160, tier);
        const Tensor together = output(256, 200);
        const auto multiply = [&](uint32_t n_rows, uint32_t first, const Tensor& y) {
            const Step step = step_of(n_rows);
            Rows x = c.x.rows(GPU);
            x.address += 4ull * first * x.stride;
            run(
                GPU, bucket_of(n_rows),
                [&](Plan& plan, Side side) {
                    matmul(plan, "matmul", step.memory(side), c.w.matrix(side), x, y.rows(side), false);
                },
                executor(GPU).caps(), tier);
        };
        multiply(130, 0, together);
        const auto all = read<float>(GPU, together);
        for (const auto& [n_rows, first] : {std::pair(1u, 0u), {1u, 77u}, {2u, 3u}, {17u, 40u}, {33u, 97u}}) {
            const Tensor apart = output(bucket_of(n_rows), 200);
            multiply(n_rows, first, apart);
            const auto some = read<float>(GPU, apart);
            for (uint32_t t = 0; t < n_rows; ++t)
                if (!std::equal(some.begin() + t * apart.stride, some.begin() + t * apart.stride + 200,
                                all.begin() + (first + t) * together.stride))
                    FAIL_CHECK(name_of(tier) << ": token " << first + t << " differs among " << n_rows);
        }
    }
}

TEST_CASE("ops: halves of activations and weights beyond their range stay finite") {
    for (const Tier tier : tiers_of_this_device()) {
        if (tier < Tier::half) continue;
        const Scratch scratch;
        const Step step = step_of(1);
        std::vector<float> weights(64, 0.0f), x(32, 0.0f);
        weights[0] = 0.5f, x[0] = 30000.0f;   // as some models have
        weights[32 + 1] = 1.0f, x[1] = 3e-4f; // and its like on the other end
        const Weights w = weights_of(Format::f32, 2, 32, weights);
        const Tensor in = tensor(1, 32, x), y = output(1, 2);
        run(
            GPU, 1,
            [&](Plan& plan, Side side) {
                matmul(plan, "matmul", step.memory(side), w.matrix(side), in.rows(side), y.rows(side), false);
            },
            executor(GPU).caps(), tier);
        const auto got = read<float>(GPU, y);
        CHECK(got[0] == doctest::Approx(15000.0f).epsilon(1e-3));
        CHECK(got[1] == doctest::Approx(3e-4f).epsilon(5e-3));
    }
}
