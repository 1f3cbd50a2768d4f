// Sampling parameters on their way to the device: checked, then written where the sampler reads them.
#include "session/engine_impl.h"

#include "base/error.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fmt/format.h>

namespace fathom {

namespace {

void check_sampling(const SamplingParams& p, uint32_t vocab, uint32_t mask_words) {
    const auto range = [](const char* name, bool ok, const char* expected, double got) {
        if (ok) return;
        throw Error({.what = "a sampling parameter is out of range",
                     .where = name,
                     .expected = expected,
                     .got = fmt::format("{}", got)});
    };
    const auto finite = [&](const char* name, float value) {
        range(name, std::isfinite(value), "a finite number", value);
    };
    range("temperature", p.temperature >= 0 && std::isfinite(p.temperature), "0 or more", p.temperature);
    range("top_p", p.top_p > 0 && p.top_p <= 1, "above 0, at most 1", p.top_p);
    range("min_p", p.min_p >= 0 && p.min_p <= 1, "0 to 1", p.min_p);
    finite("repetition_penalty", p.repetition_penalty);
    range("repetition_penalty", p.repetition_penalty > 0, "above 0", p.repetition_penalty);
    finite("presence_penalty", p.presence_penalty);
    finite("frequency_penalty", p.frequency_penalty);
    range("bias", p.bias.size() <= MAX_BIAS, "at most 1024 entries", double(p.bias.size()));
    for (const auto& [token, bias] : p.bias) {
        range("bias token", token < vocab, "a token of the vocabulary", token);
        finite("bias", bias);
    }
    if (p.allowed.empty()) return;
    const double words = double(p.allowed.size());
    range("allowed", p.allowed.size() == mask_words, "one bit for each token of the vocabulary", words);
    bool any = false;
    for (uint32_t t = 0; t < vocab; ++t) any |= p.allowed[t / 32] >> (t % 32) & 1;
    range("allowed", any, "at least one allowed token", 0);
}

// (token, bits of the bias) pairs, each token once: entries of one token add up.
std::vector<uint32_t> bias_entries(std::vector<std::pair<Token, float>> bias) {
    std::sort(bias.begin(), bias.end());
    std::vector<uint32_t> entries;
    for (size_t i = 0; i < bias.size(); ++i) {
        if (i > 0 && bias[i].first == bias[i - 1].first) {
            bias[i].second += bias[i - 1].second;
            entries.resize(entries.size() - 2);
        }
        entries.insert(entries.end(), {bias[i].first, std::bit_cast<uint32_t>(bias[i].second)});
    }
    return entries;
}

} // namespace

// Counts of tokens for the penalties: the embedding kernel keeps them, save after what it does not see.
void Engine::Impl::rebuild_counts(Session::Impl& s) {
    std::vector<uint32_t> counts(model->config.vocab_size);
    for (uint32_t i = 0; i < s.cached; ++i) ++counts[s.tokens[i]];
    executor->upload(model->counts, uint64_t{s.sequence} * counts.size() * 4,
                     std::as_bytes(std::span(counts)));
    executor->flush();
    s.counts_valid = true;
}

namespace {
bool has_penalties(const SamplingParams& p) {
    return p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
}
} // namespace

bool Engine::Impl::sampler_changed(const Session::Impl& s) const {
    return !s.sampler_written || s.sampling != s.sampling_in_force ||
           (has_penalties(s.sampling) && !s.counts_valid);
}

void Engine::Impl::write_sampler(Session::Impl& s) {
    const SamplingParams& p = s.sampling;
    const bool penalties = has_penalties(p);
    if (penalties && !s.counts_valid) rebuild_counts(s);
    if (s.sampler_written && p == s.sampling_in_force) return;
    const uint32_t mask_words = model->mask_words;
    check_sampling(p, model->config.vocab_size, mask_words);
    const std::vector<uint32_t> bias = bias_entries(p.bias);
    const SamplerState state{.inv_temperature = p.temperature > 0 ? 1 / p.temperature : 0,
                             .top_p = p.top_p,
                             .min_p = p.min_p,
                             .repetition_penalty = p.repetition_penalty,
                             .presence_penalty = p.presence_penalty,
                             .frequency_penalty = p.frequency_penalty,
                             .top_k = p.top_k,
                             .n_bias = static_cast<uint32_t>(bias.size() / 2),
                             .use_mask = !p.allowed.empty(),
                             .seed_low = static_cast<uint32_t>(p.seed),
                             .seed_high = static_cast<uint32_t>(p.seed >> 32),
                             .use_penalties = penalties};
    const auto put = [&](View table, uint64_t row_bytes, const void* data, size_t bytes) {
        if (bytes != 0) std::memcpy(executor->mapped(table) + s.sequence * row_bytes, data, bytes);
    };
    put(model->samplers, sizeof(state), &state, sizeof(state));
    put(model->bias, 8 * MAX_BIAS, bias.data(), bias.size() * 4);
    put(model->mask, 4ull * mask_words, p.allowed.data(), p.allowed.size() * 4);
    s.sampling_in_force = p;
    s.sampler_written = true;
}

} // namespace fathom
