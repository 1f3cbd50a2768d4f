// The viewer driven as a person drives it, without a window: a mouse over the panels, and what is selected.
#include "trace/help.h"
#include "viewer/screen.h"

using namespace fathom;
using namespace fathom::trace_test;
using test::Screen;
using viewer::App;

namespace {

trace::Recording recording(uint32_t records) {
    trace::Recording all{.identity = identity()};
    for (uint32_t i = 0; i < records; ++i) {
        all.tokens.push_back(record(i, i >= 10));
        all.texts[all.tokens.back().token] = text_of(all.tokens.back().token);
    }
    return all;
}

const ImVec2 NOWHERE{-1, -1};

// The middle of a cell of a map, where it was drawn last.
ImVec2 cell(const viewer::ui::HeatMap& map, uint32_t x, uint32_t y) {
    const ImVec2 from = map.from(), to = map.to();
    return {from.x + (to.x - from.x) * (float(x) + 0.5f) / float(map.width()),
            from.y + (to.y - from.y) * (float(y) + 0.5f) / float(map.height())};
}

} // namespace

TEST_CASE("app: a cell of the grid selects token, layer and expert, and the text marks the token") {
    Screen screen;
    viewer::RecordingSource source(recording(30));
    App app(source, true, 1);
    CHECK(app.poll());
    CHECK(!app.poll());
    for (int i = 0; i < 3; ++i) screen.frame(app, NOWHERE);
    CHECK(app.size() == 31);
    REQUIRE(app.grid.height() == shape().choices());
    REQUIRE(app.grid.width() == 31);
    screen.click(app, cell(app.grid, 12, 4)); // choice 1 of MoE layer 1
    CHECK(app.hovered == 12u);
    CHECK(app.selection().token == 12u);
    CHECK(app.selection().layer == 1u);
    CHECK(app.selection().expert == record(12).experts[4]);
    // its colour is its weight among those in sight
    const float largest = 0.25f * float(shape().choices());
    CHECK(app.grid.at(12, 4).value == std::lround(record(12).weights[4] / largest * 255));
    CHECK(app.grid.at(30, 0).pin == viewer::ui::HeatMap::MISSING); // not gone through the model yet
}

TEST_CASE("app: a cell of the load map selects an expert, a pin shows in both maps") {
    Screen screen;
    viewer::RecordingSource source(recording(30));
    App app(source, false, 1);
    app.poll();
    for (int i = 0; i < 3; ++i) screen.frame(app, NOWHERE);
    screen.click(app, cell(app.loads, 5, 2));
    CHECK(app.selection().layer == 2u);
    CHECK(app.selection().expert == 5u);
    app.toggle_pin({2, 5});
    screen.frame(app, NOWHERE);
    CHECK(app.loads.at(5, 2).pin == 1);
    size_t pinned = 0, chosen = 0;
    for (uint32_t i = 0; i < 30; ++i)
        for (uint32_t k = 0; k < 3; ++k) {
            pinned += app.grid.at(i, 6 + k).pin == 1;
            chosen += record(i).experts[6 + k] == 5;
        }
    CHECK(pinned == chosen);
    CHECK(chosen > 0);
    app.toggle_pin({2, 5});
    CHECK(app.pins.empty());
}

TEST_CASE("app: a pause keeps what is seen, records go on coming") {
    Screen screen;
    viewer::RecordingSource source(recording(30));
    App app(source, true, 1);
    app.poll();
    screen.frame(app, NOWHERE);
    app.store.ingest(record(30, true));
    CHECK(app.size() == 32);
    app.select_token(3);
    screen.frame(app, NOWHERE);
    CHECK(!app.follow);
    app.select_token(31);
    CHECK(app.follow);
}

TEST_CASE("app: settings come back, and nonsense changes nothing") {
    Screen screen;
    viewer::RecordingSource source(recording(1));
    App app(source, true, 1), other(source, true, 1);
    app.set_settings(
        {{"dark", false}, {"split", 0.3}, {"preset", "memory"}, {"colouring", 1}, {"max_tokens", 7}});
    CHECK(!app.theme.dark);
    other.set_settings(app.settings());
    CHECK(other.settings() == app.settings());
    CHECK(other.preset == viewer::Preset::memory);
    CHECK(other.sampling.max_tokens == 7);
    for (const nlohmann::json& bad : std::vector<nlohmann::json>{
             nlohmann::json::array(), {{"split", 9}}, {{"preset", "x"}}, {{"colouring", -1}}, {{"dark", 1}}})
        other.set_settings(bad);
    CHECK(other.settings() == app.settings());
}

