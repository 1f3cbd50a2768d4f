// Packing. Where the quants of a block lie in a file is said by checkpoint/block_layout.h; the table here
// says what else a block has, which becomes planes as it is.
#include "checkpoint/weight_format.h"

#include "base/error.h"
#include "base/numbers.h"
#include "checkpoint/block_layout.h"
#include "checkpoint/blocks.h"

#include <array>
#include <cstring>
#include <optional>

namespace fathom {

namespace {

struct Bytes {
    uint8_t count = 0, at = 0; // of a block, and where they are in the file's block
};
struct Row {
    std::string_view name;
    DType dtype;
    uint32_t block;
    Bytes scales[2]; // planes behind those of the quants; of FP8, from a tensor of their own
};
constexpr Row table[] = {
    // in the order of Format
    {"f32", DType::f32, 8, {}},
    {"f16", DType::f16, 8, {}},
    {"bf16", DType::bf16, 8, {}},
    {"fp8", DType::f8_e4m3, FP8_BLOCK, {{4}}},
    {"q8_0", DType::q8_0, 32, {{2, 0}}},
    {"q4_0", DType::q4_0, 32, {{2, 0}}},
    {"q4_1", DType::q4_1, 32, {{4, 0}}},
    {"q5_0", DType::q5_0, 32, {{2, 0}}},
    {"q5_1", DType::q5_1, 32, {{4, 0}}},
    {"q2_k", DType::q2_k, 256, {{16, 0}, {4, 80}}},
    {"q3_k", DType::q3_k, 256, {{12, 96}, {2, 108}}},
    {"q4_k", DType::q4_k, 256, {{16, 0}}},
    {"q5_k", DType::q5_k, 256, {{16, 0}}},
    {"q6_k", DType::q6_k, 256, {{16, 192}, {2, 208}}},
    {"iq4_nl", DType::iq4_nl, 32, {{2, 0}}},
    {"iq4_xs", DType::iq4_xs, 256, {{8, 0}}},
    {"mxfp4", DType::mxfp4, 32, {{1, 0}}},
};
static_assert(std::size(table) == std::size(FORMATS));

const Row& row_of(Format format) { return table[static_cast<size_t>(format)]; }
bool is_plain(Format format) { return row_of(format).block == 8; } // numbers in order, in files as in memory

// One plane of a row: quants that a file interleaves and a row has in order, or bytes as they are (bits 0).
struct Plane {
    uint32_t bytes, at; // of a block; where the file's block has them
    uint32_t bits = 0, run = 0;
};
std::vector<Plane> planes_of(Format format) {
    const Row& r = row_of(format);
    if (is_plain(format) || format == Format::fp8) {
        std::vector<Plane> planes{{r.block * bytes_of(r.dtype), 0}};
        if (r.scales[0].count != 0) planes.push_back({r.scales[0].count, 0});
        return planes;
    }
    std::vector<Plane> planes;
    for (const BitField& field : layout_of(r.dtype).codes.fields) {
        if (field.bits == 0) continue;
        const bool in_order = field.bits == 8 || field.run == 1;
        planes.push_back({r.block * field.bits / 8, field.offset, in_order ? 0u : field.bits, field.run});
    }
    for (const Bytes& bytes : r.scales)
        if (bytes.count != 0) planes.push_back({bytes.count, bytes.at});
    return planes;
}

// The low `bits` of eight bytes, side by side, the first byte's lowest.
template <uint32_t bits> uint32_t gather(uint64_t bytes) {
    if constexpr (bits == 4) {
        bytes &= 0x0F0F0F0F0F0F0F0F;
        bytes = (bytes | bytes >> 4) & 0x00FF00FF00FF00FF;
        bytes = (bytes | bytes >> 8) & 0x0000FFFF0000FFFF;
        return static_cast<uint32_t>(bytes | bytes >> 16);
    } else if constexpr (bits == 2) {
        bytes &= 0x0303030303030303;
        bytes = (bytes | bytes >> 6) & 0x000F000F000F000F;
        bytes = (bytes | bytes >> 12) & 0x000000FF000000FF;
        return static_cast<uint32_t>(bytes | bytes >> 24) & 0xFFFF;
    } else {
        return static_cast<uint32_t>((bytes & 0x0101010101010101) * 0x0102040810204080 >> 56);
    }
}

// `run` is a multiple of 8, so eight neighbours are eight bytes at one shift, and become `bits` bytes.
template <uint32_t bits>
void pack_runs(const Plane& plane, uint32_t block, const std::byte* from, std::byte* to) {
    for (uint32_t first = 0; first < block; first += plane.run * (8 / bits), from += plane.run)
        for (uint32_t shift = 0; shift < 8; shift += bits)
            for (uint32_t i = 0; i < plane.run; i += 8, to += bits) {
                uint64_t bytes;
                std::memcpy(&bytes, from + i, 8);
                const uint32_t packed = gather<bits>(bytes >> shift);
                std::memcpy(to, &packed, bits);
            }
}

void pack_plane(const Plane& plane, uint32_t block, const std::byte* from, std::byte* to) {
    switch (plane.bits) {
    case 0:
        std::memcpy(to, from, plane.bytes);
        break;
    case 1:
        pack_runs<1>(plane, block, from, to);
        break;
    case 2:
        pack_runs<2>(plane, block, from, to);
        break;
    default:
        pack_runs<4>(plane, block, from, to);
    }
}

// Weight k of a block: its byte among the plane's in the file, and its lowest bit in that byte.
struct Place {
    uint32_t byte, shift;
};
Place place_of(const Plane& plane, uint32_t k) {
    const uint32_t runs = 8u / plane.bits;
    return {plane.run * (k / (plane.run * runs)) + k % plane.run, plane.bits * (k / plane.run % runs)};
}

void unpack_plane(const Plane& plane, uint32_t block, const std::byte* from, std::byte* to) {
    if (plane.bits == 0) {
        std::memcpy(to, from, plane.bytes);
        return;
    }
    const uint32_t mask = (1u << plane.bits) - 1;
    for (uint32_t k = 0; k < block; ++k) {
        const uint32_t bit = k * plane.bits;
        const uint32_t quant = std::to_integer<uint32_t>(from[bit / 8]) >> (bit % 8) & mask;
        const Place place = place_of(plane, k);
        to[place.byte] |= static_cast<std::byte>(quant << place.shift);
    }
}

uint32_t blocks_of(const Row& r, uint32_t cols) { return div_up(cols, r.block); }

// Calls visit(plane, where it begins in the row) for each plane; returns where the row ends.
template <class Visit> uint32_t each_plane(Format format, uint32_t cols, const Visit& visit) {
    static const std::array<std::vector<Plane>, std::size(FORMATS)> planes = [] {
        std::array<std::vector<Plane>, std::size(FORMATS)> all;
        for (const Format f : FORMATS) all[static_cast<size_t>(f)] = planes_of(f);
        return all;
    }();
    uint32_t offset = 0;
    for (const Plane& plane : planes[static_cast<size_t>(format)]) {
        visit(plane, offset);
        offset +=
            static_cast<uint32_t>(round_up(uint64_t{blocks_of(row_of(format), cols)} * plane.bytes, 16));
    }
    return offset;
}

} // namespace

std::string_view name_of(Format format) { return row_of(format).name; }
DType dtype_of(Format format) { return row_of(format).dtype; }
uint32_t block_of(Format format) { return is_plain(format) ? 1 : row_of(format).block; }

namespace {
std::optional<Format> find_format(DType dtype) {
    for (const Format format : FORMATS)
        if (dtype_of(format) == dtype) return format;
    return std::nullopt;
}
} // namespace

Format format_of(DType dtype) {
    const auto format = find_format(dtype);
    check(format.has_value(), "the dtype has a format in memory");
    return *format;
}

Format format_named(std::string_view name) {
    std::string names;
    for (const Format format : FORMATS) {
        if (name_of(format) == name) return format;
        names += (names.empty() ? "" : " ") + std::string(name_of(format));
    }
    throw Error({.what = "no such weight format", .expected = names, .got = printable(name)});
}

Format format_of(const TensorView& tensor) {
    if (const auto format = find_format(tensor.dtype)) return *format;
    throw Error({.what = "a weight has a dtype that this engine cannot run",
                 .where = tensor.file + ": " + printable(tensor.name),
                 .expected = "F32, F16, BF16, F8_E4M3, or a block format such as Q4_K",
                 .got = std::string(name_of(tensor.dtype)),
                 .fix = "convert the checkpoint to BF16"});
}

uint32_t row_bytes(Format format, uint32_t cols) {
    return each_plane(format, cols, [](const Plane&, uint32_t) {});
}

std::vector<RowPlane> planes_of_row(Format format, uint32_t cols) {
    const Row& r = row_of(format);
    std::vector<RowPlane> planes;
    const uint32_t end = each_plane(format, cols, [&](const Plane& plane, uint32_t at) {
        if (!planes.empty()) planes.back().bytes = at - planes.back().at;
        planes.push_back({at, 0, blocks_of(r, cols) * plane.bytes, plane.bytes, true});
    });
    planes.back().bytes = end - planes.back().at;
    size_t scales = planes.size();
    for (const Bytes& bytes : r.scales)
        if (bytes.count != 0) planes[--scales].quants = false;
    if (block_of(format) == 1 || format == Format::fp8) // a last block may be a part of one
        planes.front().used = cols * bytes_of(r.dtype);
    return planes;
}

double bits_per_weight(Format format) {
    const uint32_t cols = 16 * row_of(format).block; // no plane of so many blocks needs padding
    return 8.0 * row_bytes(format, cols) / cols;
}

void pack_row(Format format, const std::byte* file_row, uint32_t cols, std::byte* row) {
    const Row& r = row_of(format);
    if (is_plain(format)) {
        const uint64_t bytes = uint64_t{cols} * bytes_of(r.dtype);
        std::memcpy(row, file_row, bytes);
        std::memset(row + bytes, 0, row_bytes(format, cols) - bytes);
        return;
    }
    check(format != Format::fp8, "FP8 rows are packed with their scales");
    const uint32_t blocks = blocks_of(r, cols), file_block = bytes_of(r.dtype);
    each_plane(format, cols, [&](const Plane& plane, uint32_t offset) {
        for (uint32_t b = 0; b < blocks; ++b)
            pack_plane(plane, r.block, file_row + uint64_t{b} * file_block + plane.at,
                       row + offset + b * plane.bytes);
        const uint32_t used = blocks * plane.bytes;
        std::memset(row + offset + used, 0, round_up(used, 16) - used);
    });
}

void pack_fp8_row(const std::byte* codes, const float* scales, uint32_t cols, std::byte* row) {
    const Row& r = row_of(Format::fp8);
    const uint32_t blocks = blocks_of(r, cols), bytes = row_bytes(Format::fp8, cols);
    std::memcpy(row, codes, cols);
    std::memset(row + cols, 0, blocks * FP8_BLOCK - cols);
    std::memset(row + blocks * FP8_BLOCK, 0, bytes - blocks * FP8_BLOCK);
    std::memcpy(row + blocks * FP8_BLOCK, scales, blocks * sizeof(float));
}

void unpack_row(Format format, const std::byte* row, uint32_t cols, float* weights) {
    const Row& r = row_of(format);
    const std::span<float> out(weights, cols);
    if (format == Format::fp8) {
        const std::byte* scales = row + blocks_of(r, cols) * FP8_BLOCK;
        for (uint32_t k = 0; k < cols; ++k) {
            float scale;
            std::memcpy(&scale, scales + k / FP8_BLOCK * sizeof(float), sizeof(float));
            weights[k] = f8_to_f32(std::to_integer<uint8_t>(row[k])) * scale;
        }
        return;
    }
    if (is_plain(format)) return decode_blocks(r.dtype, {row, uint64_t{cols} * bytes_of(r.dtype)}, out);
    const uint32_t blocks = blocks_of(r, cols), file_block = bytes_of(r.dtype);
    std::vector<std::byte> file_row(uint64_t{blocks} * file_block);
    each_plane(format, cols, [&](const Plane& plane, uint32_t offset) {
        for (uint32_t b = 0; b < blocks; ++b)
            unpack_plane(plane, r.block, row + offset + b * plane.bytes,
                         file_row.data() + uint64_t{b} * file_block + plane.at);
    });
    decode_blocks(r.dtype, file_row, out);
}

} // namespace fathom
