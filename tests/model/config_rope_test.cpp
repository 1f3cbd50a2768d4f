// Rotation frequencies and the softmax scale: YaRN against published numbers, its formulas, and the bits that
// transformers computes.
#include "model/config.h"

#include <bit>
#include <cmath>
#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

using namespace fathom;

namespace {

ModelConfig rope_config(uint32_t dim, double theta, const Yarn& yarn) {
    ModelConfig config;
    config.qk_nope_head_dim = 128;
    config.qk_rope_head_dim = dim;
    config.rope_theta = theta;
    config.yarn = yarn;
    return config;
}

struct Bits {
    uint32_t dim;
    double theta;
    Yarn yarn;
    std::vector<uint32_t> inv_freq; // as float32 bits
};

// transformers 5.12.1, torch on x86-64 with AVX2. Made by, for each row (rope_type "default" for those
// without YaRN):
//   c = DeepseekV3Config(qk_rope_head_dim=dim, rope_parameters={"rope_type": "yarn", "rope_theta": theta,
//   ...}) print(DeepseekV3RotaryEmbedding(c).inv_freq.view(torch.int32))
const Bits transformers_bits[] = {
    {64,
     1e4,
     {40, 4096, 32, 1, 1, 1},
     {0x3F800000, 0x3F3FF911, 0x3F0FF59A, 0x3ED7E89B, 0x3EA1E89B, 0x3E72D423, 0x3E361887, 0x3E088D77,
      0x3DCCCCCD, 0x3D99940D, 0x3D6655C2, 0x3D1FC5BA, 0x3CDC321B, 0x3C968DC3, 0x3C4BF283, 0x3C088D77,
      0x3BB43959, 0x3B697066, 0x3B136A16, 0x3AB3A2CD, 0x3A4F3E37, 0x39D99312, 0x393A7753, 0x380BD471,
      0x37D1B717, 0x379D43A3, 0x376BDCF0, 0x3730DF51, 0x3704A2B3, 0x36C6ECDD, 0x36952C42, 0x365FBA4F}},
    {64, 5e4, {32, 4096, 1, 1, 1, 1}, {0x3F800000, 0x3F368E73, 0x3F022EDB, 0x3EB9AB7F, 0x3E84673D, 0x3E3CD623,
                                       0x3E06A951, 0x3DC00E9B, 0x3D88F541, 0x3D435523, 0x3D0B4B37, 0x3CC6A9F7,
                                       0x3C8DAB61, 0x3C4A0D56, 0x3C1015E9, 0x3BCD7F82, 0x3B928AFF, 0x3B5100B8,
                                       0x3B150ACF, 0x3AD4913C, 0x38179588, 0x37D8314F, 0x379A2B5B, 0x375BE137,
                                       0x371CCC77, 0x36DFA138, 0x369F790D, 0x36637198, 0x36223151, 0x35E752A0,
                                       0x35A4F575, 0x356B4496}},
    {64,
     5e4,
     {64, 4096, 32, 1, 1, 1},
     {0x3F800000, 0x3F368E73, 0x3F022EDB, 0x3EB9AB7F, 0x3E84673D, 0x3E3CD623, 0x3E06A951, 0x3DC00E9B,
      0x3D88F541, 0x3D334F27, 0x3CE8E1C0, 0x3C95C623, 0x3C3E5E4A, 0x3BEE5BBD, 0x3B925641, 0x3B2EFE96,
      0x3AC97F1E, 0x3A5ACCC1, 0x39D63F8C, 0x39261175, 0x37979588, 0x3758314F, 0x371A2B5B, 0x36DBE137,
      0x369CCC77, 0x365FA138, 0x361F790D, 0x35E37198, 0x35A23151, 0x356752A0, 0x3524F575, 0x34EB4496}},
    {16,
     1e4,
     {},
     {0x3F800000, 0x3EA1E89B, 0x3DCCCCCD, 0x3D0186E3, 0x3C23D70A, 0x3B4F3E38, 0x3A83126F, 0x39A5CB60}},
    {64, 5e4, {}, {0x3F800000, 0x3F368E73, 0x3F022EDB, 0x3EB9AB7F, 0x3E84673D, 0x3E3CD623, 0x3E06A951,
                   0x3DC00E9B, 0x3D88F541, 0x3D435523, 0x3D0B4B37, 0x3CC6A9F7, 0x3C8DAB61, 0x3C4A0D56,
                   0x3C1015E9, 0x3BCD7F82, 0x3B928AFF, 0x3B5100B8, 0x3B150ACF, 0x3AD4913C, 0x3A979588,
                   0x3A58314F, 0x3A1A2B5B, 0x39DBE137, 0x399CCC77, 0x395FA138, 0x391F790D, 0x38E37198,
                   0x38A23151, 0x386752A0, 0x3824F575, 0x37EB4496}},
    {10, 1e4, {7.5, 333, 32, 1, 1, 1}, {0x3F800000, 0x3DE6D119, 0x3C2DC3B5, 0x3A0B2605, 0x38B06DAE}},
};

} // namespace

