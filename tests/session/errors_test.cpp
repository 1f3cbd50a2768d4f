// What a session refuses, always with the session as it was; the pool of cache pages when it runs out; and
// memory, which is accounted for and does not grow.
#include "model/model_memory.h"
#include "session/help.h"

#include <algorithm>
#include <unistd.h>

using namespace fathom;
using namespace fathom::session_test;

namespace {

constexpr uint32_t CONTEXT = 128, CACHE_TOKENS = 192; // three pages for sessions of at most two

Engine& narrow_engine() {
    static const auto engine =
        load("v3_base", {.context = CONTEXT, .cache_tokens = CACHE_TOKENS, .chunk = 16});
    return *engine;
}

// What a session that only ever made these calls generates.
std::vector<Step> fresh_steps(Engine& engine, std::span<const Token> tokens, int n) {
    auto session = opened(engine, tokens, 0.9f, 9);
    return steps_of(session, n);
}

uint64_t bytes_of_owner(const MemoryReport& report, const std::string& owner) {
    uint64_t bytes = 0;
    for (const auto& item : report.items) bytes += item.owner.starts_with(owner) ? item.bytes : 0;
    return bytes;
}

// Bytes of this process that are in memory.
int64_t resident_bytes() {
    std::ifstream file("/proc/self/statm");
    int64_t size = 0, resident = 0;
    REQUIRE(bool(file >> size >> resident));
    return resident * sysconf(_SC_PAGESIZE);
}

} // namespace

TEST_CASE("errors: a token out of range") {
    auto session = opened(shared_engine(), prompt(10, 81));
    const std::vector<Token> bad{1, 2, 96}, worse{0xFFFFFFFFu};
    CHECK_ERROR("token", session.feed(bad));
    CHECK_ERROR("token", session.score(worse));
    CHECK_ERROR("token", session.logits(bad));
    CHECK(session.tokens() == prompt(10, 81));
    auto fresh = opened(shared_engine(), prompt(10, 81));
    CHECK_SAME_STEPS(steps_of(session, 2), steps_of(fresh, 2));
}

TEST_CASE("errors: a context that is full") {
    auto session = opened(narrow_engine(), prompt(120, 82), 0.9f, 9);
    CHECK_ERROR("context", session.feed(prompt(9, 83)));
    CHECK_ERROR("context", session.score(prompt(9, 83)));
    CHECK(session.tokens() == prompt(120, 82));
    const auto steps = steps_of(session, 8);
    CHECK(session.position() == CONTEXT);
    CHECK_ERROR("context", session.next());
    CHECK_ERROR("context", session.feed(prompt(1, 83)));
    CHECK(session.position() == CONTEXT);
    session.feed({});
    session.rewind(120);
    CHECK_SAME_STEPS(steps_of(session, 8), steps);
    session.rewind(120);
    CHECK(session.logits(prompt(8, 83)).size() == 8 * 96); // up to the last position
}

TEST_CASE("errors: nothing to continue, and no way forwards") {
    auto session = shared_engine().open();
    CHECK_ERROR("nothing to continue", session.next());
    session.feed({});
    CHECK_ERROR("nothing to continue", session.next());
    session.feed(prompt(4, 84));
    CHECK_ERROR("rewind", session.rewind(5));
    CHECK(session.position() == 4);
    session.rewind(0);
    CHECK_ERROR("nothing to continue", session.next());
}

TEST_CASE("errors: more sessions than there is room for") {
    std::vector<Session> sessions;
    for (uint32_t i = 0; i < MAX_SEQUENCES; ++i) sessions.push_back(shared_engine().open());
    CHECK_ERROR("too many", shared_engine().open());
    CHECK_ERROR("too many", sessions.front().fork());
    sessions.erase(sessions.begin() + 7);
    auto again = opened(shared_engine(), prompt(5, 85));
    auto fresh = std::move(sessions.back());
    fresh.sampling().temperature = 0;
    fresh.feed(prompt(5, 85));
    CHECK_SAME_STEPS(steps_of(again, 2), steps_of(fresh, 2));
}

TEST_CASE("errors: options that the engine refuses") {
    const SmallModel model("v3_base");
    const auto refused = [&](const LoadOptions& options, const char* says) {
        CHECK_ERROR(says, Engine(model.files(), on_device(options)));
    };
    refused({.context = 513}, "512");
    refused({.context = 128, .cache_tokens = 100}, "cache_tokens");
    refused({.chunk = 0}, "chunk");
    refused({.chunk = 1025}, "chunk");
    LoadOptions nowhere;
    nowhere.device = "no such device";
    CHECK_ERROR("no such device", Engine(model.files(), nowhere));
    CHECK(shared_engine().context() == 512);
    CHECK(narrow_engine().context() == CONTEXT);
}

