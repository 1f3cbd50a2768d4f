// What the kernel tests share: the device under test and the CPU reference as two sides, the same buffers on
// both, and comparisons. One process makes one device, since making one compiles every kernel afresh; it is
// chosen by FATHOM_TEST_DEVICE as by --device. Whatever a kernel must not use or write holds SENTINEL, a NaN.
#pragma once

#include "base/numbers.h"
#include "checkpoint/block_layout.h"
#include "checkpoint/blocks.h"
#include "golden/weights.h"
#include "model/executor.h"
#include "model/ops/ops.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace fathom::test {

enum Side : uint8_t { GPU, CPU };
constexpr Side SIDES[] = {GPU, CPU};
constexpr uint32_t SENTINEL = 0x7FC0DEAD;
constexpr Format PLAIN_FORMATS[] = {Format::f32, Format::f16, Format::bf16}; // rows of any length
constexpr uint32_t ROWS[] = {1, 2, 3, 7, 8, 31, 65, 256};

inline std::string device_wish() {
    const char* device = std::getenv("FATHOM_TEST_DEVICE");
    return device ? device : "";
}

inline Executor& executor(Side side) {
    static const auto gpu = make_gpu_executor({.select = device_wish()});
    static const auto cpu = make_reference_executor();
    return side == GPU ? *gpu : *cpu;
}

inline uint32_t bucket_of(uint32_t rows) { return std::bit_ceil(rows); }

// Runs what `build` appends, as a plan of `bucket` rows. Plans are kept: an executor knows them by address.
using Build = std::function<void(Plan&, Side)>;
inline const Plan& run(Side side, uint32_t bucket, const Build& build, const gpu::Caps& caps,
                       Variant variant = {}) {
    static std::deque<Plan> plans;
    Plan& plan = plans.emplace_back("test", caps, bucket, variant.tier >= Tier::tiled, Tiers(variant));
    build(plan, side);
    plan.finish();
    executor(side).run(plan);
    return plan;
}
// `lanes`: how many lanes share a dot product; 0: as the device has it. `variant`: of the products, on the
// GPU.
inline void run(uint32_t bucket, const Build& build, uint32_t lanes = 0, Variant variant = {}) {
    for (const Side side : SIDES) {
        gpu::Caps caps = executor(GPU).caps(); // of both, so that their lists of tiles are the same
        if (lanes) caps.k_lanes = lanes;
        run(side, bucket, build, caps, variant);
    }
}
// As run() on the GPU, each grid cut into pieces as a long step's are.
inline void run_cut(uint32_t bucket, const Build& build, uint32_t pieces) {
    Plan plan("cut", executor(GPU).caps(), bucket);
    build(plan, GPU);
    plan.finish();
    std::vector<gpu::Dispatch> all = plan.dispatches();
    for (gpu::Dispatch& dispatch : all) dispatch.pieces = pieces;
    gpu::Device& device = *executor(GPU).gpu();
    gpu::Recording recording = device.record("cut", all);
    device.wait(device.submit(recording));
}
// Numbers of lanes that this device's kernels can share a dot product by.
inline std::vector<uint32_t> possible_lanes() {
    std::vector<uint32_t> all;
    for (uint32_t lanes = 1; lanes <= std::min(8u, executor(GPU).caps().subgroup_size); lanes *= 2)
        all.push_back(lanes);
    return all;
}

// Memory for as long as the innermost Scratch lives. It is then used again by exact size: one VkBuffer for
// each tensor lets validation see its bounds, and there may be only 4096 of them.
class Scratch {
  public:
    Scratch() : first_(pool().taken.size()) {}
    Scratch(const Scratch&) = delete;
    ~Scratch() {
        for (; pool().taken.size() > first_; pool().taken.pop_back()) {
            const auto& [side, view] = pool().taken.back();
            pool().free[{side, view.bytes}].push_back(view);
        }
    }
    static View take(Side side, uint64_t bytes) {
        auto& free = pool().free[{side, bytes}];
        if (free.empty()) free.push_back(executor(side).allocate("test", gpu::Placement::device, bytes));
        pool().taken.emplace_back(side, free.back());
        free.pop_back();
        return pool().taken.back().second;
    }