TEST_CASE("rope: the bits of transformers, but for its power function's last place") {
    size_t different = 0, all = 0;
    for (const Bits& test : transformers_bits) {
        const auto rope = rope_frequencies(rope_config(test.dim, test.theta, test.yarn));
        REQUIRE(rope.inv_freq.size() == test.inv_freq.size());
        CHECK(rope.factor == 1);
        for (size_t i = 0; i < rope.inv_freq.size(); ++i, ++all) {
            const auto bits = std::bit_cast<uint32_t>(rope.inv_freq[i]);
            CHECK(std::abs(static_cast<int64_t>(bits) - static_cast<int64_t>(test.inv_freq[i])) <= 1);
            different += bits != test.inv_freq[i];
        }
    }
    // One theta and exponent, 50000 ^ (10 / 64), in the three tables that have it: torch's vector pow is off
    // there.
    CHECK(different <= 3);
    CHECK(all == 3 * 32 + 5 + 32 + 8);
}

TEST_CASE("rope: the formulas evaluated elsewhere, for V3, Kimi-K2 and Kimi-K2.5") {
    const std::map<int, std::vector<double>> expected = {
        {0, {1, 1, 1}},
        {1, {7.49894209e-01, 7.13111085e-01, 7.13111085e-01}},
        {8, {1.00000000e-01, 6.68740305e-02, 6.68740305e-02}},
        {10, {5.62341325e-02, 3.40072782e-02, 2.84279591e-02}},
        {11, {3.90069266e-02, 2.42509670e-02, 1.82829556e-02}},
        {15, {8.33450895e-03, 6.27130338e-03, 2.67020339e-03}},
        {16, {5.50000000e-03, 4.47213595e-03, 1.53729673e-03}},
        {18, {2.24936530e-03, 2.27420376e-03, 4.08645987e-04}},
        {20, {7.90569415e-04, 3.61404677e-05, 1.80702339e-05}},
        {22, {1.77827941e-04, 1.83784188e-05, 9.18920940e-06}},
        {23, {3.33380358e-05, 1.31058542e-05, 6.55292708e-06}},
        {24, {2.50000000e-05, 9.34592988e-06, 4.67296494e-06}},
        {31, {3.33380358e-06, 8.76441291e-07, 4.38220646e-07}},
    };
    const RopeFrequencies models[] = {rope_frequencies(rope_config(64, 1e4, {40, 4096, 32, 1, 1, 1})),
                                      rope_frequencies(rope_config(64, 5e4, {32, 4096, 1, 1, 1, 1})),
                                      rope_frequencies(rope_config(64, 5e4, {64, 4096, 32, 1, 1, 1}))};
    for (const auto& [i, values] : expected)
        for (size_t model = 0; model < 3; ++model) {
            INFO("i = " << i << ", model " << model);
            CHECK(std::abs(models[model].inv_freq[i] / values[model] - 1) < 1e-6);
        }
}

