// Records out of a seed, for the tests of recordings.
#pragma once

#include "base/error.h"
#include "trace/file.h"

#include <doctest/doctest.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

namespace fathom::trace_test {

inline trace::Shape shape() {
    return {.n_layers = 4,
            .n_experts = 8,
            .n_active = 3,
            .n_groups = 4,
            .n_active_groups = 2,
            .moe_layers = {1, 2, 3}};
}

inline trace::TokenRecord record(uint32_t i, bool generated = false) {
    const trace::Shape s = shape();
    trace::TokenRecord r{.token = i * 7 % 50, .position = i, .session = 1, .time = 1000000ull * i};
    for (uint32_t c = 0; c < s.choices(); ++c) {
        r.experts.push_back(static_cast<uint16_t>((i + 3 * c) % s.n_experts));
        r.weights.push_back(0.25f * float(c + 1));
    }
    r.margin = {0.5f, std::numeric_limits<float>::infinity(), 1e-6f};
    r.entropy = {1, 2, 0};
    r.swapped = {0, i, 5};
    r.groups = {3, 12, 9};
    r.norms = {1, 2, 3, 4, 5};
    r.cache_bytes = 4096 + i, r.shared_bytes = i % 2;
    for (const uint32_t layer : {0u, 2u}) { // heads 1 to 3, two positions of a bin
        trace::AttentionRows rows{layer, 1, 3, 2, {}};
        const uint32_t bins = i / 2 + 1;
        for (uint32_t k = 0; i % 3 != 2 && k < 3 * bins; ++k)
            rows.weights.push_back((k % bins == i % bins ? 0.5f : 0) + 0.5f / float(bins));
        if (!rows.weights.empty()) r.attention.push_back(std::move(rows));
    }
    if (i % 3 != 2)
        r.scores.push_back(
            {2, {0, .1f, .2f, .3f, .4f, .5f, .6f, float(i)}, {1, 2, 3, 4, 5, 6, 7, -float(i)}});
    if (i % 4 == 1)
        for (uint32_t k = 0; k < s.times(); ++k) r.times.push_back(1e-5f * float(k % 7));
    if (!generated) return r;
    r.next = (i + 1) * 7 % 50;
    for (uint32_t c = 0; c < trace::CANDIDATES; ++c)
        r.candidates.push_back({r.next + c, -0.5f * float(c + 1)});
    return r;
}

inline bool same(const trace::TokenRecord& a, const trace::TokenRecord& b) {
    return a.token == b.token && a.position == b.position && a.session == b.session && a.time == b.time &&
           a.experts == b.experts && a.weights == b.weights && a.margin == b.margin &&
           a.entropy == b.entropy && a.swapped == b.swapped && a.groups == b.groups && a.norms == b.norms &&
           a.attention == b.attention && a.scores == b.scores && a.times == b.times &&
           a.cache_bytes == b.cache_bytes && a.shared_bytes == b.shared_bytes && a.next == b.next &&
           a.candidates == b.candidates;
}

inline trace::Identity identity() { return {shape(), {{"model", {{"name", "test"}}}, {"device", "none"}}}; }
inline std::string text_of(Token token) { return fmt::format("<{}>", token); }

class ScratchFile {
  public:
    ScratchFile()
        : path_(std::filesystem::temp_directory_path() / fmt::format("fathom-{}.ftrace", ::getpid())) {}
    ~ScratchFile() { std::filesystem::remove(path_); }
    const std::filesystem::path& path() const { return path_; }
    std::vector<std::byte> bytes() const {
        std::ifstream in(path_, std::ios::binary);
        const std::string text(std::istreambuf_iterator<char>(in), {});
        const auto all = std::as_bytes(std::span(text));
        return {all.begin(), all.end()};
    }

  private:
    std::filesystem::path path_;
};

} // namespace fathom::trace_test
