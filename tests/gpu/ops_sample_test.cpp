// Kernel sample against its reference, and against what the words mean: every parameter, ties, small and
// large vocabularies, and the distribution of what it draws.
#include "gpu/help.h"

#include <bit>
#include <limits>
#include <map>
#include <set>

using namespace fathom;
using namespace fathom::test;

namespace {

constexpr uint32_t VOCABS[] = {1, 20, 97, 4096, 5000};

SamplerState greedy() {
    SamplerState s{};
    s.top_p = 1, s.repetition_penalty = 1;
    return s;
}
SamplerState at_temperature(float temperature, uint32_t seed = 1) {
    SamplerState s = greedy();
    s.inv_temperature = 1 / temperature, s.seed_low = seed, s.seed_high = seed * 77;
    return s;
}

// Rows of sequences of their own, each with its sampler and logits.
struct Sampling {
    uint32_t vocab, n_rows, stride, mask_words;
    Step step;
    Tensor logits, adjusted;
    Buffer samplers, counts, bias, mask, sampled, arrivals;
    const Plan* plans[2] = {};

    Sampling(uint32_t n_tokens, const std::vector<SamplerState>& states, const std::vector<float>& values)
        : vocab(n_tokens), n_rows(static_cast<uint32_t>(states.size())), mask_words(div_up(n_tokens, 32)) {
        const uint32_t bucket = bucket_of(n_rows);
        std::vector<StepRow> rows;
        for (uint32_t t = 0; t < n_rows; ++t)
            rows.push_back({t % vocab, 5 + t, n_rows - 1 - t}); // sequences in another order
        step = step_of(rows);
        auto all = values;
        all.resize(uint64_t{bucket} * vocab);
        logits = tensor(bucket, vocab, all);
        adjusted = output(bucket, vocab);
        std::vector<SamplerState> by_sequence(states.rbegin(), states.rend());
        samplers = buffer(by_sequence);
        counts = buffer(std::vector<uint32_t>(uint64_t{n_rows} * vocab));
        bias = buffer(std::vector<uint32_t>(uint64_t{n_rows} * 2 * MAX_BIAS, SENTINEL));
        mask = buffer(std::vector<uint32_t>(uint64_t{n_rows} * mask_words));
        arrivals = arrivals_of(bucket, sample_words(vocab));
        sampled = blank(uint64_t{n_rows} * SAMPLED_RING * sizeof(Sampled) / 4);
    }
    void append(Plan& plan, Side side) const {
        sample(plan, "sample", step.memory(side),
               {logits.view[side], adjusted.view[side], samplers.view[side], counts.view[side],
                bias.view[side], mask.view[side], sampled.view[side], arrivals.view[side], vocab,
                mask_words});
    }
    void execute_on_gpu(uint32_t pieces = 1) { // as the first step
        run_cut(
            bucket_of(n_rows), [&](Plan& plan, Side side) { append(plan, side); }, pieces);
    }
    void execute() {
        const auto build = [&](Plan& plan, Side side) { append(plan, side); };
        for (const Side side : SIDES)
            if (plans[side])
                executor(side).run(*plans[side]);
            else
                plans[side] = &run(side, bucket_of(n_rows), build, executor(side).caps());
    }
    Sampled of_row(uint32_t row, Side side = GPU) const {
        const uint32_t position = state(side)[row].position; // the step has advanced to it
        return read<Sampled>(side, sampled)[(n_rows - 1 - row) * SAMPLED_RING + position % SAMPLED_RING];
    }
    std::vector<StepRow> state(Side side = GPU) const {
        const auto bytes = read<std::byte>(side, step.state);
        std::vector<StepRow> rows(n_rows);
        std::memcpy(rows.data(), bytes.data() + sizeof(StepHeader), n_rows * sizeof(StepRow));
        return rows;
    }
};

// Tokens and candidates exactly; logits with the same f32 operations, sums within f32.
void compare_sampling(const Sampling& s, const std::string& what) {
    for (uint32_t row = 0; row < s.n_rows; ++row) {
        INFO(what, ", row ", row);
        const Sampled got = s.of_row(row), expected = s.of_row(row, CPU);
        CHECK(got.token == expected.token);
        CHECK(got.position == expected.position);
        CHECK(std::equal(std::begin(got.candidate), std::end(got.candidate), std::begin(expected.candidate)));
        // A division or a fused multiply may round once more: within an ulp or two.
        for (uint32_t i = 0; i < MAX_CANDIDATES; ++i)
            CHECK(std::abs(got.logit[i] - expected.logit[i]) <= 1e-6f * (1 + std::abs(expected.logit[i])));
        CHECK(std::abs(got.log_sum - expected.log_sum) <= 2e-6f * (1 + std::abs(expected.log_sum)));
        const StepRow next = s.state()[row];
        CHECK(next.token == got.token); // the step advances to it
        CHECK(next.position == 6 + row);
        CHECK(next.sequence == s.n_rows - 1 - row);
    }
}

std::vector<SamplerState> every_sampler() {
    std::vector<SamplerState> all{greedy(), at_temperature(1), at_temperature(0.3f, 9),
                                  at_temperature(3, 123456789)};
    for (const uint32_t top_k : {1u, 5u, 19u, 64u, 100000u}) {
        all.push_back(at_temperature(1.5f, top_k));
        all.back().top_k = top_k;
    }
    for (const float top_p : {0.0f, 0.1f, 0.5f, 0.9f, 0.999f}) {
        all.push_back(at_temperature(1.5f, 4));
        all.back().top_p = top_p;
    }
    for (const float min_p : {0.01f, 0.3f, 1.0f}) {
        all.push_back(at_temperature(2, 5));
        all.back().min_p = min_p;
    }
    all.push_back(at_temperature(2, 6));
    all.back().top_k = 10, all.back().top_p = 0.8f, all.back().min_p = 0.05f;
    return all;
}

// How often each of 20 tokens is drawn over `steps` steps of 256 sequences that see the same logits.
std::vector<double> drawn(const SamplerState& base, const std::vector<float>& logits, uint32_t steps) {
    const Scratch scratch;
    std::vector<SamplerState> states(256, base);
    std::vector<float> values;
    for (uint32_t t = 0; t < 256; ++t) {
        states[t].seed_low = t * 2654435761u + 17;
        values.insert(values.end(), logits.begin(), logits.end());
    }
    Sampling s(20, states, values);
    std::vector<double> count(20);
    for (uint32_t i = 0; i < steps; ++i) {
        s.execute();
        for (const StepRow& row : s.state()) ++count.at(row.token);
    }
    return count;
}

// Pearson's statistic of counts against weights; a token of no weight must not be drawn.
double chi_square(const std::vector<double>& count, const std::vector<double>& weight) {
    double total = 0, draws = 0, sum = 0;
    for (size_t i = 0; i < count.size(); ++i) total += weight[i], draws += count[i];
    for (size_t i = 0; i < count.size(); ++i) {
        const double expected = draws * weight[i] / total;
        if (weight[i] == 0)
            CHECK(count[i] == 0);
        else
            sum += std::pow(count[i] - expected, 2) / expected;
    }
    return sum;
}

} // namespace