  private:
    struct Pool {
        std::map<std::pair<Side, uint64_t>, std::vector<View>> free;
        std::vector<std::pair<Side, View>> taken;
    };
    static Pool& pool() {
        static Pool only;
        return only;
    }
    size_t first_;
};

// The same bytes on both sides.
struct Buffer {
    View view[2];
};
template <class T> Buffer buffer(std::span<const T> values) {
    Buffer result;
    for (const Side side : SIDES) {
        result.view[side] = Scratch::take(side, std::max<uint64_t>(values.size_bytes(), 4));
        executor(side).upload(result.view[side], 0, std::as_bytes(values));
        executor(side).flush();
    }
    return result;
}
template <class T> Buffer buffer(const std::vector<T>& values) { return buffer(std::span<const T>(values)); }
inline Buffer arrivals_of(uint32_t rows, uint32_t words) {
    return buffer(std::vector<uint32_t>(arrival_bytes(rows, words) / 4, 0));
}
inline Buffer blank(uint64_t words) { return buffer(std::vector<uint32_t>(words, SENTINEL)); }

template <class T> std::vector<T> read(Side side, const Buffer& from) {
    std::vector<T> values(from.view[side].bytes / sizeof(T));
    executor(side).download(from.view[side], std::as_writable_bytes(std::span(values)));
    return values;
}

// Numbers in [-1, 1) by name, the same everywhere.
inline std::vector<float> random_floats(const std::string& name, uint64_t count, float scale = 1,
                                        float offset = 0) {
    const uint64_t hash = golden::fnv1a64(name);
    std::vector<float> values(count);
    for (uint64_t i = 0; i < count; ++i) values[i] = golden::weight(hash, i, scale, offset);
    return values;
}

// Rows of floats on both sides, padded as Rows wants, the padding poisoned.
struct Tensor : Buffer {
    uint32_t n_rows = 0, cols = 0, stride = 0;
    Rows rows(Side side) const { return {view[side].address, cols, stride}; }
};
inline Tensor tensor(uint32_t n_rows, uint32_t cols, std::span<const float> values, uint32_t stride = 0) {
    if (stride == 0) stride = static_cast<uint32_t>(round_up(cols, 8));
    std::vector<uint32_t> words(uint64_t{n_rows} * stride + 8, SENTINEL); // 8: a last chunk is read whole
    for (uint64_t r = 0; r < n_rows; ++r)
        for (uint64_t c = 0; c < cols; ++c)
            words[r * stride + c] = std::bit_cast<uint32_t>(values[r * cols + c]);
    return {buffer(words), n_rows, cols, stride};
}
inline Tensor random_tensor(const std::string& name, uint32_t n_rows, uint32_t cols, float scale = 1,
                            uint32_t stride = 0) {
    return tensor(n_rows, cols, random_floats(name, uint64_t{n_rows} * cols, scale), stride);
}
inline Tensor output(uint32_t n_rows, uint32_t cols, uint32_t stride = 0) {
    return tensor(n_rows, cols, std::vector<float>(uint64_t{n_rows} * cols, std::bit_cast<float>(SENTINEL)),
                  stride);
}
inline Buffer random_vector(const std::string& name, uint32_t count, float scale = 0.5f, float offset = 1) {
    return buffer(random_floats(name, count, scale, offset));
}

