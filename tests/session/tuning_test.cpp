// The self-test and the tuner: every kernel tried and checked, one chosen for every product, a wrong one
// caught, what was found remembered. The embedded model, quantised so that every tier of the device has
// products.
#include "session/help.h"
#include "session/tuning.h"

#include <cstdlib>
#include <fstream>
#include <set>

using namespace fathom;
using namespace fathom::session_test;

namespace {

// The environment with a cache of its own and a spoiled tier, for as long as this lives.
class Environment {
  public:
    explicit Environment(const char* wrong_tier) {
        if (const char* cache = std::getenv("XDG_CACHE_HOME")) before_ = cache;
        std::filesystem::remove_all(folder());
        setenv("XDG_CACHE_HOME", cache().c_str(), 1);
        setenv("FATHOM_WRONG_TIER", wrong_tier, 1);
    }
    Environment(const Environment&) = delete;
    ~Environment() {
        before_ ? setenv("XDG_CACHE_HOME", before_->c_str(), 1) : unsetenv("XDG_CACHE_HOME");
        unsetenv("FATHOM_WRONG_TIER");
    }
    static std::filesystem::path folder() { return cache() / "fathom"; }

  private:
    static std::filesystem::path cache() { // for the whole process: Mesa stays with the one that it saw first
        static const golden::ScratchFolder scratch;
        return scratch.path();
    }
    std::optional<std::string> before_;
};

struct Loaded {
    std::unique_ptr<Engine> engine;
    size_t tried = 0; // products
    std::vector<Trial> trials;
    std::map<std::string, AttentionCosts> attention;
};
Loaded load_tuned(const std::string& tier) {
    Loaded loaded;
    LoadOptions options{.context = 64, .chunk = 32, .quantize = "q8_0", .tier = tier};
    options.tuning = [&](uint64_t done, uint64_t total) { loaded.tried += done == total ? total : 0; };
    loaded.engine = load("", options);
    Session session = loaded.engine->open();
    loaded.engine->examine(session, [&](Model&, Executor& executor, uint32_t) {
        const Tuning tuning = remembered_tuning(executor.gpu()->info());
        loaded.trials = tuning.trials;
        loaded.attention = tuning.attention;
    });
    return loaded;
}

// What follows prompts of several lengths: those of a step of one, two and some rows, and of several steps.
std::vector<Token> greedy(Engine& engine) {
    std::vector<Token> tokens;
    for (const size_t length : {2, 3, 6, 40}) {
        auto session = engine.open();
        session.sampling().temperature = 0;
        session.feed(prompt(length, 3, 4096));
        for (int i = 0; i < 6; ++i) tokens.push_back(session.next());
    }
    return tokens;
}

std::vector<Candidate> last_candidates(Engine& engine) {
    auto session = engine.open();
    session.feed(prompt(40, 3, 4096));
    session.next();
    return {session.candidates().begin(), session.candidates().end()};
}

} // namespace

TEST_CASE("tuning: every kernel is tried and one is chosen for every product") {
    const Environment environment("");
    const Loaded first = load_tuned("tune");
    std::map<Product, std::vector<const Trial*>> products;
    std::set<Tier> tiers;
    for (const Trial& trial : first.trials) {
        CHECK_MESSAGE(trial.failure == "", trial.product.text() << " " << trial.variant.text());
        CHECK(trial.seconds > 0);
        products[trial.product].push_back(&trial);
        tiers.insert(trial.variant.tier);
    }
    CHECK(products.size() == first.tried);
    CHECK(products.size() >= 8); // decode and prefill: attention, experts, dense layer, logits
    CHECK(tiers.contains(Tier::tiled));
    for (const auto& [product, trials] : products) {
        CHECK(trials.front()->variant == Variant());
        CHECK(std::count_if(trials.begin(), trials.end(), [](const Trial* t) { return t->chosen; }) == 1);
    }
    REQUIRE(first.attention.size() == 1); // this model's
    for (const double cost :
         {first.attention.begin()->second.expand_row, // all measured: seconds
          first.attention.begin()->second.expanded_pair, first.attention.begin()->second.absorb_row,
          first.attention.begin()->second.absorbed_pair}) {
        CHECK(cost > 0);
        CHECK(cost < 1);
    }
    const Loaded second = load_tuned("tune"); // anew, although it is remembered
    CHECK(second.tried == first.tried);
    CHECK(second.trials.size() == first.trials.size());
    CHECK(second.attention.size() == 1);
}