TEST_CASE("ops: sample of every vocabulary with every parameter") {
    const auto samplers = every_sampler();
    for (const uint32_t vocab : VOCABS) {
        Sampling s(vocab, samplers,
                   random_floats(fmt::format("logits {}", vocab), samplers.size() * vocab, 6));
        s.execute();
        compare_sampling(s, fmt::format("vocabulary of {}", vocab));
    }
}

TEST_CASE("ops: sample of the largest vocabulary, where a driver that bounds loops would show it") {
    const uint32_t vocab = 163840; // lavapipe ends a shader's loops after 65535 iterations in all
    SamplerState all = at_temperature(1.5f, 8);
    all.top_k = 5000, all.top_p = 0.9f, all.min_p = 1e-6f;
    auto values = random_floats("large", vocab, 6);
    values.insert(values.end(), vocab, 1.5f); // all equal: the longest search for candidates
    const auto pure = random_floats("pure", vocab, 6);
    values.insert(values.end(), vocab, -2.5f);
    for (int i = 0; i < 3; ++i) values.insert(values.end(), pure.begin(), pure.end());
    values.resize(8ull * vocab, -2.5f);
    SamplerState half = at_temperature(1, 3); // a whole row's weight, and as much of it as candidates are not
    half.top_p = 0.5f;
    Sampling s(vocab, {all, all, greedy(), at_temperature(1, 2), half, at_temperature(0.05f, 4)}, values);
    s.execute();
    compare_sampling(s, "largest vocabulary");
}

TEST_CASE("ops: sample in pieces of the vocabulary and of the rows") {
    for (const uint32_t pieces : {2u, 3u, 256u})
        for (const uint32_t n_rows : {1u, 4u}) {
            const uint32_t vocab = 3 * SAMPLE_TILE - 5;
            Sampling s(vocab, std::vector(n_rows, at_temperature(1, 5)),
                       random_floats("pieces", uint64_t{n_rows} * vocab, 6));
            s.execute_on_gpu(pieces);
            run(
                CPU, bucket_of(n_rows), [&](Plan& plan, Side side) { s.append(plan, side); },
                executor(CPU).caps());
            compare_sampling(s, fmt::format("{} rows in {} pieces", n_rows, pieces));
        }
}

