// The block formats: decoding against what ggml's Python package makes of the same blocks, and the
// conversions of E4M3 against its definition.
#include "base/numbers.h"
#include "checkpoint/block_layout.h"
#include "checkpoint/blocks.h"
#include "checkpoint/help.h"

#include <bit>
#include <cmath>

using namespace fathom;
using namespace help;

namespace {

constexpr DType formats[] = {DType::q4_0,   DType::q4_1,   DType::q5_0, DType::q5_1, DType::q8_0,
                             DType::q2_k,   DType::q3_k,   DType::q4_k, DType::q5_k, DType::q6_k,
                             DType::iq4_nl, DType::iq4_xs, DType::mxfp4};

// The value of an E4M3 code by its definition.
double value_of(int code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    return code & 0x80 ? -magnitude : magnitude;
}

} // namespace

TEST_CASE("blocks decode to the bits of ggml's Python package") {
    const auto golden = Checkpoint::open(fs::path(FATHOM_SOURCE_DIR) / "tests/golden/blocks.safetensors");
    for (const DType dtype : formats) {
        const std::string name(name_of(dtype));
        CAPTURE(name);
        const TensorView *blocks = golden.find(name + ".blocks"), *values = golden.find(name + ".values");
        REQUIRE(blocks != nullptr);
        REQUIRE(values != nullptr);
        std::vector<float> expected(values->data.size() / 4), got(expected.size());
        std::memcpy(expected.data(), values->data.data(), values->data.size());
        decode_blocks(dtype, blocks->data, got);
        size_t differ = 0;
        for (size_t i = 0; i < got.size(); ++i)
            differ += std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(expected[i]);
        CHECK(differ == 0);
    }
}

TEST_CASE("blocks put together again are the same bytes") {
    const auto golden = Checkpoint::open(fs::path(FATHOM_SOURCE_DIR) / "tests/golden/blocks.safetensors");
    for (const DType dtype : formats) {
        CAPTURE(name_of(dtype));
        const auto blocks = golden.find(std::string(name_of(dtype)) + ".blocks")->data;
        for (size_t at = 0; at < blocks.size(); at += fathom::bytes_of(dtype)) {
            BlockParts parts;
            Bytes again(fathom::bytes_of(dtype));
            unpack_block(dtype, blocks.data() + at, parts);
            pack_block(dtype, parts, again.data());
            CHECK(std::equal(again.begin(), again.end(), blocks.begin() + static_cast<ptrdiff_t>(at)));
        }
    }
}

TEST_CASE("E4M3 is read as defined, and written as the nearest even code") {
    for (int code = 0; code < 256; ++code) {
        const float value = f8_to_f32(static_cast<uint8_t>(code));
        if ((code & 0x7F) == 0x7F) {
            CHECK(std::isnan(value));
            continue;
        }
        CHECK(double{value} == value_of(code));
        CHECK(std::signbit(value) == (code >= 0x80));
        CHECK(f32_to_f8(value) == code);
        if ((code & 0x7F) >= 0x7E) continue;
        const auto next = static_cast<uint8_t>(code + 1); // away from zero; halfway between is exact in f32
        const auto halfway = static_cast<float>((value_of(code) + value_of(code + 1)) / 2);
        CHECK(f32_to_f8(halfway) == (code % 2 == 0 ? code : next));
        CHECK(f32_to_f8(std::nextafter(halfway, 0.0f)) == code);
        CHECK(f32_to_f8(std::nextafter(halfway, halfway * 2)) == next);
    }
    CHECK(f32_to_f8(449) == 0x7E);
    CHECK(f32_to_f8(-INFINITY) == 0xFE);
    CHECK(f32_to_f8(1e-30f) == 0);
    CHECK((f32_to_f8(NAN) & 0x7F) == 0x7F);
    CHECK(e8m0_to_f32(0) == 0x1p-127f);
    CHECK(e8m0_to_f32(127) == 1);
    CHECK(e8m0_to_f32(254) == 0x1p127f);
    CHECK(std::isnan(e8m0_to_f32(255)));
}
