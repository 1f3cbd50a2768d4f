// Sessions on disk: resuming equals going on; what cannot be resumed is refused and changes nothing; what
// cannot be written leaves what was there before.
#include "session/help.h"

#include <csignal>
#include <sys/resource.h>

using namespace fathom;
using namespace fathom::session_test;
namespace fs = std::filesystem;

namespace {

// For its lifetime no file of this process may grow past `bytes`: a full disk that needs no privileges.
class FullDisk {
  public:
    explicit FullDisk(rlim_t bytes) {
        REQUIRE(getrlimit(RLIMIT_FSIZE, &old_) == 0);
        handler_ = std::signal(SIGXFSZ, SIG_IGN);
        const rlimit small{bytes, old_.rlim_max};
        REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    }
    ~FullDisk() {
        setrlimit(RLIMIT_FSIZE, &old_);
        std::signal(SIGXFSZ, handler_);
    }

  private:
    rlimit old_{};
    void (*handler_)(int) = nullptr;
};

void write_text(const fs::path& path, std::string_view text) {
    std::ofstream file(path, std::ios::binary);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    REQUIRE(file.good());
}

size_t files_in(const fs::path& folder) {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

SamplingParams unusual() {
    return {.temperature = 0.9f,
            .top_k = 50,
            .top_p = 0.95f,
            .min_p = 0.01f,
            .repetition_penalty = 1.1f,
            .presence_penalty = 0.3f,
            .frequency_penalty = 0.1f,
            .seed = 0xFEDCBA9876543210ull,
            .bias = {{3, 0.1f}, {4, -1.5f}},
            .allowed = {0xFFFFFFFFu, 0xFFFFFFF0u, 0xFFFFFFFFu}};
}

} // namespace

TEST_CASE("store: a saved session goes on as if it had never been away") {
    const golden::ScratchFolder folder;
    const fs::path path = folder.path() / "saved";
    for (const uint32_t n : {1u, 20u, 64u, 65u, 200u}) { // up to expanded prompts of several pages
        CAPTURE(n);
        auto session = opened(shared_engine(), prompt(n, 61));
        session.sampling() = unusual();
        steps_of(session, 3);
        session.save(path);
        const auto expected = steps_of(session, 6);
        auto resumed = opened(shared_engine(), prompt(90, 62)); // what it held before is gone
        resumed.load(path);
        CHECK(resumed.position() == n + 3);
        CHECK(resumed.sampling() == unusual());
        CHECK(resumed.candidates().empty());
        CHECK_SAME_STEPS(steps_of(resumed, 6), expected);
        CHECK(resumed.tokens() == session.tokens());
        resumed.rewind(n); // what was prompt and what was generated is kept too
        CHECK_SAME_STEPS(std::vector{step_of(resumed)}, [&] {
            auto fresh = opened(shared_engine(), prompt(n, 61));
            fresh.sampling() = unusual();
            return std::vector{step_of(fresh)};
        }());
    }
    CHECK(files_in(folder.path()) == 1);
}

TEST_CASE("store: an empty session, a fork and a fed session that has not run yet come back") {
    const golden::ScratchFolder folder;
    const fs::path path = folder.path() / "saved";
    auto empty = shared_engine().open();
    empty.save(path);
    auto loaded = opened(shared_engine(), prompt(70, 63));
    loaded.load(path);
    CHECK(loaded.position() == 0);
    loaded.sampling().temperature = 0;
    loaded.feed(prompt(70, 64));
    loaded.save(path);
    auto fresh = opened(shared_engine(), prompt(70, 64));
    auto fork = fresh.fork(); // its pages are shared while it is replaced
    fork.load(path);
    const auto expected = steps_of(fresh, 4);
    CHECK_SAME_STEPS(steps_of(fork, 4), expected);
    CHECK_SAME_STEPS(steps_of(loaded, 4), expected);
    fork.rewind(70);
    fork.save(path);
    auto again = shared_engine().open();
    again.load(path);
    CHECK_SAME_STEPS(steps_of(again, 4), expected);
}

TEST_CASE("store: another engine of the same model resumes, another model refuses") {
    const golden::ScratchFolder folder;
    const fs::path path = folder.path() / "saved";
    auto session = opened(shared_engine(), prompt(100, 65), 0.9f, 1);
    session.save(path);
    const auto expected = steps_of(session, 4);
    const auto same = load("v3_base", {.context = 200});
    auto resumed = same->open();
    resumed.load(path);
    CHECK_SAME_STEPS(steps_of(resumed, 4), expected);

    const auto check_refused = [&](Engine& engine, const char* says) {
        auto kept = opened(engine, prompt(5, 66));
        CHECK_ERROR(says, kept.load(path));
        auto fresh = opened(engine, prompt(5, 66));
        CHECK(kept.tokens() == fresh.tokens());
        CHECK_SAME_STEPS(steps_of(kept, 2), steps_of(fresh, 2));
    };
    check_refused(*load("v3_norm_off"), "another model");
    check_refused(*load("v3_base", {.context = 64}), "longer than the context");
}

TEST_CASE("store: a damaged file is refused and the session stays") {
    const golden::ScratchFolder folder;
    const fs::path path = folder.path() / "saved", damaged = folder.path() / "damaged";
    auto session = opened(shared_engine(), prompt(50, 67));
    steps_of(session, 2);
    session.save(path);
    const std::string good = golden::read_text(path);
    auto victim = opened(shared_engine(), prompt(30, 68), 0.9f, 2);
    const auto tokens = victim.tokens();
    const auto sampling = victim.sampling();
    const auto refused = [&](const std::string& bytes, size_t at) {
        CAPTURE(at);
        write_text(damaged, bytes);
        CHECK_ERROR("damaged", victim.load(damaged)); // every message says the file's name
        CHECK(victim.tokens() == tokens);
        CHECK(victim.sampling() == sampling);
    };
    for (size_t length = 0; length < good.size(); length += 1 + length / 12)
        refused(good.substr(0, length), length);
    refused(good.substr(0, good.size() - 1), good.size() - 1);
    refused(good + '\0', good.size() + 1);
    uint64_t header = 0;
    std::memcpy(&header, good.data(), 8);
    const size_t about = static_cast<size_t>(header) + 600; // length, header, the texts and small tables
    for (size_t i = 0; i < good.size(); i += i < about ? 3 : 997) { // one bit in each of these bytes
        std::string bytes = good;
        bytes[i] = static_cast<char>(bytes[i] ^ 1 << i % 8);
        refused(bytes, i);
    }
    CHECK_ERROR("no-such-file", victim.load(folder.path() / "no-such-file"));
    CHECK_ERROR("golden", victim.load(folder.path())); // a folder, whose name is fathom-golden-...
    auto fresh = opened(shared_engine(), prompt(30, 68), 0.9f, 2);
    CHECK_SAME_STEPS(steps_of(victim, 3), steps_of(fresh, 3));
}

TEST_CASE("store: a full disk is an error and leaves what was there") {
    const golden::ScratchFolder folder;
    const fs::path path = folder.path() / "saved";
    auto session = opened(shared_engine(), prompt(100, 69), 0.9f, 3);
    const auto fails = [&] {
        const FullDisk disk(4096);
        CHECK_ERROR("saved", session.save(path));
    };
    fails();
    CHECK(files_in(folder.path()) == 0);
    auto first = opened(shared_engine(), prompt(10, 70));
    first.save(path);
    const std::string before = golden::read_text(path);
    fails();
    CHECK(files_in(folder.path()) == 1);
    CHECK(golden::read_text(path) == before);
    session.save(path); // with room it replaces the other one
    CHECK(files_in(folder.path()) == 1);
    auto resumed = shared_engine().open();
    resumed.load(path);
    CHECK_SAME_STEPS(steps_of(resumed, 3), steps_of(session, 3));
    CHECK_ERROR("nowhere", session.save(folder.path() / "nowhere" / "saved"));
}

TEST_CASE("store: a load that finds no free pages changes nothing") {
    const golden::ScratchFolder folder;
    const fs::path path = folder.path() / "saved";
    const auto engine = load("v3_base", {.context = 192, .cache_tokens = 256}); // four pages
    auto large = opened(*engine, prompt(180, 71), 0.9f, 4);
    large.save(path);
    const auto expected = steps_of(large, 3);
    large.rewind(100); // an expanded prompt: all its pages are free until it runs again
    large.feed(prompt(2, 72));
    auto small = opened(*engine, prompt(40, 73), 0.9f, 5); // two pages in use by the large one, one by this
    CHECK_ERROR("cache is full", small.load(path));
    auto fresh = opened(*engine, prompt(40, 73), 0.9f, 5);
    CHECK_SAME_STEPS(steps_of(small, 3), steps_of(fresh, 3));
    large.rewind(0);
    fresh.rewind(0);
    small.load(path); // its own page counts among the free ones
    CHECK_SAME_STEPS(steps_of(small, 3), expected);
}
