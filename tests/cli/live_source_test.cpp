// A model under the viewer: what is asked of it from another thread, and what its records then say.
#include "cli/live_source.h"
#include "viewer/store.h"

#include <chrono>
#include <cmath>
#include <doctest/doctest.h>
#include <thread>

using namespace fathom;
using namespace fathom::cli;

namespace {

// Waits until the source rests, and gives the store all it told.
void settle(LiveSource& source, viewer::Store& store) {
    const auto take = [&] {
        for (const trace::Packet& packet : source.poll()) store.ingest(packet);
    };
    while (source.control()->busy()) {
        take();
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    take();
}

size_t uses(const viewer::Store& store, const viewer::Timeline& timeline, viewer::Pin expert, uint32_t from) {
    size_t n = 0;
    for (const viewer::Use& use : store.uses(timeline, expert.layer, expert.expert))
        n += use.position >= from;
    return n;
}

} // namespace

TEST_CASE("live source: writes, goes on, branches, stops, and leaves a silenced expert out") {
    const LoadedModel model = load_model({});
    LiveSource source(model);
    viewer::Store store(source.identity(), [&](Token token) { return source.text(token); });
    const viewer::Sampling greedy{.temperature = 0, .max_tokens = 24};
    source.control()->generate({.text = "Once upon a time", .sampling = greedy});
    settle(source, store);
    CHECK(source.control()->failure().empty());
    REQUIRE(store.timelines().size() == 1);
    const uint32_t first = store.timelines()[0].session, size = store.timelines()[0].size();
    std::string text;
    for (uint32_t i = 1; i < size; ++i) text += store.text(store.timeline(first)->token(i));
    CHECK(text.starts_with("Once upon a time"));
    CHECK(size >= 24);

    // from another token in the middle: a session of its own, with the same past
    const trace::TokenRecord& before = *store.timeline(first)->record(size - 10);
    REQUIRE(before.candidates.size() > 1);
    source.control()->generate(
        {.session = first, .keep = size - 9, .forced = before.candidates[1].token, .sampling = greedy});
    settle(source, store);
    REQUIRE(store.timelines().size() == 2);
    const viewer::Timeline& branch = store.timelines()[1];
    CHECK(branch.parent == first);
    CHECK(branch.token(size - 9) == before.candidates[1].token);
    CHECK(branch.token(3) == store.timeline(first)->token(3));
    CHECK(branch.size() > size - 9);

    // the busiest expert of a layer, silenced
    viewer::Pin busiest{2, 0};
    for (uint32_t e = 0; e < store.shape().n_experts; ++e)
        if (uses(store, branch, {2, e}, 0) > uses(store, branch, busiest, 0)) busiest.expert = e;
    source.control()->steer({{.expert = busiest, .key = viewer::Steered::SILENT}});
    const uint32_t end = branch.size();
    source.control()->generate({.session = branch.session, .keep = end, .sampling = greedy});
    settle(source, store);
    CHECK(store.timelines()[1].size() > end + 4);
    CHECK(uses(store, store.timelines()[1], busiest, end) ==
          0); // the token at `end` was already chosen, and runs now
    source.control()->steer({});

    source.control()->generate({.text = "One day", .sampling = {.max_tokens = 100000}});
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    source.control()->stop();
    settle(source, store);
    CHECK(store.timelines().back().size() < 1000);
    source.control()->generate({.session = 999, .keep = 1});
    settle(source, store);
    CHECK(source.control()->failure().find("closed") != std::string::npos);
}

TEST_CASE("live source: reads a text again to watch its attention, and writes twice to compare") {
    const LoadedModel model = load_model({});
    LiveSource source(model);
    viewer::Store store(source.identity(), [&](Token token) { return source.text(token); });
    const viewer::Sampling greedy{.temperature = 0, .max_tokens = 20};
    source.control()->generate({.text = "Once upon a time", .sampling = greedy});
    settle(source, store);
    const uint32_t first = store.timelines()[0].session, size = store.timelines()[0].size();
    CHECK(store.watched().empty());

    source.control()->watch({.layers = {1}});
    source.control()->generate({.session = first, .keep = size, .again = true});
    settle(source, store);
    CHECK(source.control()->failure().empty());
    REQUIRE(store.timelines().size() == 2);
    const viewer::Timeline& again = store.timelines()[1];
    CHECK(store.watched() == std::vector<uint32_t>{1});
    CHECK(again.slots.size() == size - 1); // the last token has not gone through the model
    for (uint32_t i = 0; i + 1 < size; ++i) {
        CHECK(again.token(i) == store.timeline(first)->token(i));
        const trace::AttentionRows* rows = viewer::Store::attention(again, i, 1);
        REQUIRE(rows);
        CHECK(rows->bins() == i + 1);
        const viewer::Focus f = viewer::focus(*rows, 0, i);
        CHECK(f.sink >= 0);
        CHECK(f.entropy <= std::log2(double(i + 1)) + 1e-6);
    }

    // An expert that all tokens must take, with twice its weight, and the same text without.
    source.control()->steer({{.expert = {0, 3}, .key = viewer::Steered::FORCED, .factor = 2}});
    source.control()->generate({.session = first, .keep = size / 2, .sampling = greedy, .twice = true});
    settle(source, store);
    CHECK(source.control()->failure().empty());
    REQUIRE(store.timelines().size() == 4);
    const viewer::Timeline &free = store.timelines()[2], &steered = store.timelines()[3];
    CHECK(free.parent == first);
    CHECK(steered.parent == first);
    for (uint32_t i = 0; i < std::min(free.size(), size); ++i)
        CHECK(free.token(i) == store.timeline(first)->token(i)); // greedy, and as it was
    const uint32_t from = size / 2 - 1;                          // the last token that is kept runs once more
    const auto written = static_cast<size_t>(steered.slots.size() - from);
    CHECK(uses(store, steered, {0, 3}, from) == written);
    CHECK(uses(store, free, {0, 3}, from) < written);
    const trace::Difference d = store.difference(free, steered);
    CHECK(!d.flips.empty());
    CHECK(d.flips.front().position >= from);
}

TEST_CASE("live source: a conversation is what the model's chat format makes of it") {
    const LoadedModel model = load_model({}); // it knows the marks of V3's format
    LiveSource source(model);
    viewer::Store store(source.identity(), [&](Token token) { return source.text(token); });
    const viewer::Sampling five{.temperature = 0, .max_tokens = 5};
    source.control()->generate({.text = "Hello", .sampling = five, .chat = true});
    settle(source, store);
    CHECK(source.control()->failure().empty());
    REQUIRE(store.timelines().size() == 1);
    const uint32_t session = store.timelines()[0].session, size = store.timelines()[0].size();
    source.control()->generate({.session = session,
                     .keep = size,
                     .text = "And now?",
                     .sampling = {.temperature = 0, .max_tokens = 5},
                     .chat = true});
    settle(source, store);
    CHECK(source.control()->failure().empty());
    std::string text;
    const viewer::Timeline& timeline = *store.timeline(session);
    for (uint32_t i = 0; i < timeline.size(); ++i) text += store.text(timeline.token(i));
    const std::string user = "<\uFF5CUser\uFF5C>", assistant = "<\uFF5CAssistant\uFF5C>",
                      end = "<\uFF5Cend\u2581of\u2581sentence\uFF5C>";
    CHECK(text.find(user + "Hello" + assistant) != std::string::npos);
    CHECK(text.find(end + user + "And now?" + assistant) != std::string::npos); // the answer before was cut
    const std::string answer = text.substr(text.find("Hello" + assistant));
    CHECK(answer.find(end) < answer.find(user));
}