TEST_CASE("rope: the numbers published in transformers' tests") {
    const std::filesystem::path path =
        std::filesystem::path(FATHOM_SHARED_DIR) / "data/golden/yarn_inv_freq_transformers.json";
    if (!std::filesystem::exists(path)) {
        MESSAGE("SKIPPED: no " << path.string() << "; this test proves nothing here");
        return;
    }
    std::ifstream file(path);
    const auto golden = nlohmann::json::parse(file);
    for (const auto& [factor, expected] : golden["attention_factor"].items()) {
        const Yarn yarn{std::stod(factor), golden["original_max_position_embeddings"], 32, 1, 1, 0};
        CHECK(rope_frequencies(rope_config(128, 1e4, yarn)).factor == expected.get<float>());
    }
    const Yarn yarn{golden["factor"], golden["original_max_position_embeddings"], golden["beta_fast"],
                    golden["beta_slow"]};
    const auto rope = rope_frequencies(rope_config(golden["head_dim"], golden["rope_theta"], yarn));
    REQUIRE(rope.inv_freq.size() == golden["expected_inv_freq"].size());
    for (size_t i = 0; i < rope.inv_freq.size(); ++i) // five digits were published
        CHECK(std::abs(rope.inv_freq[i] / golden["expected_inv_freq"][i].get<double>() - 1) < 1e-4);
}

TEST_CASE("rope: the softmax scale under YaRN") {
    const auto scale = [](const Yarn& yarn) { return rope_config(64, 1e4, yarn).softmax_scale(); };
    CHECK(std::abs(scale({40, 4096, 32, 1, 0.707, 0.707}) - 0.114721) < 5e-7); // V2, V2-Lite
    CHECK(std::abs(scale({40, 4096, 32, 1, 1, 1}) - 0.135234) < 5e-7);         // V3
    CHECK(std::abs(scale({32, 4096, 1, 1, 1, 1}) - 0.130861) < 5e-7);          // Kimi-K2
    CHECK(std::abs(scale({64, 4096, 32, 1, 1, 1}) - 0.144680) < 5e-7);         // Kimi-K2.5
    CHECK(std::abs(scale({}) - 0.0721688) < 5e-8);                             // no YaRN, 192 dimensions
    CHECK(scale({40, 4096, 32, 1, 1, 0}) == scale({}));                        // no mscale_all_dim
    CHECK(scale({1, 4096, 32, 1, 1, 1}) == scale({})); // factor 1: nothing is stretched
}

TEST_CASE("rope: cos and sin are scaled when the two mscales differ") {
    const auto factor = [](const Yarn& yarn) { return rope_frequencies(rope_config(64, 1e4, yarn)).factor; };
    CHECK(factor({40, 4096, 32, 1, 1, 0}) == static_cast<float>(0.1 * std::log(40.0) + 1));
    CHECK(factor({40, 4096, 32, 1, 0.5, 1}) ==
          static_cast<float>((0.05 * std::log(40.0) + 1) / (0.1 * std::log(40.0) + 1)));
    CHECK(factor({40, 4096, 32, 1, 0.707, 0.707}) == 1);
}

TEST_CASE("rope: bounds of the ramp that meet or cross stay finite") {
    for (const Yarn& yarn :
         {Yarn{32, 4096, 1, 1, 1, 1}, Yarn{4, 1, 32, 1, 1, 1}, Yarn{4, 1 << 24, 1e-6, 1e-6, 1, 1}})
        for (const double theta : {1.001, 12.0, 1e4, 1e12})
            for (const float inv : rope_frequencies(rope_config(64, theta, yarn)).inv_freq)
                CHECK((inv > 0 && inv <= 1));
}