// A bank of `count` matrices (rows, cols) with weights of the size that keeps products near 1.
struct Weights {
    Buffer data;
    Matrix shape;
    Matrix matrix(Side side) const {
        Matrix result = shape;
        result.view = data.view[side];
        return result;
    }
};
// A row in memory of plain numbers, rounded to the format.
inline void plain_row(Format format, std::span<const float> values, std::byte* out) {
    const auto cols = static_cast<uint32_t>(values.size());
    if (format == Format::f32) return pack_row(format, std::as_bytes(values).data(), cols, out);
    std::vector<uint16_t> halves;
    for (const float value : values)
        halves.push_back(format == Format::f16 ? f32_to_f16(value) : f32_to_bf16(value));
    pack_row(format, std::as_bytes(std::span(halves)).data(), cols, out);
}
inline Matrix matrix_shape(Format format, uint32_t rows, uint32_t cols, uint32_t count) {
    const uint32_t bytes = row_bytes(format, cols);
    return {{}, format, rows, cols, bytes, count, uint64_t{rows} * bytes};
}
inline Weights weights_of(Format format, uint32_t rows, uint32_t cols, std::span<const float> values,
                          uint32_t count = 1) {
    Weights result;
    result.shape = matrix_shape(format, rows, cols, count);
    std::vector<std::byte> bytes(count * result.shape.matrix_bytes);
    for (uint64_t r = 0; r < uint64_t{rows} * count; ++r)
        plain_row(format, values.subspan(r * cols, cols), bytes.data() + r * result.shape.row_bytes);
    result.data = buffer(bytes);
    return result;
}

// A random row of a format of blocks: every quant and every scale, the values mostly below `size`; `name` and
// `row` seed it.
inline void random_row(Format format, const std::string& name, uint64_t row, uint32_t cols, float size,
                       std::byte* out) {
    const uint64_t hash = golden::fnv1a64(name) + row;
    uint64_t next = 0;
    const auto upto = [&](int low, int high) { // whole numbers from low to high
        const float u = (golden::unit(hash, next++) + 1) / 2;
        return low + std::min(static_cast<int>(u * static_cast<float>(high - low + 1)), high - low);
    };
    if (format == Format::fp8) {
        std::vector<std::byte> codes;
        for (uint32_t c = 0; c < cols; ++c)
            codes.push_back(static_cast<std::byte>(upto(0, 126) | upto(0, 1) << 7));
        std::vector<float> scales(div_up(cols, FP8_BLOCK));
        for (float& scale : scales) scale = size / 448 * static_cast<float>(upto(1, 16));
        return pack_fp8_row(codes.data(), scales.data(), cols, out);
    }
    const DType dtype = dtype_of(format);
    const BlockLayout& layout = layout_of(dtype);
    std::vector<std::byte> blocks(cols / block_of(dtype) * bytes_of(dtype));
    for (size_t at = 0; at < blocks.size(); at += bytes_of(dtype)) {
        BlockParts parts{};
        const int levels = layout.codes.fields[1].bits + layout.codes.fields[0].bits;
        const float reach = static_cast<float>(layout.levels ? 128 : (1 << levels)) *
                            static_cast<float>(layout.has_scales() ? layout.scales.last : 1);
        parts.d = 2 * size / reach * static_cast<float>(upto(0, 1) * 2 - 1);
        parts.dmin = layout.has_min() ? size / static_cast<float>(layout.has_scales() ? 64 : 1) : 0;
        for (uint32_t i = 0; i < block_of(dtype); ++i)
            parts.codes[i] = static_cast<uint8_t>(upto(0, (1 << levels) - 1));
        for (uint32_t g = 0; g < block_of(dtype) / layout.group; ++g) {
            parts.scales[g] = static_cast<int16_t>(upto(layout.scales.first, layout.scales.last));
            parts.mins[g] = static_cast<int16_t>(layout.has_scales() ? upto(0, layout.scales.last) : -1);
        }
        pack_block(dtype, parts, blocks.data() + at);
    }
    pack_row(format, blocks.data(), cols, out);
}
inline Weights random_weights(const std::string& name, Format format, uint32_t rows, uint32_t cols,
                              uint32_t count = 1) {
    const float scale = std::sqrt(3.0f / static_cast<float>(cols));
    if (block_of(format) == 1)
        return weights_of(format, rows, cols, random_floats(name, uint64_t{rows} * cols * count, scale),
                          count);
    Weights result;
    result.shape = matrix_shape(format, rows, cols, count);
    std::vector<std::byte> bytes(count * result.shape.matrix_bytes);
    for (uint64_t r = 0; r < uint64_t{rows} * count; ++r)
        random_row(format, name, r, cols, scale, bytes.data() + r * result.shape.row_bytes);
    result.data = buffer(bytes);
    return result;
}

