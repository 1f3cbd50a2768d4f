// One timeline of tokens, reached in several ways: prompts cut differently, forks, rewinds.
// What the session's own calls decide must come out bit for bit; a prompt cut into other calls
// may differ by rounding only.
#include "session/help.h"

using namespace fathom;
using namespace fathom::session_test;

namespace {

constexpr int N_LAST = 8, N_GENERATED = 8;

struct Outcome {
    std::vector<float> logits; // after each of the last N_LAST tokens of the prompt
    std::vector<Token> tokens; // generated after it
};

Outcome outcome_of(Session& session, std::span<const Token> last) {
    Outcome outcome{session.logits(last), {}};
    session.sampling() = {.temperature = 0};
    for (int i = 0; i < N_GENERATED; ++i) outcome.tokens.push_back(session.next());
    return outcome;
}

// The prompt's tokens are drawn by the sampler, which may choose only them.
Outcome decoded_one_by_one(Engine& engine, std::span<const Token> tokens) {
    auto session = opened(engine, tokens.first(1));
    for (const Token token : tokens.first(tokens.size() - N_LAST).subspan(1)) {
        session.sampling().allowed.assign((engine.config().vocab_size + 31) / 32, 0);
        session.sampling().allowed[token / 32] = 1u << token % 32;
        REQUIRE(session.next() == token);
    }
    return outcome_of(session, tokens.last(N_LAST));
}

Outcome fed_in_pieces(Engine& engine, std::span<const Token> tokens, size_t piece) {
    auto session = opened(engine, {});
    const auto fed = tokens.first(tokens.size() - N_LAST);
    for (size_t first = 0; first < fed.size(); first += piece)
        session.feed(fed.subspan(first, std::min(piece, fed.size() - first)));
    return outcome_of(session, tokens.last(N_LAST));
}

void check_outcome(const Outcome& got, const Outcome& expected) {
    CHECK(nmse(got.logits, expected.logits) <= 1e-10); // f32 sums in another order: about 1e-13
    CHECK(got.tokens == expected.tokens);
}

} // namespace

TEST_CASE("session: a prompt in any pieces and chunks equals decoding it token by token") {
    const auto tokens = prompt(331);
    const Outcome expected = decoded_one_by_one(shared_engine(), tokens);
    for (const size_t piece : {331, 1, 7, 64, 65, 200}) {
        CAPTURE(piece);
        check_outcome(fed_in_pieces(shared_engine(), tokens, piece), expected);
    }
    for (const uint32_t chunk : {16u, 64u}) { // the shared engine's chunk is 512
        CAPTURE(chunk);
        const auto engine = load("v3_base", {.chunk = chunk});
        check_outcome(fed_in_pieces(*engine, tokens, 331), expected);
        check_outcome(fed_in_pieces(*engine, tokens, 130), expected);
    }
}

TEST_CASE("session: so it is with weights of mixed formats" * doctest::test_suite("long")) {
    const auto engine = load("mixed v2_odd", {.chunk = 64});
    const auto tokens = prompt(150);
    const Outcome expected = decoded_one_by_one(*engine, tokens);
    for (const size_t piece : {150, 7, 65}) check_outcome(fed_in_pieces(*engine, tokens, piece), expected);
}

TEST_CASE("session: the embedded model's prompt in pieces equals decoding it token by token") {
    const auto engine = load("", {.context = 256});
    const auto tokens = prompt(180, 2, engine->config().vocab_size);
    const Outcome expected = decoded_one_by_one(*engine, tokens);
    check_outcome(fed_in_pieces(*engine, tokens, 180), expected);
    auto session = opened(*engine, std::span(tokens).first(30));
    session.feed(std::span(tokens).subspan(30, 142)); // so many after others are expanded, with history
    check_outcome(outcome_of(session, std::span(tokens).last(N_LAST)), expected);
}

TEST_CASE("session: a rewind into generated text equals never having generated it") {
    const auto tokens = prompt(70);
    auto fresh = opened(shared_engine(), tokens, 0.9f, 5);
    const auto expected = steps_of(fresh, 12);
    auto session = opened(shared_engine(), tokens, 0.9f, 5);
    steps_of(session, 9);
    session.rewind(73);
    CHECK(session.position() == 73);
    CHECK(session.candidates().empty());
    CHECK_SAME_STEPS(steps_of(session, 9), std::vector(expected.begin() + 3, expected.end()));
    session.rewind(70); // back to the whole prompt
    CHECK_SAME_STEPS(steps_of(session, 12), expected);
    session.rewind(82); // nowhere
    CHECK(session.tokens() == fresh.tokens());
}

