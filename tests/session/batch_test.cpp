// A token's bits depend on its own session alone: not on how many others generate beside it, nor on how many
// rows go through the model at once. Cancelling, too, is one session's own affair.
#include "session/help.h"

#include <atomic>
#include <thread>

using namespace fathom;
using namespace fathom::session_test;

namespace {

constexpr int N_GENERATED = 6;

struct Run {
    std::vector<Step> steps;
    std::vector<uint32_t> logits; // bits, of three more tokens
};

// Session i of a crowd: prompts of 3 to 73 tokens, so that absorbed and expanded prefill, one and two pages,
// decode and logits steps of several sessions meet.
Run run_one(Engine& engine, uint32_t i) {
    auto session = opened(engine, prompt(3 + i * 29 % 71, 100 + i, engine.config().vocab_size), 0.8f, i);
    Run run{steps_of(session, N_GENERATED), {}};
    run.logits = bits(session.logits(prompt(3, 200 + i, engine.config().vocab_size)));
    return run;
}

void check_crowds(Engine& engine, std::span<const uint32_t> sizes) {
    std::vector<Run> alone;
    for (uint32_t i = 0; i < sizes.back(); ++i) alone.push_back(run_one(engine, i));
    for (const uint32_t n : sizes) {
        std::vector<Run> together(n);
        std::vector<std::thread> threads;
        for (uint32_t i = 0; i < n; ++i) threads.emplace_back([&, i] { together[i] = run_one(engine, i); });
        for (auto& thread : threads) thread.join();
        for (uint32_t i = 0; i < n; ++i) {
            INFO("session ", i, " of ", n);
            CHECK_SAME_STEPS(together[i].steps, alone[i].steps);
            CHECK(together[i].logits == alone[i].logits);
        }
    }
}

// Calls cancel() until it is destroyed.
class Canceller {
  public:
    Canceller(Session& session, std::chrono::milliseconds delay)
        : thread_([this, &session, delay] {
              std::this_thread::sleep_for(delay);
              for (; !done_; std::this_thread::yield()) session.cancel();
          }) {}
    ~Canceller() {
        done_ = true;
        thread_.join();
    }

  private:
    std::atomic<bool> done_ = false;
    std::thread thread_;
};

// Runs `action` on a session while another thread cancels it, at several moments; at least at the first it
// must be cut off. Then the session must be what it was.
template <class Action> void check_cancelled(Engine& engine, Action action) {
    const auto tokens = prompt(40, 21);
    auto fresh = opened(engine, tokens, 0.9f, 3);
    const auto expected = steps_of(fresh, 8);
    int cut = 0;
    for (const int delay : {0, 0, 1, 2, 4, 8}) {
        CAPTURE(delay);
        auto session = opened(engine, tokens, 0.9f, 3);
        steps_of(session, 4);
        const auto before = session.tokens();
        bool thrown = false;
        {
            const Canceller canceller(session, std::chrono::milliseconds(delay));
            try {
                action(session);
            } catch (const Cancelled&) {
                thrown = true;
            }
        }
        cut += thrown;
        if (thrown)
            CHECK(session.tokens() == before);
        else
            session.rewind(44);
        CHECK_SAME_STEPS(steps_of(session, 4), std::vector(expected.begin() + 4, expected.end()));
    }
    CHECK(cut > 0);
}

} // namespace

TEST_CASE("session: what others generate beside it leaves a session's bits alone" *
          doctest::test_suite("long")) {
    const uint32_t sizes[] = {1, 2, 5, 40}; // more than one step has rows for
    check_crowds(shared_engine(), sizes);
}

TEST_CASE("session: so it is with weights of mixed formats" * doctest::test_suite("long")) {
    const auto engine = load("mixed v3_base", {.cache_tokens = 4096});
    const uint32_t sizes[] = {2, 7};
    check_crowds(*engine, sizes);
}

TEST_CASE("session: so it is with the embedded model" * doctest::test_suite("long")) {
    const auto engine = load("", {.context = 512});
    const uint32_t sizes[] = {2, 7};
    check_crowds(*engine, sizes);
}

