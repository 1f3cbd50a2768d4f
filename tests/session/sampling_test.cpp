// Sampling as a session offers it, against the same computation on the host from Session::logits: penalties,
// bias, mask, candidates, the limits of top_k, top_p and min_p, seeds, and parameters that are out of range.
#include "session/help.h"

#include <algorithm>
#include <set>

using namespace fathom;
using namespace fathom::session_test;

namespace {

constexpr size_t N_CANDIDATES = 20;

// Logits as the sampler sees them: the definitions of SamplingParams, in their order. Masked tokens are -inf.
std::vector<double> adjusted(std::span<const float> logits, const SamplingParams& p,
                             std::span<const Token> tokens) {
    std::vector<double> z(logits.begin(), logits.end());
    for (const Token t : std::set<Token>(tokens.begin(), tokens.end())) {
        z[t] = z[t] > 0 ? z[t] / p.repetition_penalty : z[t] * p.repetition_penalty;
        z[t] -=
            p.presence_penalty + p.frequency_penalty * double(std::count(tokens.begin(), tokens.end(), t));
    }
    for (const auto& [token, value] : p.bias) z[token] += value;
    for (size_t t = 0; t < z.size() && !p.allowed.empty(); ++t)
        if (!(p.allowed[t / 32] >> (t % 32) & 1)) z[t] = -std::numeric_limits<double>::infinity();
    return z;
}

std::vector<double> log_softmax(const std::vector<double>& z) {
    const double largest = *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (const double value : z) sum += std::exp(value - largest);
    std::vector<double> result;
    for (const double value : z) result.push_back(value - largest - std::log(sum));
    return result;
}

// The candidates of the last token, generated after `before`, are the best of `logprobs`,
// best first, each with its own.
void check_candidates(std::span<const Candidate> candidates, const std::vector<double>& logprobs) {
    std::vector<double> best(logprobs);
    std::sort(best.rbegin(), best.rend());
    const auto possible = static_cast<size_t>(
        std::count_if(best.begin(), best.end(), [](double v) { return std::isfinite(v); }));
    REQUIRE(candidates.size() == std::min(possible, N_CANDIDATES));
    std::set<Token> seen;
    double worst = 0;
    for (size_t i = 0; i < candidates.size(); ++i) {
        const auto [token, logprob] = candidates[i];
        seen.insert(token);
        worst = std::max({worst, std::abs(logprob - logprobs[token]), std::abs(logprob - best[i])});
    }
    // a few f32 roundings
    CHECK(worst <= 1e-5 * (1 + std::abs(best.front()) + std::abs(best[candidates.size() - 1])));
    CHECK(seen.size() == candidates.size());
}

// Generates n tokens under `params` and checks each step against the host.
void check_against_host(Engine& engine, const SamplingParams& params, int n) {
    auto session = opened(engine, prompt(12, 41, engine.config().vocab_size));
    session.sampling() = params;
    for (int i = 0; i < n; ++i) {
        const auto logits = next_logits(session);
        const auto logprobs = log_softmax(adjusted(logits, params, session.tokens()));
        const Token token = session.next();
        check_candidates(session.candidates(), logprobs);
        CHECK(std::isfinite(logprobs[token]));
        if (params.temperature == 0) CHECK(token == session.candidates().front().token);
    }
}

std::vector<Token> generated(Engine& engine, const SamplingParams& params, int n) {
    auto session = opened(engine, prompt(12, 42, engine.config().vocab_size));
    session.sampling() = params;
    for (int i = 0; i < n; ++i) session.next();
    return {session.tokens().begin() + 12, session.tokens().end()};
}

std::vector<uint32_t> mask_of(std::span<const Token> tokens, uint32_t vocab) {
    std::vector<uint32_t> mask((vocab + 31) / 32);
    for (const Token t : tokens) mask[t / 32] |= 1u << t % 32;
    return mask;
}

} // namespace