TEST_CASE("session: a rewind into a prompt equals having fed only its beginning") {
    const auto tokens = prompt(300, 3);
    for (const uint32_t position : {299u, 257u, 200u, 65u, 33u, 32u, 1u, 0u}) {
        CAPTURE(position);
        auto session = opened(shared_engine(), tokens, 0.9f, 7);
        steps_of(session, 2);
        session.rewind(position);
        CHECK(session.tokens() == std::vector(tokens.begin(), tokens.begin() + position));
        auto fresh = opened(shared_engine(), std::span(tokens).first(position), 0.9f, 7);
        if (position == 0) { // nothing to continue until something is fed
            session.feed(std::span(tokens).first(40));
            fresh.feed(std::span(tokens).first(40));
        }
        CHECK_SAME_STEPS(steps_of(session, 4), steps_of(fresh, 4));
    }
}

TEST_CASE("session: feeding after a rewind equals the same calls in a fresh session") {
    const auto first = prompt(120, 4), second = prompt(90, 5), third = prompt(50, 6);
    // in the first prompt, the second, generated text
    for (const uint32_t position : {100u, 120u, 121u, 150u, 213u}) {
        CAPTURE(position);
        auto session = opened(shared_engine(), first, 0.9f, 11);
        session.feed(second);
        steps_of(session, 5);
        const std::vector<Token> kept(session.tokens().begin(), session.tokens().begin() + position);
        session.rewind(position);
        session.feed(third);
        auto fresh = opened(shared_engine(), std::span(kept).first(std::min(position, 120u)), 0.9f, 11);
        if (position > 120) fresh.feed(std::span(kept).subspan(120, std::min(position, 210u) - 120));
        while (fresh.position() < position) fresh.next();
        REQUIRE(fresh.tokens() == kept);
        fresh.feed(third);
        CHECK_SAME_STEPS(steps_of(session, 4), steps_of(fresh, 4));
    }
}

TEST_CASE("session: a fork goes on as its parent would, and neither disturbs the other") {
    const auto tokens = prompt(100, 7), left = prompt(30, 8), right = prompt(30, 9);
    const auto continued = [&](std::span<const Token> more) {
        auto fresh = opened(shared_engine(), tokens, 0.9f, 13);
        steps_of(fresh, 6);
        if (!more.empty()) fresh.feed(more);
        return steps_of(fresh, 8);
    };
    auto parent = opened(shared_engine(), tokens, 0.9f, 13);
    steps_of(parent, 6); // in the middle of a page
    auto fork = parent.fork();
    CHECK(fork.tokens() == parent.tokens());
    CHECK(fork.sampling() == parent.sampling());
    auto second = fork.fork();
    auto untouched = second.fork(); // a fork of a fork of a fork
    fork.feed(left);                // each writes into the page that all of them share
    parent.feed(right);
    CHECK_SAME_STEPS(steps_of(second, 8), continued({}));
    CHECK_SAME_STEPS(steps_of(fork, 8), continued(left));
    CHECK_SAME_STEPS(steps_of(parent, 8), continued(right));
    CHECK_SAME_STEPS(steps_of(untouched, 8), continued({}));
}

TEST_CASE("session: a fork that is rewound equals a fresh run, and its parent stays") {
    const auto tokens = prompt(200, 10);
    auto parent = opened(shared_engine(), tokens, 0.9f, 17);
    steps_of(parent, 5);
    auto fork = parent.fork(), generated = parent.fork();
    fork.rewind(90);
    auto fresh = opened(shared_engine(), std::span(tokens).first(90), 0.9f, 17);
    CHECK_SAME_STEPS(steps_of(fork, 6), steps_of(fresh, 6));
    generated.rewind(202);
    auto whole = opened(shared_engine(), tokens, 0.9f, 17);
    const auto expected = steps_of(whole, 12);
    CHECK_SAME_STEPS(steps_of(generated, 10), std::vector(expected.begin() + 2, expected.end()));
    CHECK_SAME_STEPS(steps_of(parent, 7), std::vector(expected.begin() + 5, expected.end()));
}

TEST_CASE("session: a fork outlives its parent, and a moved session goes on") {
    const auto tokens = prompt(80, 11);
    auto fresh = opened(shared_engine(), tokens);
    const auto expected = steps_of(fresh, 6);
    auto parent = std::make_unique<Session>(opened(shared_engine(), tokens));
    Session fork = parent->fork();
    parent.reset();
    auto other = opened(shared_engine(), prompt(80, 12)); // takes what the parent gave back
    steps_of(other, 3);
    Session moved = std::move(fork);
    CHECK_SAME_STEPS(steps_of(moved, 3), std::vector(expected.begin(), expected.begin() + 3));
    other = std::move(moved);
    CHECK_SAME_STEPS(steps_of(other, 3), std::vector(expected.begin() + 3, expected.end()));
}
