// `fathom view`: the viewer on the desktop, over a recording or over a model that writes while it is watched.
#include "base/error.h"
#include "cli/command.h"
#include "cli/generate.h"
#include "cli/live_source.h"
#include "trace/file.h"
#include "viewer/desktop/window.h"

#include <CLI/CLI.hpp>
#include <memory>

namespace fathom::cli {

namespace {

struct Options {
    ModelOptions model;
    viewer::WindowOptions window;
    std::optional<std::string> prompt;
    bool light = false;
};

int view(Options options) {
    if (options.light) options.window.dark = false;
    if (options.model.model.extension() == ".ftrace") {
        viewer::RecordingSource source(trace::read_recording(options.model.model));
        viewer::show_window(source, options.window);
        return OK;
    }
    const LoadedModel model = load_model(options.model);
    LiveSource source(model);
    if (options.prompt) source.generate({.text = *options.prompt});
    viewer::show_window(source, options.window);
    return OK;
}

} // namespace

Action prepare_view(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_model(app, options->model);
    add_text(app, "-p,--prompt", options->prompt, "TEXT", "Begin with this text at once");
    add_context(app, options->model);
    add_loading(app, options->model);
    add_flag(app, "--light", options->light, "Dark text on light panels");
    app.add_option("--preset", options->window.preset, "What to see first: generate, route, memory or learn")
        ->type_name("NAME")
        ->check(CLI::IsMember({"generate", "route", "memory", "learn"}));
    app.add_option("--scale", options->window.scale, "Size of everything, 1 to 3; default: the system's")
        ->type_name("X")
        ->check(CLI::Range(1.0f, 3.0f));
    add_path(app, "--screenshot", options->window.screenshot, "FILE.png",
             "Write a picture of the window, once all is written, and end");
    add_path(app, "--state", options->window.state, "FILE.json",
             "Keep what is shown and selected in FILE, for other programs");
    return [options] { return view(*options); };
}

} // namespace fathom::cli