TEST_CASE("app: facts of the wrong kind are as good as none") {
    for (const nlohmann::json& facts : std::vector<nlohmann::json>{
             nlohmann::json::object(),
             {{"model", 5}, {"device", nlohmann::json::array()}},
             {{"model", {{"name", 1}, {"latent", "yes"}, {"n_heads", "many"}}}, {"device", nullptr}},
             {{"model", {{"latent", true}, {"n_heads", -1}, {"vocab_size", 1e300}, {"context", "x"}}}}}) {
        Screen screen;
        trace::Recording all = recording(20);
        all.identity.facts = facts;
        viewer::RecordingSource source(std::move(all));
        App app(source, true, 1);
        app.poll();
        for (size_t preset = 0; preset < viewer::PRESET_NAMES.size(); ++preset)
            for (int i = 0; i < 11; ++i) {
                app.preset = static_cast<viewer::Preset>(preset), app.lesson = i;
                screen.frame(app, NOWHERE);
            }
        CHECK(screen.vertices > 100);
    }
}

TEST_CASE("app: every preset, theme and size draws, empty and full, with little") {
    for (const uint32_t records : {0u, 1u, 4096u})
        for (size_t number = 0; number < viewer::PRESET_NAMES.size(); ++number) {
            const auto preset = static_cast<viewer::Preset>(number);
            Screen screen;
            viewer::RecordingSource source(recording(records));
            App app(source, preset != viewer::Preset::route, records == 1 ? 2 : 1);
            app.preset = preset;
            app.poll();
            for (int i = 0; i < 11; ++i) { // as many as the tour has steps
                app.lesson = i;
                screen.frame(app, {700, 200});
            }
            CHECK(screen.vertices > 100);
            CHECK(screen.vertices < 60000); // maps are textures, and text out of sight is not drawn
        }
}

TEST_CASE("app: a range is dragged over a histogram, its edges are moved, a double click takes it away") {
    Screen screen;
    viewer::ui::Range range;
    const std::vector<uint32_t> bins{1, 5, 0, 3};
    const auto frame = [&](float x, bool down) {
        screen.begin({100 + x, 110}, down);
        ImGui::SetNextWindowPos({0, 0});
        ImGui::SetNextWindowSize({500, 300});
        ImGui::Begin("window");
        ImGui::SetCursorScreenPos({100, 100});
        viewer::ui::histogram_range("range", bins, range, {200, 20});
        ImGui::End();
        ImGui::Render();
    };
    const auto drag = [&](float from, float to) {
        frame(from, false), frame(from, true);
        frame((from + to) / 2, true), frame(to, true), frame(to, false);
        for (int i = 0; i < 40; ++i) frame(to, false); // the next click is no double one
    };
    frame(0, false), frame(0, false);
    drag(50, 150);
    CHECK(range.low == doctest::Approx(0.25f).epsilon(0.05));
    CHECK(range.high == doctest::Approx(0.75f).epsilon(0.05));
    CHECK(range.holds(0.5f));
    CHECK(!range.holds(0.8f));
    drag(150, 190);
    CHECK(range.low == doctest::Approx(0.25f).epsilon(0.05));
    CHECK(range.high == doctest::Approx(0.95f).epsilon(0.05));
    for (int i = 0; i < 2; ++i) frame(100, true), frame(100, false);
    CHECK(range.all());
}

TEST_CASE("app: what the font cannot draw has a label") {
    Screen screen; // ImGui's own font: Latin alone
    screen.begin(NOWHERE);
    using viewer::ui::shown;
    CHECK(shown("a b") == "a b");
    CHECK(shown("\xE4\xB8\xAD") == "[U+4E2D]");
    CHECK(shown("\xE4\xB8") == "[E4][B8]"); // half a character, as many tokens are
    CHECK(shown("<\xEF\xBD\x9C>") == "<|>");
    CHECK(shown("\x01") == "[01]");
    CHECK(shown("\xF0\x9F\x98\x80") == "[U+1F600]");
    ImGui::EndFrame();
}

TEST_CASE("app: kinds of tokens") {
    using viewer::class_of;
    using Class = viewer::TokenClass;
    CHECK(class_of(" the") == Class::begins_word);
    CHECK(class_of("ing") == Class::within_word);
    CHECK(class_of(" 2024") == Class::number);
    CHECK(class_of("),") == Class::punctuation);
    CHECK(class_of(" ") == Class::space);
    CHECK(class_of("\n\n") == Class::space);
    CHECK(class_of("") == Class::special);
    CHECK(class_of("<\xEF\xBD\x9CUser\xEF\xBD\x9C>") == Class::special);
    CHECK(class_of("\xE4\xB8\xAD") == Class::other);
    CHECK(class_of(" \xC3\xA9t\xC3\xA9") == Class::begins_word);
}