TEST_CASE("sampling: candidates are the most probable tokens with their probabilities") {
    check_against_host(shared_engine(), {.temperature = 0}, 4);
    check_against_host(shared_engine(), {.temperature = 0.7f, .seed = 2}, 8);
    const auto odd = load("v3_odd"); // a vocabulary that is no multiple of anything
    check_against_host(*odd, {.temperature = 1.2f, .seed = 3}, 6);
}

TEST_CASE("sampling: penalties are those of a host computation") {
    const float none = 0;
    check_against_host(shared_engine(), {.temperature = 1.5f, .repetition_penalty = 1.8f, .seed = 1}, 10);
    check_against_host(shared_engine(), {.temperature = 1.5f, .repetition_penalty = 0.6f, .seed = 1}, 6);
    check_against_host(shared_engine(), {.temperature = 1.5f, .presence_penalty = 1.25f, .seed = 1}, 10);
    // repeats one token
    check_against_host(shared_engine(), {.temperature = none, .frequency_penalty = -0.75f}, 12);
    check_against_host(shared_engine(),
                       {.temperature = 1,
                        .repetition_penalty = 1.3f,
                        .presence_penalty = 0.5f,
                        .frequency_penalty = 0.25f,
                        .seed = 6,
                        .bias = {{5, 2.5f}, {6, -3.0f}, {5, 0.5f}}},
                       10);
}

TEST_CASE("sampling: penalties count what rewinds, forks, scores and other uses of the slot left") {
    const SamplingParams params{.temperature = 0, .repetition_penalty = 1.2f, .frequency_penalty = 0.5f};
    const auto check_next = [&](Session& session) {
        session.sampling() = params;
        const auto logits = next_logits(session);
        const auto logprobs = log_softmax(adjusted(logits, params, session.tokens()));
        session.next();
        check_candidates(session.candidates(), logprobs);
    };
    for (int i = 0; i < 2; ++i) { // the second session finds the first one's slot
        auto session = opened(shared_engine(), prompt(15, 43));
        check_next(session);
        session.next();
        session.rewind(10);
        check_next(session);
        session.score(prompt(9, 44));
        check_next(session);
        auto fork = session.fork();
        fork.feed(prompt(5, 45));
        check_next(fork);
        check_next(session);
        session.rewind(0);
        session.feed(prompt(6, 46));
        check_next(session);
    }
}

TEST_CASE("sampling: only allowed tokens are generated") {
    const uint32_t vocab = shared_engine().config().vocab_size;
    const std::vector<Token> allowed{3, 31, 32, 64, 95};
    for (const float temperature : {0.0f, 1.0f, 5.0f}) {
        const SamplingParams params{
            .temperature = temperature, .seed = 8, .allowed = mask_of(allowed, vocab)};
        for (const Token token : generated(shared_engine(), params, 20))
            CHECK(std::find(allowed.begin(), allowed.end(), token) != allowed.end());
    }
    check_against_host(shared_engine(), {.temperature = 2, .seed = 9, .allowed = mask_of(allowed, vocab)}, 6);
    // A bias cannot bring a forbidden token back.
    check_against_host(shared_engine(),
                       {.temperature = 2, .bias = {{4, 1000.0f}}, .allowed = mask_of(allowed, vocab)}, 4);
    const std::vector<Token> one{17};
    CHECK(generated(shared_engine(), {.allowed = mask_of(one, vocab)}, 4) == std::vector<Token>(4, 17));
}

TEST_CASE("sampling: a bias makes a token certain or impossible, and the longest list is taken") {
    CHECK(generated(shared_engine(), {.bias = {{7, 200.0f}}}, 4) == std::vector<Token>(4, 7));
    std::vector<std::pair<Token, float>> others; // all but token 9, ten times over
    for (int i = 0; i < 10; ++i)
        for (Token t = 0; t < 96; ++t)
            if (t != 9) others.emplace_back(t, -20.0f);
    CHECK(generated(shared_engine(), {.bias = others}, 4) == std::vector<Token>(4, 9));
    check_against_host(shared_engine(), {.temperature = 1, .bias = others}, 2);
}

