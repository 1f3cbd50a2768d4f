#include "trace/compare.h"

#include "base/error.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace fathom::trace {

namespace {

// The first session's records by position; of repeated ones the last.
std::vector<const TokenRecord*> timeline(const Recording& recording) {
    std::vector<const TokenRecord*> records;
    if (recording.tokens.empty()) return records;
    const uint32_t session = recording.tokens.front().session;
    for (const TokenRecord& record : recording.tokens) {
        if (record.session != session || record.position > recording.tokens.size()) continue;
        if (record.position >= records.size()) records.resize(size_t{record.position} + 1);
        records[record.position] = &record;
    }
    return records;
}

std::vector<uint16_t> without(std::span<const uint16_t> all, std::span<const uint16_t> others) {
    std::vector<uint16_t> left;
    for (const uint16_t e : all)
        if (std::find(others.begin(), others.end(), e) == others.end()) left.push_back(e);
    return left;
}

class Comparison {
  public:
    explicit Comparison(const Shape& shape) : shape_(shape) {}

    void add(const TokenRecord& a, const TokenRecord& b) {
        const bool tables = !a.experts.empty() && !b.experts.empty();
        for (size_t l = 0; tables && l < shape_.moe_layers.size(); ++l) add_choice(a, b, l);
        for (size_t i = 0; result.flips.empty() && i < std::min(a.norms.size(), b.norms.size()); ++i)
            if (std::isfinite(a.norms[i]) && std::isfinite(b.norms[i]))
                result.norms = std::max(result.norms, std::abs(double(a.norms[i]) - b.norms[i]) /
                                                          std::max(1e-9, std::abs(double(b.norms[i]))));
    }
    Difference result;

  private:
    void add_choice(const TokenRecord& a, const TokenRecord& b, size_t l) {
        const size_t n = shape_.n_active;
        const auto chosen_a = std::span(a.experts).subspan(l * n, n),
                   chosen_b = std::span(b.experts).subspan(l * n, n);
        const std::vector<uint16_t> only_a = without(chosen_a, chosen_b),
                                    only_b = without(chosen_b, chosen_a);
        ++result.choices;
        if (!only_a.empty())
            result.flips.push_back(
                {a.position, shape_.moe_layers[l], only_a, only_b, a.margin[l], b.margin[l]});
        for (size_t i = 0; result.flips.empty() && i < n; ++i) {
            const auto at = std::find(chosen_b.begin(), chosen_b.end(), chosen_a[i]) - chosen_b.begin();
            const double distance = std::abs(double(a.weights[l * n + i]) - b.weights[l * n + size_t(at)]);
            result.weights = std::max(result.weights, distance);
        }
    }
    const Shape& shape_;
};

} // namespace

Difference compare(const Recording& a, const Recording& b) {
    if (a.identity.shape != b.identity.shape)
        throw Error({.what = "these recordings are of models of different shape",
                     .expected = fmt::format("{} layers, {} of {} experts", a.identity.shape.n_layers,
                                             a.identity.shape.n_active, a.identity.shape.n_experts),
                     .got = fmt::format("{} layers, {} of {} experts", b.identity.shape.n_layers,
                                        b.identity.shape.n_active, b.identity.shape.n_experts),
                     .fix = "record one prompt with one model on both devices"});
    return compare(a.identity.shape, timeline(a), timeline(b));
}

Difference compare(const Shape& shape, std::span<const TokenRecord* const> a,
                   std::span<const TokenRecord* const> b) {
    Comparison comparison(shape);
    Difference& result = comparison.result;
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
        if (!a[i] || !b[i]) continue;
        if (a[i]->token != b[i]->token) {
            result.token = static_cast<uint32_t>(i);
            break;
        }
        comparison.add(*a[i], *b[i]);
        result.compared = static_cast<uint32_t>(i) + 1;
    }
    return result;
}

} // namespace fathom::trace