// The state of a step; rows past its last one are poisoned.
struct Step {
    Buffer state, pages, rope;
    StepMemory shape;
    StepMemory memory(Side side) const {
        StepMemory result = shape;
        result.state = state.view[side], result.pages = pages.view[side], result.rope = rope.view[side];
        return result;
    }
    View header(Side side) const { return {state.view[side].address, sizeof(StepHeader)}; }
    View block(Side side, uint32_t i) const { // the header of a block
        return {state.view[side].address + block_header_at(i), sizeof(StepHeader)};
    }
};
inline Step step_of(const std::vector<StepRow>& rows, uint32_t trace_slot = 0,
                    const std::vector<StepHeader>& blocks = {}) {
    std::vector<uint32_t> words(block_header_at(static_cast<uint32_t>(blocks.size())) / 4, SENTINEL);
    const auto n = static_cast<uint32_t>(rows.size());
    const StepHeader header{n, n, trace_slot, rows.empty() ? 0 : rows[0].position};
    std::memcpy(words.data(), &header, sizeof(header));
    std::memcpy(words.data() + 4, rows.data(), rows.size() * sizeof(StepRow));
    std::memcpy(words.data() + block_header_at(0) / 4, blocks.data(), blocks.size() * sizeof(StepHeader));
    Step step;
    step.state = buffer(words);
    return step;
}
inline Step step_of(uint32_t n_rows) { // one sequence from its beginning
    std::vector<StepRow> rows;
    for (uint32_t t = 0; t < n_rows; ++t) rows.push_back({t, t, 0});
    return step_of(rows);
}

// |got - expected|^2 / |expected|^2; anything not finite is infinitely far.
inline double distance(std::span<const float> got, std::span<const float> expected) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(double{got[i]} - expected[i], 2);
        norm += std::pow(double{expected[i]}, 2);
    }
    const double nmse = difference == 0 ? 0 : difference / norm;
    return std::isfinite(nmse) ? nmse : std::numeric_limits<double>::infinity();
}

// The largest distance seen in a case, for its limit to be judged by; printed when the case ends.
class Worst {
  public:
    explicit Worst(std::string name) : name_(std::move(name)) {}
    ~Worst() {
        MESSAGE(fmt::format("{} on {}: NMSE at most {:.1e}", name_, executor(GPU).device_name(), nmse_));
    }
    void add(double nmse) { nmse_ = std::max(nmse_, nmse); }

  private:
    std::string name_;
    double nmse_ = 0;
};

// Checks the first `used` rows against the reference, and that the kernel wrote nothing else (where `exact`).
inline void compare(const Tensor& y, uint32_t used, double limit, Worst& worst, const std::string& what,
                    bool exact = true) {
    const auto got = read<float>(GPU, y), expected = read<float>(CPU, y);
    std::vector<float> a, b;
    size_t strays = 0;
    for (uint32_t r = 0; r < y.n_rows; ++r)
        for (uint32_t c = 0; c < y.stride; ++c) {
            const size_t i = size_t{r} * y.stride + c;
            if (r < used && c < y.cols)
                a.push_back(got[i]), b.push_back(expected[i]);
            else
                strays += std::bit_cast<uint32_t>(got[i]) != SENTINEL;
        }
    const double nmse = distance(a, b);
    worst.add(nmse);
    if (nmse > limit) FAIL_CHECK(fmt::format("{}: NMSE {:.3e}, limit {:.0e}", what, nmse, limit));
    if (exact && strays != 0)
        FAIL_CHECK(fmt::format("{}: {} words written outside the result", what, strays));
}

} // namespace fathom::test