TEST_CASE("session: logits have the same bits however many rows go at once") {
    const auto begun = prompt(20, 31), tokens = prompt(33, 32);
    const uint32_t vocab = shared_engine().config().vocab_size;
    auto session = opened(shared_engine(), begun);
    const auto at_once = bits(session.logits(tokens));
    REQUIRE(at_once.size() == tokens.size() * vocab);
    for (const size_t piece : {1, 2, 3, 5, 17}) {
        CAPTURE(piece);
        auto again = opened(shared_engine(), begun);
        std::vector<uint32_t> in_pieces;
        for (size_t first = 0; first < tokens.size(); first += piece) {
            const auto part =
                bits(again.logits(std::span(tokens).subspan(first, std::min(piece, tokens.size() - first))));
            in_pieces.insert(in_pieces.end(), part.begin(), part.end());
        }
        CHECK(in_pieces == at_once);
    }
}

TEST_CASE("session: decode computes the bits of a logits step") {
    auto session = opened(shared_engine(), prompt(10, 33));
    for (int i = 0; i < 5; ++i) {
        const auto logits = next_logits(session);
        session.next();
        const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
        CHECK(session.tokens().back() == best);
        double sum = 0; // candidates are logit - largest - log_sum: differences of two are free of the sum
        for (const float logit : logits) sum += std::exp(double(logit) - logits[best]);
        for (const auto& c : session.candidates())
            CHECK(c.logprob == doctest::Approx(logits[c.token] - logits[best] - std::log(sum)).epsilon(1e-5));
    }
}

TEST_CASE("session: a cancelled feed leaves the session and its neighbours as they were" *
          doctest::test_suite("long")) {
    const auto engine = load("v3_base", {.chunk = 16});
    auto alone = opened(*engine, prompt(50, 22), 0.9f, 4);
    const auto expected = steps_of(alone, 60);
    auto neighbour = opened(*engine, prompt(50, 22), 0.9f, 4);
    std::vector<Step> beside;
    std::thread thread([&] { beside = steps_of(neighbour, 60); });
    check_cancelled(*engine, [&](Session& s) { s.feed(prompt(400, 23)); });
    check_cancelled(*engine, [&](Session& s) { s.score(prompt(200, 24)); });
    check_cancelled(*engine, [&](Session& s) { s.logits(prompt(200, 24)); });
    thread.join();
    CHECK_SAME_STEPS(beside, expected);
}

TEST_CASE("session: a next that is cancelled while it repeats a prompt leaves no trace" *
          doctest::test_suite("long")) {
    const auto engine = load("v3_base", {.chunk = 256});
    const auto tokens = prompt(240, 25);
    auto fresh = opened(*engine, std::span(tokens).first(239), 0.9f, 3);
    const auto expected = steps_of(fresh, 4);
    int cut = 0;
    for (const int delay : {0, 2, 6}) {
        auto session = opened(*engine, tokens, 0.9f, 3);
        session.rewind(239); // the expanded prompt is run again by the next call
        bool thrown = false;
        {
            const Canceller canceller(session, std::chrono::milliseconds(delay));
            try {
                session.next();
            } catch (const Cancelled&) {
                thrown = true;
            }
        }
        cut += thrown;
        if (!thrown) session.rewind(239);
        CHECK(session.position() == 239);
        CHECK_SAME_STEPS(steps_of(session, 4), expected);
    }
    CHECK(cut > 0);
}

TEST_CASE("session: cancel between calls cancels nothing") {
    auto session = opened(shared_engine(), prompt(5));
    session.cancel();
    session.feed(prompt(5));
    session.cancel();
    session.next();
    CHECK(session.position() == 11);
}

TEST_CASE("batch: one call for several sessions gives each what its own would") {
    const SmallModel model("v3_base");
    Engine engine(model.files(), on_device({}));
    std::vector<Session> apart, together;
    for (Token first = 1; first <= 3; ++first) {
        for (auto* all : {&apart, &together}) {
            all->push_back(engine.open());
            all->back().sampling().temperature = 0;
            all->back().feed(std::vector<Token>{first, 7, first + 20});
        }
    }
    for (Session& session : apart)
        for (int i = 0; i < 5; ++i) session.next();
    std::vector<Session*> all;
    for (Session& session : together) all.push_back(&session);
    for (int i = 0; i < 5; ++i) engine.next(all);
    for (size_t i = 0; i < all.size(); ++i) CHECK(together[i].tokens() == apart[i].tokens());

    Session empty = engine.open(); // nothing to continue: refused before anyone moves
    const auto before = together[0].tokens();
    std::vector<Session*> with_empty{&together[0], &empty};
    CHECK_THROWS_AS(engine.next(with_empty), Error);
    CHECK(together[0].tokens() == before);
}