TEST_CASE("tuning: a wrong kernel is caught, and what it would have spoiled is right") {
    const Environment environment("tiled");
    const Loaded wrong = load_tuned("tune");
    size_t caught = 0;
    for (const Trial& trial : wrong.trials) {
        CHECK((trial.variant.tier == Tier::tiled) == !trial.failure.empty());
        CHECK_FALSE((trial.chosen && !trial.failure.empty()));
        caught += !trial.failure.empty();
    }
    CHECK(caught >= 4);
    LoadOptions reference{.reference = true, .context = 64, .chunk = 32, .quantize = "q8_0"};
    const auto expected = last_candidates(*load("", reference)), got = last_candidates(*wrong.engine);
    for (size_t i = 0; i < 5; ++i) // int8 may be what was chosen, which rounds activations to 8 bits
        CHECK(std::abs(got[i].logprob - expected[i].logprob) < 0.5);
}

TEST_CASE("tuning: what is remembered is used, and damage to it costs only the time") {
    const Environment environment("");
    const Loaded first = load_tuned("tune");
    std::filesystem::path file;
    for (const auto& entry : std::filesystem::directory_iterator(environment.folder()))
        if (entry.path().filename().string().starts_with("tuning-")) file = entry.path();
    REQUIRE(!file.empty());
    const auto remembered = [&] {
        std::vector<Trial> trials;
        Session session = first.engine->open();
        first.engine->examine(session, [&](Model&, Executor& executor, uint32_t) {
            trials = remembered_tuning(executor.gpu()->info()).trials;
        });
        return trials.size();
    };
    const size_t all = first.trials.size();
    CHECK(remembered() == all);
    const auto size = std::filesystem::file_size(file);
    std::filesystem::resize_file(file, size / 2);
    CHECK(remembered() == 0);
    std::ofstream(file) << R"({"program": "another", "trials": []})";
    CHECK(remembered() == 0);
    std::ofstream(file) << R"({"program": 3, "trials": "none"})";
    CHECK(remembered() == 0);
}

TEST_CASE("tuning: a trial that did not come back is not repeated") {
    const Environment environment("");
    const Loaded first = load_tuned("tune");
    // As the file is when the program ends over the tiled kernel of a product: the ones before it are there.
    const Trial* tiled = nullptr;
    for (const Trial& trial : first.trials)
        if (trial.variant.tier == Tier::tiled) tiled = &trial;
    REQUIRE(tiled != nullptr);
    std::vector<Trial> stopped;
    for (const Trial& trial : first.trials)
        if (trial.product != tiled->product) stopped.push_back(trial);
    stopped.push_back({tiled->product, Tier::tiled, 0, 0, "gone", false});
    const auto engine = load("", {.context = 64, .chunk = 32, .quantize = "q8_0"});
    Session session = engine->open();
    engine->examine(session, [&](Model& model, Executor& executor, uint32_t sequence) {
        std::vector<StepRow> rows;
        for (uint32_t i = 0; i < 32; ++i) rows.push_back({i, i, sequence});
        size_t saved = 0;
        const std::vector<Trial> found =
            tune(model, executor, rows, stopped, {.save = [&](const auto& so_far) {
                     ++saved;
                     CHECK(!so_far.back().failure.empty());
                     CHECK(so_far.back().variant.tier != Tier::tiled);
                 }});
        CHECK(saved + 1 == found.size()); // each but the one that is known
        size_t gone = 0;
        for (const Trial& trial : found) {
            CHECK(trial.product == tiled->product);
            gone += trial.failure == "gone" && !trial.chosen;
        }
        CHECK(gone == 1);
    });
}

TEST_CASE("tuning: a tier for all products, and words that are none") {
    const std::vector<Token> expected = greedy(*load("", {.reference = true, .context = 64, .chunk = 32}));
    for (const char* tier :
         {"base", "tiled", "half", "matrix", "int8"}) // where the device has them not, base
        CHECK_MESSAGE(greedy(*load("", {.context = 64, .chunk = 32, .tier = tier})) == expected, tier);
    try {
        load("", {.tier = "fastest"});
        FAIL("taken");
    } catch (const Error& error) {
        CHECK(std::string(error.what()).find("fastest") != std::string::npos);
    }
}