TEST_CASE("sampling: top_k, top_p and min_p keep what they say") {
    auto session = opened(shared_engine(), prompt(12, 47), 1);
    const auto check_kept = [&](const SamplingParams& params, auto kept_of) {
        session.sampling() = params;
        std::set<Token> drawn;
        for (int i = 0; i < 25; ++i) {
            const auto logprobs = log_softmax(adjusted(next_logits(session), params, session.tokens()));
            session.next();
            const auto candidates = session.candidates();
            const auto at = static_cast<size_t>(
                std::find_if(candidates.begin(), candidates.end(),
                             [&](const Candidate& c) { return c.token == session.tokens().back(); }) -
                candidates.begin());
            drawn.insert(static_cast<Token>(at));
            CHECK(at < kept_of(candidates));
        }
        return drawn.size();
    };
    // each once in 25
    CHECK(check_kept({.temperature = 3, .top_k = 4, .seed = 1}, [](auto) { return size_t{4}; }) == 4);
    CHECK(check_kept({.temperature = 3, .top_k = 1, .seed = 2}, [](auto) { return size_t{1}; }) == 1);
    CHECK(check_kept({.temperature = 1, .top_p = 0.3f, .seed = 3}, [](std::span<const Candidate> candidates) {
              double sum = 0;
              size_t n = 0;
              while (n < candidates.size() && sum < 0.3f - 1e-5)
                  sum += std::exp(double(candidates[n++].logprob));
              return n;
          }) > 1);
    CHECK(check_kept({.temperature = 2, .min_p = 0.7f, .seed = 4}, [](std::span<const Candidate> candidates) {
              size_t n = 0; // the ratio to the best, at this temperature
              while (n < candidates.size() &&
                     (candidates[n].logprob - candidates[0].logprob) / 2 > std::log(0.7) - 1e-5)
                  ++n;
              return n;
          }) > 1);
}

TEST_CASE("sampling: the same seed gives the same tokens twice, another seed others") {
    const SamplingParams params{.temperature = 1, .seed = 77};
    const auto first = generated(shared_engine(), params, 24);
    CHECK(generated(shared_engine(), params, 24) == first);
    std::set<std::vector<Token>> all{first};
    for (const uint64_t seed : {0ull, 78ull, 77ull << 32, 77ull | 1ull << 32, ~0ull})
        all.insert(generated(shared_engine(), {.temperature = 1, .seed = seed}, 24));
    CHECK(all.size() == 6);
}

TEST_CASE("sampling: parameters change between tokens") {
    auto changing = opened(shared_engine(), prompt(20, 48), 1.5f, 5),
         steady = opened(shared_engine(), prompt(20, 48), 1.5f, 5);
    const auto expected = steps_of(steady, 4);
    CHECK_SAME_STEPS(steps_of(changing, 4), expected);
    auto greedy = steady.fork();
    greedy.sampling() = {.temperature = 0};
    const Step best = step_of(greedy);
    changing.sampling().temperature = 0;
    CHECK(step_of(changing) == best);
    CHECK(best.token == best.candidates.front().first);
    changing.rewind(24);
    changing.sampling().temperature = 1.5f; // as if nothing had been changed
    CHECK_SAME_STEPS(steps_of(changing, 4), steps_of(steady, 4));
    changing.sampling().allowed = mask_of(std::vector<Token>{50}, 96);
    CHECK(changing.next() == 50);
    changing.sampling().allowed.clear();
    CHECK(step_of(changing).candidates.size() == N_CANDIDATES);
}

