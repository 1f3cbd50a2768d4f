// Formats of the cache: how far they are from f32 on the embedded model, what they take, and that a
// saved session is of one of them.
#include "session/help.h"

#include <algorithm>

using namespace fathom;
using namespace fathom::session_test;

namespace {

struct Run {
    std::vector<float> scores;
    uint64_t cache_bytes = 0;
};
Run run_of(const std::string& model, const std::string& format) {
    const auto engine = load(model, {.context = 512, .cache_format = format});
    auto session = engine->open();
    Run run{session.score(prompt(300, 7, model.empty() ? 4096 : 64)), 0};
    for (const auto& item : engine->memory().items)
        if (item.owner == "latent cache") run.cache_bytes = item.bytes;
    return run;
}
// Root of the mean square difference of log-probabilities.
double distance_of(const Run& a, const Run& b) {
    double sum = 0;
    for (size_t i = 0; i < a.scores.size(); ++i) sum += std::pow(double(a.scores[i]) - b.scores[i], 2);
    return std::sqrt(sum / double(a.scores.size()));
}

void check_formats(const std::string& model, double most16) {
    const Run f32 = run_of(model, "f32"), f16 = run_of(model, "f16"), q8 = run_of(model, "q8");
    const double far16 = distance_of(f16, f32), far8 = distance_of(q8, f32);
    MESSAGE(fmt::format("log-probabilities differ by {:.1e} (f16) and {:.1e} (q8), rms", far16, far8));
    CHECK(far16 > 0);
    CHECK(far16 < most16);
    CHECK(far8 > far16);
    CHECK(far8 < 0.1);
    CHECK(2 * f16.cache_bytes == f32.cache_bytes);
    CHECK(3 * q8.cache_bytes < f32.cache_bytes);
}

} // namespace

TEST_CASE("cache: halves and bytes are near f32, and take less" * doctest::test_suite("long")) {
    check_formats("", 3e-3);
}

TEST_CASE("cache: keys and values of plain attention in halves and bytes") {
    check_formats("v1_plain", 1e-3);
}

TEST_CASE("cache: a session in bytes goes on after it was saved, and only there") {
    const golden::ScratchFolder folder;
    const auto path = folder.path() / "session";
    const LoadOptions bytes{.context = 256, .chunk = 32, .cache_format = "q8"};
    const auto engine = load("v3_base", bytes);
    auto session = opened(*engine, prompt(70), 0.7f, 5);
    steps_of(session, 5);
    session.save(path);
    const auto expected = steps_of(session, 8);
    auto again = engine->open();
    again.load(path);
    CHECK(steps_of(again, 8) == expected);
    const auto other = load("v3_base", {.context = 256, .chunk = 32});
    auto elsewhere = other->open();
    try {
        elsewhere.load(path);
        FAIL("taken");
    } catch (const Error& error) {
        CHECK(std::string(error.what()).find("cache") != std::string::npos);
        CHECK(std::string(error.what()).find("q8") != std::string::npos);
    }
}

TEST_CASE("cache: words that are no format") {
    CHECK_THROWS_AS(load("v3_base", {.cache_format = "q4"}), Error);
}
