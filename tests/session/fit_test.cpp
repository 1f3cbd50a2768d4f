// A model that does not fit is refused before anything is uploaded, with what would fit; and that does. The
// device pretends to have little memory and refuses to allocate more (FATHOM_DEVICE_MEMORY).
#include "session/fit.h"
#include "session/help.h"

#include <cstdlib>
#include <regex>

using namespace fathom;
using namespace fathom::session_test;

namespace {

class Pretended {
  public:
    explicit Pretended(uint64_t bytes) { setenv("FATHOM_DEVICE_MEMORY", std::to_string(bytes).c_str(), 1); }
    ~Pretended() { unsetenv("FATHOM_DEVICE_MEMORY"); }
    Pretended(const Pretended&) = delete;
};

constexpr uint64_t PLENTY = 8ull << 30;

// Device memory that `options` need.
uint64_t needed(const ModelFiles& files, const LoadOptions& options) {
    const Pretended plenty(PLENTY);
    const Fit found = fit(fit_question(files, on_device(options)));
    REQUIRE(found.obstacle.empty());
    CHECK(found.alternatives.empty());
    REQUIRE(found.pools.front().name == "device memory");
    return found.pools.front().needed;
}

std::string error_of(const ModelFiles& files, LoadOptions options) {
    bool uploaded = false;
    options.progress = [&](uint64_t, uint64_t) { uploaded = true; };
    try {
        const Engine engine(files, on_device(options));
    } catch (const Error& error) {
        CHECK_FALSE(uploaded);
        return error.what();
    }
    CHECK(uploaded);
    return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

} // namespace

TEST_CASE("a model is loaded into the last byte it needs, and refused with one less") {
    const SmallModel model("v3_base");
    const ModelFiles files = model.files();
    const uint64_t bytes = needed(files, {.context = 256});
    {
        const Pretended exactly(bytes);
        CHECK(error_of(files, {.context = 256}) == "");
    }
    const Pretended less(bytes - 1);
    const std::string error = error_of(files, {.context = 256});
    CHECK(has(error, "the model does not fit into memory"));
    CHECK(has(error, "weights: experts"));
    CHECK(has(error, "latent cache"));
    CHECK(has(error, "--context 192 ("));
    CHECK(has(error, "--quantize q8_0 ("));
    CHECK(has(error, "--experts host ("));
    CHECK(has(error, "tokens/s"));
}

TEST_CASE("the context that is offered is the longest that fits") {
    const SmallModel model("v3_base");
    const ModelFiles files = model.files();
    for (const uint32_t longest : {64u, 128u, 320u}) {
        CAPTURE(longest);
        const Pretended some(needed(files, {.context = longest}));
        const std::string error = error_of(files, {.context = 512});
        CHECK(has(error, fmt::format("--context {} (", longest)));
        CHECK(error_of(files, {.context = longest}) == "");
        CHECK(error_of(files, {.context = longest + 1}) != "");
    }
}

TEST_CASE("every alternative that is offered fits") {
    const SmallModel model("v3_base");
    const ModelFiles files = model.files();
    const uint64_t host = needed(files, {.context = 512, .experts_on_host = true});
    {
        const Pretended some(host);
        CHECK(has(error_of(files, {.context = 512}), "--experts host ("));
        CHECK(error_of(files, {.context = 512, .experts_on_host = true}) == "");
    }
    // Too little for any one change: two are offered.
    const uint64_t both = needed(files, {.context = 512, .quantize = "q4_k", .experts_on_host = true});
    REQUIRE(both < host);
    {
        const Pretended little(both);
        const std::string error = error_of(files, {.context = 512});
        INFO(error);
        std::smatch offered;
        REQUIRE(std::regex_search(error, offered, std::regex("--experts host --quantize ([a-z0-9_]+) \\(")));
        CHECK(error_of(files, {.context = 512, .quantize = offered[1], .experts_on_host = true}) == "");
    }
    const Pretended nothing(1000);
    CHECK(has(error_of(files, {.context = 512}), "nothing smaller fits here"));
}

TEST_CASE("experts in host memory say the same") {
    for (const char* name : {"v3_base", "v2_odd"}) {
        CAPTURE(name);
        const std::vector<Token> tokens = prompt(70);
        std::vector<std::vector<float>> logits;
        for (const bool host : {false, true}) {
            const auto engine = load(name, {.context = 128, .experts_on_host = host});
            uint64_t experts = 0;
            for (const auto& item : engine->memory().items) experts += item.owner == "weights: experts";
            CHECK(experts == 1);
            Session session = engine->open();
            logits.push_back(session.logits(tokens));
        }
        CHECK(nmse(logits[1], logits[0]) < 1e-10); // shared experts are summed apart, in another order
    }
}

TEST_CASE("a pretended memory that is no number is an error") {
    setenv("FATHOM_DEVICE_MEMORY", "12G", 1);
    CHECK_THROWS_WITH_AS(load("v3_base"), doctest::Contains("FATHOM_DEVICE_MEMORY"), Error);
    unsetenv("FATHOM_DEVICE_MEMORY");
}
