// A lost device: the model is loaded again, once, and sessions go on with the bits that they would have had.
#include "session/help.h"

#include "gpu/device.h"

using namespace fathom;
using namespace fathom::session_test;

namespace {

LoadOptions losing(uint32_t submit) {
    return {.context = 256, .chunk = 32, .in_flight = 2, .lose_at_submit = submit};
}

// The model stays where it is: it is opened again.
std::unique_ptr<Engine> load_kept(const LoadOptions& options) {
    static const SmallModel model("v3_base");
    return std::make_unique<Engine>(model.files(), on_device(options));
}

// A long prompt, tokens, a second session, and a fork.
std::vector<std::vector<Step>> story(Engine& engine) {
    auto first = opened(engine, prompt(70), 0.8f, 3), second = opened(engine, prompt(9, 2), 0.8f, 4);
    std::vector<std::vector<Step>> out{steps_of(first, 6), steps_of(second, 4)};
    auto third = first.fork();
    out.push_back(steps_of(third, 3));
    out.push_back(steps_of(first, 5));
    first.feed(prompt(40, 5));
    out.push_back(steps_of(first, 3));
    out.push_back(steps_of(second, 2));
    return out;
}

} // namespace

TEST_CASE("loss: sessions go on from their tokens as if nothing had happened" * doctest::test_suite("long")) {
    const auto expected = story(*load_kept(losing(0)));
    size_t recovered = 0;
    for (uint32_t submit = 1; submit < 90; submit += submit < 6 ? 1 : 9) {
        std::unique_ptr<Engine> engine;
        try {
            engine = load_kept(losing(submit));
        } catch (const gpu::DeviceLost&) { // while it was being loaded: told, nothing more
            continue;
        }
        const auto got = story(*engine);
        CHECK_MESSAGE(got == expected, "lost at submit " << submit);
        ++recovered;
    }
    CHECK(recovered >= 6);
}

TEST_CASE("loss: steering and cache format are in force after it") {
    const auto run = [](uint32_t submit) {
        LoadOptions options = losing(submit);
        options.cache_format = "f16";
        const auto engine = load_kept(options);
        const ModelConfig& c = engine->config();
        Steering steering;
        uint32_t moe_layers = 0;
        for (uint32_t i = 0; i < c.n_layers; ++i) moe_layers += c.is_moe(i);
        steering.key.assign(size_t{moe_layers} * c.n_routed_experts, 0.0f);
        steering.key[1] = 100; // an expert that everyone takes
        engine->set_steering(steering);
        auto session = opened(*engine, prompt(20), 0.0f, 1);
        auto steps = steps_of(session, 8);
        const auto routing = session.take_records();
        CHECK(routing.size() == 27); // each token once
        for (const auto& r : routing) CHECK(std::count(r.experts.begin(), r.experts.end(), 1) >= 1);
        return steps;
    };
    CHECK(run(24) == run(0));
}

TEST_CASE("loss: a second one is told, and so is every call after it") {
    // The hook loses a device once; here the second does not come, since its model cannot be opened again.
    std::unique_ptr<Engine> broken;
    {
        const SmallModel model("v3_base");
        broken = std::make_unique<Engine>(model.files(), on_device(losing(30)));
    } // its files are gone
    auto session = broken->open();
    session.feed(prompt(20));
    const auto until_told = [&] {
        for (int i = 0; i < 60; ++i) session.next();
    };
    CHECK_THROWS(until_told());
    const auto size = session.position();
    CHECK_THROWS(session.next());
    CHECK(session.position() == size);
    CHECK_THROWS(broken->open());
    CHECK(broken->config().n_layers > 0);
    CHECK(!broken->device_name().empty());
}