TEST_CASE("ops: sample of logits that are no numbers gives tokens of the vocabulary") {
    const float nan = std::numeric_limits<float>::quiet_NaN(),
                infinity = std::numeric_limits<float>::infinity();
    for (const uint32_t vocab : {20u, SAMPLE_TILE + 3u}) {
        SamplerState cut = at_temperature(1, 2);
        cut.top_p = 0.9f, cut.top_k = 30;
        const std::vector<SamplerState> samplers{greedy(), at_temperature(1), cut};
        for (const float odd : {nan, -nan, infinity, -infinity})
            for (const uint32_t every : {1u, 7u}) {
                std::vector<float> values(3 * vocab, 0.5f);
                for (size_t i = 0; i < values.size(); i += every) values[i] = odd;
                Sampling s(vocab, samplers, values);
                s.execute_on_gpu();
                for (uint32_t row = 0; row < 3; ++row) {
                    const Sampled out = s.of_row(row);
                    CHECK(out.token < vocab);
                    for (const uint32_t token : out.candidate) CHECK((token < vocab || token == 0xFFFFFFFF));
                }
            }
    }
}

TEST_CASE("ops: sample with penalties, bias and mask") {
    for (const uint32_t vocab : {20u, 97u, 5000u}) {
        std::vector<SamplerState> samplers(8, greedy());
        for (uint32_t t = 0; t < 8; ++t) {
            SamplerState& s = samplers[t];
            if (t % 2) s.inv_temperature = 0.8f, s.seed_low = t;
            if (t & 4)
                s.use_penalties = 1, s.repetition_penalty = 1.3f, s.presence_penalty = 0.5f,
                s.frequency_penalty = 0.25f;
            if (t & 2) s.n_bias = 3, s.use_mask = 1;
        }
        Sampling s(vocab, samplers, random_floats(fmt::format("penalised {}", vocab), 8ull * vocab, 6));
        std::vector<uint32_t> counts(8ull * vocab), mask(8ull * s.mask_words),
            bias(8ull * 2 * MAX_BIAS, SENTINEL);
        for (size_t i = 0; i < counts.size(); ++i) counts[i] = i % 3 == 0 ? static_cast<uint32_t>(i % 5) : 0;
        for (size_t i = 0; i < mask.size(); ++i) mask[i] = 0x5A5A0F0Fu + static_cast<uint32_t>(i) * 7;
        for (uint32_t sequence = 0; sequence < 8; ++sequence)
            for (uint32_t i = 0; i < 3; ++i) {
                bias[sequence * 2 * MAX_BIAS + 2 * i] = i < 2 ? 3 * i + sequence : vocab - 1 - sequence;
                bias[sequence * 2 * MAX_BIAS + 2 * i + 1] = std::bit_cast<uint32_t>(i == 1 ? -100.0f : 4.5f);
            }
        s.counts = buffer(counts), s.mask = buffer(mask), s.bias = buffer(bias);
        s.execute();
        compare_sampling(s, fmt::format("vocabulary of {}", vocab));
    }
}

TEST_CASE("ops: sample under a mask that leaves few tokens") {
    SamplerState masked = greedy(), hot = at_temperature(5, 3);
    masked.use_mask = hot.use_mask = 1;
    for (const uint32_t vocab : {97u, 3 * SAMPLE_TILE + 1u}) { // the last: a tile of one token
        Sampling s(vocab, {masked, hot, hot}, random_floats("few", 3 * vocab, 6));
        std::vector<uint32_t> mask(3 * s.mask_words);
        mask[0] = mask[s.mask_words] = mask[2 * s.mask_words] = 1u << 30 | 1u << 3;
        mask[2 * s.mask_words - 1] = 1; // the last token for the second sequence
        s.mask = buffer(mask);
        s.execute();
        compare_sampling(s, "few");
        for (uint32_t row = 0; row < 3; ++row) {
            const Sampled out = s.of_row(row);
            CHECK(std::set<uint32_t>{3, 30, vocab - 1}.contains(out.token));
            CHECK(out.candidate[3] == 0xFFFFFFFF); // a masked token is no candidate
            CHECK((out.candidate[2] == 0xFFFFFFFF) == (row != 1));
        }
    }
}

TEST_CASE("ops: sample among equal logits takes the lower token first") {
    for (const uint32_t vocab : {20u, 97u, 5000u}) {
        std::vector<float> equal(vocab, 1.5f), two(vocab, -1.0f);
        two[vocab - 1] = two[vocab / 2] = 2;
        equal.insert(equal.end(), two.begin(), two.end());
        Sampling s(vocab, {greedy(), greedy()}, equal);
        s.execute();
        compare_sampling(s, "equal");
        CHECK(s.of_row(0).token == 0);
        CHECK(s.of_row(1).token == vocab / 2);
        for (uint32_t i = 0; i < MAX_CANDIDATES; ++i) CHECK(s.of_row(0).candidate[i] == i);
        CHECK(s.of_row(1).candidate[1] == vocab - 1);
        CHECK(s.of_row(1).candidate[2] == 0);
    }
}

