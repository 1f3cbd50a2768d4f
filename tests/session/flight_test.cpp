// Steps under way: however many there may be, sessions come out with the same tokens, candidates and routing,
// whatever comes between two tokens.
#include "session/help.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

using namespace fathom;
using namespace fathom::session_test;

namespace {

struct Outcome {
    std::vector<std::vector<Step>> steps;
    std::vector<uint32_t> routing; // of all tokens of the first session, in the order they came
    bool operator==(const Outcome&) const = default;
};

void add_routing(Session& session, std::vector<uint32_t>& to) {
    for (const trace::TokenRecord& r : session.take_records()) {
        to.insert(to.end(), {r.token, r.position});
        to.insert(to.end(), r.experts.begin(), r.experts.end());
        for (const float weight : r.weights) to.push_back(std::bit_cast<uint32_t>(weight));
    }
}

// Everything that can come between two tokens of a session, with others beside it.
Outcome outcome(uint32_t in_flight) {
    const auto engine = load("v3_base", {.cache_tokens = 2048, .in_flight = in_flight});
    Outcome all;
    auto a = opened(*engine, prompt(60, 1), 0.9f, 7), b = opened(*engine, prompt(5, 2), 0.7f, 8);
    const auto keep = [&](std::vector<Step> steps) { all.steps.push_back(std::move(steps)); };
    keep(steps_of(a, 8)); // over the edge of a page
    a.sampling().temperature = 0.5f;
    keep(steps_of(a, 3));
    a.sampling().repetition_penalty = 1.3f; // needs right counts
    keep(steps_of(a, 4));
    keep(steps_of(b, 4));
    keep(steps_of(a, 2));
    a.feed(prompt(3, 4));
    keep(steps_of(a, 3));
    a.rewind(a.position() - 2);
    keep(steps_of(a, 3));
    a.rewind(a.position() - 4); // to where another text has the same length
    a.feed(std::vector<Token>{1, 2, 3});
    keep(steps_of(a, 2));
    Session fork = a.fork();
    keep(steps_of(fork, 3));
    keep(steps_of(a, 3));
    const ModelConfig& c = engine->config();
    Steering steering;
    steering.key.resize((c.n_layers - c.first_moe_layer) * c.n_routed_experts);
    for (size_t i = 0; i < steering.key.size(); i += 3) steering.key[i] = 0.2f;
    engine->set_steering(steering);
    keep(steps_of(a, 3));
    Session* const both[] = {&a, &b};
    for (int i = 0; i < 3; ++i) {
        engine->next(both);
        keep({{a.tokens().back(), {}}, {b.tokens().back(), {}}});
    }
    keep(steps_of(b, 2));
    keep(steps_of(a, 2));
    const Token last = 5;
    a.logits(std::span(&last, 1));
    keep(steps_of(a, 2));
    add_routing(a, all.routing);
    return all;
}

// Seconds that the engine's thread and this one have run, driver calls included.
double host_seconds() {
    double seconds = 0;
    const std::string own = std::to_string(gettid());
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string name;
        std::getline(std::ifstream(task.path() / "comm"), name);
        if (name != "fathom engine" && task.path().filename() != own) continue;
        uint64_t nanoseconds = 0;
        std::ifstream(task.path() / "schedstat") >> nanoseconds;
        seconds += static_cast<double>(nanoseconds) * 1e-9;
    }
    return seconds;
}

} // namespace

TEST_CASE("flight: the host's part of a token" * doctest::test_suite("long")) {
    const auto engine = load("", {.context = 512, .in_flight = 2});
    auto session = opened(*engine, prompt(5), 0.8f, 1);
    session.next();
    double least = 1;
    for (int round = 0; round < 5; ++round) { // what disturbs a measurement only ever adds
        const double before = host_seconds();
        for (int i = 0; i < 20; ++i) session.next();
        least = std::min(least, (host_seconds() - before) / 20);
    }
    MESSAGE(fmt::format("{:.0f} us of the CPU for each token", least * 1e6));
    CHECK(least > 0);
    CHECK(least <
          (std::getenv("FATHOM_VALIDATION") ? 1e-3 : 200e-6)); // layers take three times as long again
}

TEST_CASE("flight: sessions do not notice how many steps are under way" * doctest::test_suite("long")) {
    const Outcome one = outcome(1);
    for (const uint32_t in_flight : {2u, 4u}) {
        INFO(in_flight, " steps under way");
        const Outcome more = outcome(in_flight);
        REQUIRE(more.steps.size() == one.steps.size());
        for (size_t i = 0; i < one.steps.size(); ++i) {
            INFO("part ", i);
            CHECK_SAME_STEPS(more.steps[i], one.steps[i]);
        }
        CHECK(more.routing == one.routing);
    }
}

TEST_CASE("flight: a session goes up to the end of its context and of the cache") {
    const auto engine = load("v3_base", {.context = 128, .cache_tokens = 128, .in_flight = 4});
    auto session = opened(*engine, prompt(60));
    for (int i = 0; i < 68; ++i) session.next();
    CHECK(session.position() == 128);
    CHECK_THROWS_AS(session.next(), Error);
}

TEST_CASE("flight: a session that closes leaves the others their tokens") {
    const auto engine = load("v3_base", {.cache_tokens = 2048, .in_flight = 4});
    auto alone = opened(*engine, prompt(9, 3), 0.8f, 5);
    const auto expected = steps_of(alone, 8);
    auto a = opened(*engine, prompt(9, 3), 0.8f, 5);
    std::vector<Step> got;
    {
        auto b = opened(*engine, prompt(20, 4));
        Session* const both[] = {&a, &b};
        for (int i = 0; i < 3; ++i) {
            engine->next(both);
            got.push_back({a.tokens().back(), expected[i].candidates});
        }
    }
    for (const Step& step : steps_of(a, 5)) got.push_back(step);
    CHECK_SAME_STEPS(got, expected);
}
