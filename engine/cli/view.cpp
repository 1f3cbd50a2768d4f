// `fathom view`: the viewer on the desktop, over a recording, over a model that writes while it is watched,
// or over an engine elsewhere.
#include "base/error.h"
#include "cli/command.h"
#include "cli/generate.h"
#include "cli/live_source.h"
#include "cli/recorder.h"
#include "server/dial.h"
#include "trace/file.h"
#include "viewer/desktop/window.h"
#include "viewer/preset.h"
#include "viewer/remote.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>

namespace fathom::cli {

namespace {

struct Options {
    ModelOptions model;
    std::filesystem::path other;
    viewer::WindowOptions window;
    std::optional<std::string> prompt;
    bool light = false;
};

// An engine elsewhere, over its server's WebSocket.
class RemoteLink final : public viewer::Link {
  public:
    explicit RemoteLink(const std::string& url)
        : address_(server::parse_address(url)), text_(address_.text()),
          dial_(address_, trace::wire_protocol()) {}
    std::vector<Piece> poll() override {
        std::vector<Piece> pieces;
        for (server::Dial::Piece& piece : dial_.poll())
            pieces.push_back({static_cast<Piece::Kind>(piece.kind), std::move(piece.bytes)});
        return pieces;
    }
    void send(std::string text) override { dial_.send(std::move(text)); }
    const std::string& address() const override { return text_; }

  private:
    const server::Address address_;
    const std::string text_;
    server::Dial dial_;
};

int view(Options options) {
    if (options.light) options.window.dark = false;
    if (const std::string url = options.model.model.string(); url.find("://") != url.npos) {
        viewer::RemoteSource source(std::make_unique<RemoteLink>(url));
        if (options.prompt) source.generate({.text = *options.prompt});
        viewer::show_window(source, options.window);
        return OK;
    }
    if (options.model.model.extension() == ".ftrace") {
        if (!options.model.watch.empty())
            throw UsageError("--watch: a recording tells of the layers that were watched when it was made");
        trace::Recording recording = trace::read_recording(options.model.model);
        viewer::RecordingSource source =
            options.other.empty()
                ? viewer::RecordingSource(std::move(recording))
                : viewer::RecordingSource(std::move(recording), trace::read_recording(options.other));
        if (!options.other.empty() && options.window.preset.empty()) options.window.preset = "compare";
        viewer::show_window(source, options.window);
        return OK;
    }
    if (!options.other.empty())
        throw UsageError("two arguments: only two recordings (.ftrace) can be shown together");
    const LoadedModel model = load_model(options.model);
    LiveSource source(model);
    watch_layers(model, options.model);
    if (options.prompt) source.control()->generate({.text = *options.prompt});
    viewer::show_window(source, options.window);
    return OK;
}

} // namespace

Action prepare_view(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_model(app, options->model);
    add_text(app, "-p,--prompt", options->prompt, "TEXT", "Begin with this text at once");
    app.add_option("OTHER", options->other, "A second recording, to see beside the first")->type_name("FILE");
    add_context(app, options->model);
    add_watch(app, options->model);
    add_loading(app, options->model);
    add_flag(app, "--light", options->light, "Dark text on light panels");
    std::vector<std::string> presets(viewer::PRESET_NAMES.begin(), viewer::PRESET_NAMES.end());
    app.add_option("--preset", options->window.preset,
                   fmt::format("What to see first: {}", fmt::join(presets, ", ")))
        ->type_name("NAME")
        ->check(CLI::IsMember(presets));
    app.add_option("--scale", options->window.scale, "Size of everything, 1 to 3; default: the system's")
        ->type_name("X")
        ->check(CLI::Range(1.0f, 3.0f));
    add_path(app, "--screenshot", options->window.screenshot, "FILE.png",
             "Write a picture of the window, once all is written, and end");
    add_count(app, "--measure", options->window.measure,
              "Draw N frames as fast as they come, print the time they took, and end");
    add_path(app, "--state", options->window.state, "FILE.json",
             "Keep what is shown and selected in FILE, for other programs");
    return [options] { return view(*options); };
}

} // namespace fathom::cli
