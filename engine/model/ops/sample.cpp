// Sampling on the device: the next token of each row, its candidates, and the step advanced to it. See
// sample.comp.
#include "base/numbers.h"
#include "model/ops/ops.h"
#include "model/ops/reference.h"

#include "base/error.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fathom {

using namespace reference;

namespace {

constexpr float LOWEST = -1.7e38f;

std::vector<float> adjusted_logits(const Sample& p, const SamplerState& s, uint32_t row_index,
                                   uint32_t sequence) {
    std::vector<float> z(row(p.logits, row_index, p.logits_stride),
                         row(p.logits, row_index, p.logits_stride) + p.vocab);
    const uint32_t* counts = words(p.counts) + uint64_t{sequence} * p.vocab;
    for (uint32_t i = 0; i < p.vocab && s.use_penalties; ++i) {
        if (counts[i] == 0) continue;
        z[i] = z[i] > 0 ? z[i] / s.repetition_penalty : z[i] * s.repetition_penalty;
        z[i] -= s.presence_penalty + s.frequency_penalty * static_cast<float>(counts[i]);
    }
    const uint32_t* bias = words(p.bias) + uint64_t{sequence} * 2 * MAX_BIAS;
    for (uint32_t i = 0; i < s.n_bias; ++i) z[bias[2 * i]] += std::bit_cast<float>(bias[2 * i + 1]);
    const uint32_t* mask = words(p.mask) + uint64_t{sequence} * p.mask_words;
    for (uint32_t i = 0; i < p.vocab && s.use_mask; ++i)
        if (!(mask[i / 32] >> (i % 32) & 1)) z[i] = LOWEST;
    return z;
}

float uniform_number(const SamplerState& s, uint32_t position) {
    uint32_t a = position, b = s.seed_high, key = s.seed_low;
    for (int round = 0; round < 10; ++round) {
        const uint64_t product = uint64_t{a} * 0xD256D193u;
        a = static_cast<uint32_t>(product >> 32) ^ key ^ b;
        b = static_cast<uint32_t>(product);
        key += 0x9E3779B9u;
    }
    return static_cast<float>(a >> 8) * 0x1p-24f;
}

uint32_t draw(const std::vector<float>& z, const std::vector<uint32_t>& best_first, const SamplerState& s,
              uint32_t position) {
    const float largest = z[best_first[0]];
    float edge = std::nextafter(LOWEST, 0.0f);
    if (s.top_k != 0 && s.top_k < z.size()) edge = std::max(edge, z[best_first[s.top_k - 1]]);
    const auto weight = [&](uint32_t i) { return std::exp((double(z[i]) - largest) * s.inv_temperature); };
    if (s.top_p < 1) {
        double total = 0, sum = 0;
        for (uint32_t i = 0; i < z.size(); ++i) total += z[i] >= edge ? weight(i) : 0;
        for (const uint32_t i : best_first) {
            if (z[i] < edge) break;
            sum += weight(i);
            if (sum < s.top_p * total) continue;
            edge = z[i];
            break;
        }
    }
    const auto kept = [&](uint32_t i) { return z[i] >= edge && weight(i) >= s.min_p; };
    double total = 0;
    for (uint32_t i = 0; i < z.size(); ++i) total += kept(i) ? weight(i) : 0;
    double target = uniform_number(s, position) * total;
    uint32_t chosen = best_first[0];
    for (uint32_t i = 0; i < z.size(); ++i) {
        if (!kept(i)) continue;
        chosen = i;
        if (target < weight(i)) break;
        target -= weight(i);
    }
    return chosen;
}

void sample_reference(const Sample& p) {
    for (uint32_t r = 0; r < header(p.state).n_samples; ++r) {
        StepRow& step = step_row(p.state, r);
        const SamplerState& s = at<SamplerState>(p.samplers)[step.sequence];
        const std::vector<float> z = adjusted_logits(p, s, r, step.sequence);
        std::copy(z.begin(), z.end(), row(p.adjusted, r, p.logits_stride));
        std::vector<uint32_t> best_first(p.vocab);
        for (uint32_t i = 0; i < p.vocab; ++i) best_first[i] = i;
        std::stable_sort(best_first.begin(), best_first.end(),
                         [&](uint32_t a, uint32_t b) { return z[a] > z[b]; });

        Sampled& out =
            at<Sampled>(p.sampled)[step.sequence * SAMPLED_RING + (step.position + 1) % SAMPLED_RING];
        for (uint32_t i = 0; i < MAX_CANDIDATES; ++i) {
            const bool valid = i < p.vocab && z[best_first[i]] > LOWEST;
            out.candidate[i] = valid ? best_first[i] : 0xFFFFFFFFu;
            out.logit[i] = valid ? z[best_first[i]] : LOWEST;
        }
        out.largest = z[best_first[0]];
        double sum = 0;
        for (const float x : z) sum += x > LOWEST ? std::exp(double(x) - out.largest) : 0;
        out.log_sum = static_cast<float>(std::log(sum));
        out.position = step.position + 1;
        out.token = s.inv_temperature > 0 ? draw(z, best_first, s, step.position + 1) : best_first[0];
        step = {out.token, step.position + 1, step.sequence};
    }
    at<StepHeader>(p.state)->trace_slot += n_rows(p.state);
}

} // namespace

uint32_t sample_words(uint32_t vocab) { return div_up(vocab, SAMPLE_TILE) * SAMPLE_WORDS; }

void sample(Plan& plan, const std::string& label, const StepMemory& step, const SampleMemory& m) {
    check(div_up(m.vocab, SAMPLE_TILE) * MAX_CANDIDATES <= SAMPLE_TILE, "what tiles leave fits one of them");
    const Sample p{step.state.address,
                   m.logits.address,
                   m.adjusted.address,
                   m.samplers.address,
                   m.counts.address,
                   m.bias.address,
                   m.mask.address,
                   m.sampled.address,
                   m.arrivals.address,
                   m.vocab,
                   static_cast<uint32_t>(round_up(m.vocab, 8)),
                   m.mask_words};
    const View arrivals{m.arrivals.address, arrival_bytes(plan.rows(), sample_words(m.vocab))};
    plan.add<sample_reference>("sample", label, p, {div_up(m.vocab, SAMPLE_TILE), plan.rows(), 1}, {},
                               {step.state, m.logits, m.samplers, m.counts, m.bias, m.mask, arrivals},
                               {step.state, m.adjusted, m.sampled, arrivals});
}

} // namespace fathom