TEST_CASE("errors: a feed that finds no free pages leaves them to others") {
    auto& engine = narrow_engine();
    const auto expected_first = fresh_steps(engine, prompt(100, 86), 3),
               expected_second = fresh_steps(engine, prompt(100, 87), 3),
               expected_third = fresh_steps(engine, prompt(60, 88), 3);
    auto first = opened(engine, prompt(100, 86), 0.9f, 9); // two pages
    auto second = opened(engine, {}, 0.9f, 9);
    CHECK_ERROR("cache is full", second.feed(prompt(100, 87)));
    CHECK(second.position() == 0);
    // the page that the failed feed had taken is free again
    auto third = opened(engine, prompt(60, 88), 0.9f, 9);
    CHECK_SAME_STEPS(steps_of(third, 3), expected_third);
    CHECK_SAME_STEPS(steps_of(first, 3), expected_first);
    CHECK_ERROR("cache is full", second.score(prompt(100, 87)));
    first.rewind(0);
    second.feed(prompt(100, 87));
    CHECK_SAME_STEPS(steps_of(second, 3), expected_second);
}

TEST_CASE("errors: a next that finds no free page can be repeated when there is one") {
    auto& engine = narrow_engine();
    const auto expected = fresh_steps(engine, prompt(62, 90), 6);
    auto first = opened(engine, prompt(100, 89));
    auto second = opened(engine, prompt(62, 90), 0.9f, 9);
    auto steps = steps_of(second, 3);
    CHECK_ERROR("cache is full", second.next());
    CHECK(second.position() == 65);
    first.rewind(0);
    for (const Step& step : steps_of(second, 3)) steps.push_back(step);
    CHECK_SAME_STEPS(steps, expected);
}

TEST_CASE("errors: a next that runs out of pages while it repeats a prompt leaves no trace") {
    const auto engine = // as narrow, with the prompt in one chunk
        load("v3_base", {.context = CONTEXT, .cache_tokens = CACHE_TOKENS, .chunk = 128});
    const auto tokens = prompt(120, 91);
    const auto expected = fresh_steps(*engine, std::span(tokens).first(100), 3);
    auto session = opened(*engine, tokens, 0.9f, 9);
    session.rewind(100); // all of the expanded prompt runs again
    auto other = opened(*engine, prompt(100, 92));
    CHECK_ERROR("cache is full", session.next());
    CHECK(session.position() == 100);
    other.rewind(0);
    CHECK_SAME_STEPS(steps_of(session, 3), expected);
}

TEST_CASE("memory: every byte has an owner") {
    const auto report = narrow_engine().memory();
    const auto& config = narrow_engine().config();
    uint64_t sum = 0;
    for (const auto& item : report.items) {
        INFO(item.owner);
        CHECK(item.bytes > 0);
        CHECK(item.bytes <= item.reserved);
        sum += item.reserved;
    }
    CHECK(sum == report.total);
    for (const char* owner :
         {"weights", "latent cache", "workspace", "step state", "trace ring", "RoPE table"})
        CHECK_MESSAGE(bytes_of_owner(report, owner) > 0, std::string(owner));
    CHECK(bytes_of_owner(report, "latent cache") ==
          4ull * config.n_layers * CACHE_TOKENS * config.latent_dim());
    CHECK(bytes_of_owner(report, "RoPE table") == 4ull * CONTEXT * config.qk_rope_head_dim);
}

TEST_CASE("memory: neither tokens nor sessions make it grow" * doctest::test_suite("long")) {
    const auto use = [](int tokens, int sessions) {
        auto session = opened(shared_engine(), prompt(3, 93), 1, 1);
        for (int i = 0; i < tokens; ++i) {
            session.next();
            session.take_records();
        }
        for (int i = 0; i < sessions; ++i) {
            auto other = opened(shared_engine(), prompt(33, 94));
            auto fork = other.fork();
            fork.next();
        }
    };
    use(100, 5); // everything that is made on first use
    const auto before = shared_engine().memory();
    const int64_t resident_before = resident_bytes();
    use(200, 50);
    const int64_t resident_after = resident_bytes();
    const auto after = shared_engine().memory();
    CHECK(after.total == before.total);
    REQUIRE(after.items.size() == before.items.size());
    for (size_t i = 0; i < after.items.size(); ++i) CHECK(after.items[i].bytes == before.items[i].bytes);
#ifndef __SANITIZE_ADDRESS__ // which keeps freed memory for a while, and finds leaks itself
    // Of the whole process, the driver and the validation layer with it: 40 KiB a token or 160
    // KiB a session would show.
    CHECK(resident_after < resident_before + (8 << 20));
#endif
}
