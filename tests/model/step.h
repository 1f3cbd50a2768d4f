// A small model of a golden case on any executor, and the steps that the tests of plans run on it: every kind
// of step, with rows of several sequences on scattered pages and random rows in the cache.
#pragma once

#include "golden/golden.h"
#include "model/forward.h"

#include <cstdlib>
#include <doctest/doctest.h>
#include <fmt/format.h>

namespace fathom::test {

constexpr uint32_t CONTEXT = 130, SEQUENCES = 8, MAX_PAGES = 3, N_PAGES = SEQUENCES * MAX_PAGES;

inline std::unique_ptr<Executor> gpu_executor() {
    const char* device = std::getenv("FATHOM_TEST_DEVICE");
    return make_gpu_executor({.select = device ? device : ""});
}

inline ModelOptions small_options() {
    ModelOptions options;
    options.context = CONTEXT;
    options.pages = N_PAGES;
    options.chunk = 16;
    return options;
}

inline std::unique_ptr<Model> model_of(const std::string& golden_case, Executor& on,
                                       const ModelOptions& options = small_options()) {
    golden::ScratchFolder folder;
    golden::write_checkpoint(golden::case_named(golden_case), folder.path());
    const ModelFiles files = open_model(folder.path());
    return std::make_unique<Model>(parse_config(files.config, files.config_where),
                                   source_of(files.checkpoint, options.weights), options, on);
}

struct Situation {
    const char* name;
    StepKind kind;
    std::vector<StepRow> rows;
};

// `expanded`: rows that the plans of expanded prompts are for.
inline std::vector<Situation> situations(uint32_t expanded = 16) {
    using Mode = StepKind::Mode;
    const auto chunk = [](uint32_t n, uint32_t start) {
        std::vector<StepRow> rows;
        for (uint32_t t = 0; t < n; ++t) rows.push_back({(t * 11 + 3) % 96, start + t, 1});
        return rows;
    };
    std::vector<StepRow> sequences; // one row of each, in no order
    for (uint32_t s = 0; s < SEQUENCES; ++s)
        sequences.push_back({s * 7 + 1, (s * 41 + 20) % CONTEXT, (s * 3 + 2) % SEQUENCES});
    const std::vector<StepRow> three(sequences.begin(), sequences.begin() + 3),
        seven(sequences.begin(), sequences.begin() + 7);
    return {
        {"decode of one", {Mode::decode, 1}, {{7, 70, 2}}},
        {"decode of three", {Mode::decode, 4}, three},
        {"decode of seven", {Mode::decode, 8}, seven},
        {"prefill", {Mode::prefill, 8}, chunk(7, 60)},
        {"expanded prefill", {Mode::prefill, expanded, true}, chunk(expanded - 3, 0)},
        {"expanded prefill with history",
         {Mode::prefill, expanded, true, history_blocks(expanded, 61)},
         chunk(expanded - 3, 61)},
        {"logits", {Mode::logits, 8}, chunk(5, 62)},
    };
}

// Puts a step's input where the host puts it: state, page tables, samplers; and random rows into the cache.
inline void prepare(const Model& m, Executor& on, const Situation& situation) {
    m.write_step(situation.kind, situation.rows, TRACE_ROWS - 2); // the routing ring wraps
    std::vector<uint32_t> pages;
    for (uint32_t i = 0; i < N_PAGES; ++i) pages.push_back((7 * i + 5) % N_PAGES);
    std::memcpy(on.mapped(m.page_tables), pages.data(), 4 * pages.size());
    std::vector<SamplerState> samplers(SEQUENCES);
    for (uint32_t s = 0; s < SEQUENCES; ++s) {
        samplers[s].top_p = 1, samplers[s].repetition_penalty = 1.2f, samplers[s].use_penalties = s % 2;
        samplers[s].n_bias = s % 3, samplers[s].use_mask = s % 2;
        samplers[s].n_bias = s % 3, samplers[s].use_mask = s % 2;
        samplers[s].inv_temperature = s < 4 ? 0 : 0.7f, samplers[s].seed_low = s;
    }
    std::memcpy(on.mapped(m.samplers), samplers.data(), samplers.size() * sizeof(SamplerState));
    std::vector<uint32_t> bias(SEQUENCES * 2 * MAX_BIAS), mask(SEQUENCES * m.mask_words, 0x7FF7F7FFu);
    for (uint32_t s = 0; s < SEQUENCES; ++s)
        for (uint32_t i = 0; i < 2; ++i) {
            bias[s * 2 * MAX_BIAS + 2 * i] = 5 * s + i;
            bias[s * 2 * MAX_BIAS + 2 * i + 1] = std::bit_cast<uint32_t>(2.5f);
        }
    std::memcpy(on.mapped(m.bias), bias.data(), 4 * bias.size());
    std::memcpy(on.mapped(m.mask), mask.data(), 4 * mask.size());
    for (size_t layer = 0; layer < m.cache.size(); ++layer) {
        std::vector<float> rows(m.cache[layer].bytes / 4);
        for (size_t i = 0; i < rows.size(); ++i) rows[i] = golden::unit(layer + 1, i);
        on.upload(m.cache[layer], 0, std::as_bytes(std::span(rows)));
    }
    on.zero(m.counts);
    on.flush();
}

inline std::vector<std::byte> read(Executor& on, View view) {
    std::vector<std::byte> bytes(view.bytes);
    on.download(view, bytes);
    return bytes;
}

// All that a step leaves behind, by name.
inline std::vector<std::pair<std::string, std::vector<std::byte>>> results(const Model& m, Executor& on) {
    std::vector<std::pair<std::string, std::vector<std::byte>>> all{{"state", read(on, m.state)},
                                                                    {"sampled", read(on, m.sampled)},
                                                                    {"trace ring", read(on, m.trace)},
                                                                    {"counts", read(on, m.counts)},
                                                                    {"logits", read(on, m.logits)}};
    for (size_t layer = 0; layer < m.cache.size(); ++layer)
        all.emplace_back(fmt::format("cache of layer {}", layer), read(on, m.cache[layer]));
    return all;
}

} // namespace fathom::test
