// A benchmark, not a test: what the viewer's frames cost over a long recording of a model of V2-Lite's shape.
//     measure_viewer [TOKENS [FILE.ftrace]]
// keeps the recording where a FILE is named (then `fathom view FILE --measure 300` measures whole frames with
// their drawing), and prints how long a recording of TOKENS (4096) takes to open, and the milliseconds that
// the draw lists of each panel and of whole frames take to build (median and 99th percentile of 300 frames,
// without a GPU).
#include "viewer/app.h"
#include "viewer/screen.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fmt/format.h>
#include <random>
#include <unistd.h>

using namespace fathom;
using viewer::App;

namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

constexpr uint32_t ATTENDED = 13; // the layer whose attention is watched

trace::Shape v2_lite() {
    trace::Shape s{.n_layers = 27, .n_experts = 64, .n_active = 6, .n_groups = 1, .n_active_groups = 1};
    for (uint32_t layer = 1; layer < 27; ++layer) s.moe_layers.push_back(layer);
    return s;
}

trace::TokenRecord record(uint32_t i, std::mt19937& random) {
    const trace::Shape s = v2_lite();
    trace::TokenRecord r{
        .token = static_cast<Token>(random() % 20000), .position = i, .time = 20000000ull * i};
    for (uint32_t c = 0; c < s.choices(); ++c) {
        r.experts.push_back(static_cast<uint16_t>(random() % s.n_experts));
        r.weights.push_back(float(random() % 1000) / 4000);
    }
    const size_t layers = s.moe_layers.size();
    r.margin.assign(layers, 0.01f), r.entropy.assign(layers, 3), r.swapped.assign(layers, 0),
        r.groups.assign(layers, 1);
    r.norms.assign(s.n_layers + 1, 2);
    if (i % 64 == 8) r.times.assign(s.times(), 1e-4f);
    trace::AttentionRows rows{ATTENDED, 0, 16, 1, {}};
    while ((i + rows.pool) / rows.pool > 256) rows.pool *= 2;
    const uint32_t bins = (i + rows.pool) / rows.pool;
    for (uint32_t k = 0; k < 16 * bins; ++k) rows.weights.push_back(1 / float(bins));
    r.attention.push_back(std::move(rows));
    r.next = static_cast<Token>(random() % 20000);
    for (uint32_t c = 0; c < trace::CANDIDATES; ++c)
        r.candidates.push_back({static_cast<Token>(random() % 20000), -1 - float(c)});
    return r;
}

void write(const std::filesystem::path& path, uint32_t tokens) {
    trace::Writer writer(path, {v2_lite(), {{"model", {{"name", "v2-lite"}}}, {"device", "none"}}},
                         [](Token token) { return fmt::format(" word{}", token % 999); });
    std::mt19937 random(1);
    for (uint32_t i = 0; i < tokens; ++i) writer.write(record(i, random));
    writer.finish();
}

void print(const char* what, std::vector<double> times) {
    std::sort(times.begin(), times.end());
    fmt::print("{:<28}{:8.2f} ms median {:8.2f} ms p99\n", what, times[times.size() / 2],
               times[times.size() * 99 / 100]);
}

// Frames in which a token comes each time, so that nothing is left as it was.
std::vector<double> frames(App& app, test::Screen& screen, uint32_t& next,
                           const std::function<void()>& draw) {
    std::vector<double> times;
    std::mt19937 random(next);
    for (int i = 0; i < 300; ++i) {
        app.store.ingest(record(next++, random));
        screen.begin({900, 200});
        const auto start = Clock::now();
        draw();
        ImGui::Render();
        times.push_back(ms_since(start));
    }
    return times;
}

} // namespace

int main(int argc, char** argv) {
    const auto tokens = static_cast<uint32_t>(argc > 1 ? std::atoi(argv[1]) : 4096);
    const auto path = argc > 2 ? std::filesystem::path(argv[2])
                               : std::filesystem::temp_directory_path() /
                                     fmt::format("fathom-measure-{}.ftrace", ::getpid());
    write(path, tokens);
    const auto start = Clock::now();
    viewer::RecordingSource source(trace::read_recording(path));
    test::Screen screen;
    App app(source, true, 1);
    app.poll();
    fmt::print("{} tokens, {} bytes of file, open in {:.0f} ms\n", app.size(),
               std::filesystem::file_size(path), ms_since(start));
    app.grid_view.tokens = float(tokens); // all of them in sight
    app.select({{}, 3, 5});
    app.store.ingest(trace::Event{.kind = trace::Event::Kind::forked, .session = 7, .position = tokens / 2});
    uint32_t next = tokens;
    struct Panel {
        const char* name;
        void (*draw)(App&);
    };
    const Panel panels[] = {{"header", viewer::draw_header},
                            {"text", viewer::draw_text},
                            {"alternatives", viewer::draw_alternatives},
                            {"grid", viewer::draw_grid},
                            {"load", viewer::draw_load},
                            {"choice", viewer::draw_choice},
                            {"expert", viewer::draw_expert},
                            {"heads", viewer::draw_heads},
                            {"attention row", viewer::draw_attention_row},
                            {"head atlas", viewer::draw_head_atlas},
                            {"times", viewer::draw_times},
                            {"stages", viewer::draw_stages},
                            {"compare", viewer::draw_compare},
                            {"palette", viewer::draw_palette},
                            {"cache", viewer::draw_cache},
                            {"memory", viewer::draw_memory}};
    for (const Panel& panel : panels)
        print(panel.name, frames(app, screen, next, [&] {
                  ImGui::SetNextWindowSize({1280, 800});
                  ImGui::Begin("panel");
                  panel.draw(app);
                  ImGui::End();
              }));
    for (size_t i = 0; i < viewer::PRESET_NAMES.size(); ++i) {
        app.preset = static_cast<viewer::Preset>(i);
        print(fmt::format("whole frame, {}", viewer::PRESET_NAMES[i]).c_str(),
              frames(app, screen, next, [&] { app.frame(); }));
    }
    if (argc <= 2) std::filesystem::remove(path);
}