TEST_CASE("sampling: a parameter out of range is an error that names it, and changes nothing") {
    const float nan = std::numeric_limits<float>::quiet_NaN(),
                infinite = std::numeric_limits<float>::infinity();
    auto session = opened(shared_engine(), prompt(10, 49));
    const auto refused = [&](const char* field, const SamplingParams& params) {
        session.sampling() = params;
        CHECK_ERROR(field, session.next());
        CHECK(session.position() == 10);
    };
    for (const float bad : {-1.0f, nan, infinite}) refused("temperature", {.temperature = bad});
    for (const float bad : {0.0f, -0.5f, 1.5f, nan}) refused("top_p", {.top_p = bad});
    for (const float bad : {-0.5f, 1.5f, nan}) refused("min_p", {.min_p = bad});
    for (const float bad : {0.0f, -1.0f, nan, infinite})
        refused("repetition_penalty", {.repetition_penalty = bad});
    for (const float bad : {nan, infinite}) refused("presence_penalty", {.presence_penalty = bad});
    for (const float bad : {nan, -infinite}) refused("frequency_penalty", {.frequency_penalty = bad});
    refused("bias", {.bias = {{96, 1.0f}}});
    refused("bias", {.bias = {{1, nan}}});
    refused("bias", {.bias = std::vector<std::pair<Token, float>>(1025, {1, 0.0f})});
    refused("allowed", {.allowed = {1, 2}});
    refused("allowed", {.allowed = {0, 0, 0}});
    session.sampling() = {.temperature = 0};
    auto fresh = opened(shared_engine(), prompt(10, 49));
    CHECK_SAME_STEPS(steps_of(session, 3), steps_of(fresh, 3));
}

TEST_CASE("sampling: scores are the log-softmax of the logits, in pieces and at once") {
    const auto begun = prompt(45, 50), tokens = prompt(40, 51);
    auto session = opened(shared_engine(), begun);
    auto other = session.fork();
    const auto scores = session.score(tokens);
    REQUIRE(scores.size() == tokens.size());
    CHECK(session.position() == 85);
    const uint32_t vocab = shared_engine().config().vocab_size;
    const Token last = begun.back();
    auto before = opened(shared_engine(), begun);
    before.rewind(44);
    // after the last token of the prompt, whose tokens are expanded again
    auto logits = before.logits(std::vector{last});
    const auto rest = other.logits(tokens);
    logits.insert(logits.end(), rest.begin(), rest.end());
    for (size_t i = 0; i < tokens.size(); ++i) {
        const auto row = std::span(logits).subspan(i * vocab, vocab);
        CHECK(scores[i] == doctest::Approx(log_softmax({row.begin(), row.end()})[tokens[i]]).epsilon(1e-5));
    }
    auto pieces = opened(shared_engine(), begun);
    std::vector<float> in_pieces;
    for (size_t first = 0; first < tokens.size(); first += 9) {
        const auto part =
            pieces.score(std::span(tokens).subspan(first, std::min<size_t>(9, tokens.size() - first)));
        in_pieces.insert(in_pieces.end(), part.begin(), part.end());
    }
    CHECK(bits(in_pieces) == bits(scores));
    auto empty = shared_engine().open();
    const auto first = empty.score(std::span(tokens).first(3));
    CHECK(first.size() == 3);
    CHECK(first[0] == 0); // nothing comes before it
    CHECK(first[1] < 0);
    CHECK(session.score({}).empty());
    CHECK(session.logits({}).empty());
}

TEST_CASE("sampling: generating after score and logits equals generating after feed") {
    const auto begun = prompt(8, 52), tokens = prompt(20, 53); // short: every way computes the same bits
    auto fed = opened(shared_engine(), begun, 0.9f, 6);
    fed.feed(tokens);
    const auto expected = steps_of(fed, 5);
    auto scored = opened(shared_engine(), begun, 0.9f, 6);
    scored.score(tokens);
    CHECK_SAME_STEPS(steps_of(scored, 5), expected);
    auto with_logits = opened(shared_engine(), begun, 0.9f, 6);
    with_logits.logits(tokens);
    CHECK_SAME_STEPS(steps_of(with_logits, 5), expected);
    auto from_nothing = opened(shared_engine(), {}, 0.9f, 6);
    from_nothing.logits(begun);
    from_nothing.score(tokens);
    CHECK_SAME_STEPS(steps_of(from_nothing, 5), expected);
}