TEST_CASE("ops: sample among many logits of the greatest bit pattern takes the lowest token of them") {
    std::vector<float> logits(SAMPLE_TILE, 1.0f);
    std::fill(logits.begin() + 3600, logits.end(), std::bit_cast<float>(0x7FFFFFFFu)); // no number
    Sampling s(SAMPLE_TILE, {greedy()}, logits);
    s.execute_on_gpu();
    CHECK(s.of_row(0).token == 3600);
    for (uint32_t i = 0; i < MAX_CANDIDATES; ++i)
        CHECK(std::bit_cast<uint32_t>(s.of_row(0).logit[i]) == 0x7FFFFFFFu);
}

TEST_CASE("ops: sample among logits that rise and fall, whose tiles have many near their best") {
    const uint32_t vocab = 9000;
    std::vector<float> logits(2 * vocab);
    for (uint32_t i = 0; i < vocab; ++i) logits[i] = 1e-3f * i, logits[vocab + i] = -1e-3f * i;
    Sampling s(vocab, {greedy(), greedy()}, logits);
    s.execute();
    compare_sampling(s, "rising and falling");
    for (uint32_t i = 0; i < MAX_CANDIDATES; ++i) {
        CHECK(s.of_row(0).candidate[i] == vocab - 1 - i);
        CHECK(s.of_row(1).candidate[i] == i);
    }
}

TEST_CASE("ops: sample gives the same token for the same seed and position, and another for another") {
    const auto logits = random_floats("seeds", 4096, 1);
    std::vector<float> values;
    std::vector<SamplerState> states;
    for (uint32_t t = 0; t < 8; ++t) {
        values.insert(values.end(), logits.begin(), logits.end());
        states.push_back(at_temperature(1, t / 2 + 1));
    }
    Sampling s(4096, states, values), again(4096, states, values);
    s.execute(), again.execute();
    std::set<uint32_t> tokens;
    for (uint32_t row = 0; row < 8; ++row) {
        CHECK(s.of_row(row).token == again.of_row(row).token);
        tokens.insert(s.of_row(row).token);
    }
    CHECK(tokens.size() >= 7); // nearly flat: eight draws hardly meet, though pairs share a seed
}

TEST_CASE("ops: sample draws in proportion to the weights") {
    const auto logits = random_floats("distribution", 20, 2);
    struct Draw {
        const char* name;
        SamplerState sampler;
        double least, degrees; // weights below `least` of the largest are cut
    };
    SamplerState min_p = at_temperature(1), warm = at_temperature(2);
    min_p.min_p = 0.2f;
    for (const Draw& draw : {Draw{"temperature 1", at_temperature(1), 0, 19},
                             Draw{"temperature 2", warm, 0, 19}, Draw{"min_p", min_p, 0.2, 19}}) {
        const float largest = *std::max_element(logits.begin(), logits.end());
        std::vector<double> weight;
        for (const float z : logits) {
            const double w = std::exp((double(z) - largest) * draw.sampler.inv_temperature);
            weight.push_back(w >= draw.least ? w : 0);
        }
        const double statistic = chi_square(drawn(draw.sampler, logits, 16), weight);
        MESSAGE(fmt::format("{}: chi square {:.1f}", draw.name, statistic));
        CHECK(statistic < 45); // of 19 degrees of freedom: one in a thousand honest samplers exceeds 44; the
                               // seeds are fixed
    }
}

TEST_CASE("ops: sample keeps exactly what top_k and top_p name") {
    const std::vector<float> logits = [] { // probabilities halve: 1/2, 1/4, ...
        std::vector<float> z(20);
        for (uint32_t i = 0; i < 20; ++i) z[(7 * i + 3) % 20] = -static_cast<float>(i) * 0.6931472f;
        return z;
    }();
    const auto kept = [&](const SamplerState& s) {
        const auto count = drawn(s, logits, 4);
        return 20 - std::count(count.begin(), count.end(), 0.0);
    };
    SamplerState s = at_temperature(1);
    for (const uint32_t top_k : {1u, 2u, 4u}) {
        s.top_k = top_k;
        CHECK(kept(s) == top_k);
    }
    s.top_k = 0;
    for (const auto& [top_p, tokens] :
         std::map<float, int>{{0.1f, 1}, {0.49f, 1}, {0.52f, 2}, {0.76f, 3}, {0.9f, 4}}) {
        s.top_p = top_p;
        CHECK(kept(s) == tokens);
    }
    s.top_k = 3, s.top_p = 0.8f; // of 4/7, 2/7, 1/7: two hold 0.857
    CHECK(kept(s) == 2);
}
