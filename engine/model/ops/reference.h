// Small helpers of the reference implementations: memory by address, as the kernels see it. Sums are in
// double.
#pragma once

#include "base/numbers.h"
#include "checkpoint/weight_format.h"
#include "model/plan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <vector>

namespace fathom::reference {

template <class T> T* at(ADDRESS address) { return reinterpret_cast<T*>(address); }
inline float* floats(ADDRESS address) { return at<float>(address); }
inline uint32_t* words(ADDRESS address) { return at<uint32_t>(address); }
inline float* row(ADDRESS base, uint64_t index, uint64_t stride) { return floats(base) + index * stride; }

inline const StepHeader& header(ADDRESS state) { return *at<StepHeader>(state); }
inline StepRow& step_row(ADDRESS state, uint32_t t) { return at<StepRow>(state + sizeof(StepHeader))[t]; }
inline uint32_t n_rows(ADDRESS state) { return header(state).n_rows; }
// The step's row t of the trace ring, from what is written in its first row.
inline uint32_t* trace_row(ADDRESS state, ADDRESS trace, uint32_t trace_stride, uint32_t t) {
    return words(trace) + uint64_t{(header(state).trace_slot + t) % TRACE_ROWS} * trace_stride;
}

// Weight row `row` of a matrix at `base`, as floats, until the next call on this thread.
template <Format F>
std::span<const float> weight_row(ADDRESS base, uint64_t row, uint64_t row_bytes, uint32_t cols) {
    thread_local std::vector<float> weights;
    weights.resize(cols);
    unpack_row(F, at<std::byte>(base + row * row_bytes), cols, weights.data());
    return weights;
}

inline double dot(std::span<const float> weights, const float* x) {
    double sum = 0;
    for (size_t k = 0; k < weights.size(); ++k) sum += double(weights[k]) * x[k];
    return sum;
}
// The dot product of weight row `row` of a matrix at `base` with x.
template <Format F> double dot(ADDRESS base, uint64_t row, uint64_t row_bytes, const float* x, uint32_t n) {
    return dot(weight_row<F>(base, row, row_bytes, n), x);
}

// x of n values, normed where there is a weight.
inline std::vector<float> normed(const float* x, uint32_t n, ADDRESS weight, float eps) {
    std::vector<float> y(x, x + n);
    if (weight == 0) return y;
    double squares = 0;
    for (const float value : y) squares += double(value) * value;
    const double scale = 1 / std::sqrt(squares / n + eps);
    for (uint32_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i] * scale * floats(weight)[i]);
    return y;
}

inline ADDRESS cache_row(ADDRESS cache, ADDRESS pages, const StepRow& r, uint32_t position,
                         uint32_t max_pages, uint32_t page_bytes, uint32_t row_bytes) {
    const uint32_t page = words(pages)[r.sequence * max_pages + position / PAGE_TOKENS];
    return cache + uint64_t{page} * page_bytes + uint64_t{position % PAGE_TOKENS} * row_bytes;
}
// A row of numbers into a cache row of this format (CACHE_F32, ...), and back.
void write_cache_row(uint32_t format, std::span<const float> numbers, ADDRESS row);
std::vector<float> read_cache_row(uint32_t format, ADDRESS row, uint32_t row_floats);

// Of the n_parts of attention over the cache, those that have positions.
inline uint32_t parts_used(const StepRow& r, uint32_t n_parts) {
    const uint32_t pages = div_up(r.position + 1, uint32_t{PAGE_TOKENS});
    return div_up(pages, div_up(pages, n_parts));
}

inline uint32_t pad4(uint32_t n) { return (n + 3) & ~3u; }

// x rotated by the table's row of `position`, into y; both rope_dim long and not the same.
inline void rotate(ADDRESS rope, uint32_t position, uint32_t rope_dim, uint32_t half_split, const float* x,
                   float* y) {
    const float* table = floats(rope) + uint64_t{position} * rope_dim;
    for (uint32_t i = 0; i < rope_dim / 2; ++i) {
        const uint32_t a = half_split ? i : 2 * i, b = half_split ? i + rope_dim / 2 : 2 * i + 1;
        const double c = table[2 * i], s = table[2 * i + 1];
        y[a] = static_cast<float>(x[a] * c - x[b] * s);
        y[b] = static_cast<float>(x[a] * s + x[b] * c);
    }
}

// What attention over the cache left of a head: `used` parts, each `values` numbers, the largest score and
// the sum.
struct JoinedParts {
    double sum = 0;
    JoinedParts(const float* parts, uint32_t used, uint32_t values) : parts_(parts), stride_(values + 4) {
        double largest = -1.7e38;
        for (uint32_t i = 0; i < used; ++i) largest = std::max<double>(largest, parts[i * stride_ + values]);
        for (uint32_t i = 0; i < used; ++i) {
            weights_.push_back(std::exp(parts[i * stride_ + values] - largest));
            sum += weights_.back() * parts[i * stride_ + values + 1];
        }
    }
    double value(uint32_t c) const { // still to be divided by the sum
        double joined = 0;
        for (size_t i = 0; i < weights_.size(); ++i) joined += weights_[i] * parts_[i * stride_ + c];
        return joined;
    }

  private:
    const float* parts_;
    size_t stride_;
    std::vector<double> weights_;
};

// Softmax weights of one query over some keys, unnormalised, with their maximum; scores are replaced by
// weights.
struct Softmax {
    double largest = -1.7e38, sum = 0;
    explicit Softmax(std::vector<double>& scores) {
        for (const double s : scores) largest = std::max(largest, s);
        for (double& s : scores) sum += s = std::exp(s - largest);
    }
};

} // namespace fathom::reference

namespace fathom {

// Appends an op whose kernel and reference exist once for each weight format; of the tier's kernel.
#define FATHOM_ADD_TIER(plan, kernel, tier, format, ...)                                                     \
    by_format(format, [&]<Format F>() {                                                                      \
        static const auto modules = modules_of(#kernel, name_of(F));                                         \
        (plan).add<kernel##_reference<F>>(modules[static_cast<size_t>(tier)], __VA_ARGS__);                  \
    })
#define FATHOM_ADD_BY_FORMAT(plan, kernel, format, ...)                                                      \
    FATHOM_ADD_TIER(plan, kernel, Tier::base, format, __VA_ARGS__)

// By tier: ops refer to their module's name, so that those who ask keep these.
inline std::array<std::string, std::size(TIERS)> modules_of(std::string_view kernel,
                                                            std::string_view format = "") {
    std::array<std::string, std::size(TIERS)> modules;
    for (const Tier tier : TIERS) modules[static_cast<size_t>(tier)] = module_name(kernel, tier, format);
    return modules;
}

template <class Add> void by_format(Format format, const Add& add) {
    switch (format) {
#define FATHOM_FORMAT(name, NAME)                                                                            \
    case Format::name:                                                                                       \
        add.template operator()<Format::name>();                                                             \
        break;
        FATHOM_EACH_FORMAT(FATHOM_FORMAT)
#undef FATHOM_FORMAT
    }
}

constexpr uint32_t WORKGROUP = 64; // invocations of every kernel that does not say otherwise

} // namespace fathom
