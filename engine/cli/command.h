// The shape of a subcommand. Each lives in one file that adds its options to a CLI11 app and returns what to
// run; the table in main.cpp names them all, once.
#pragma once

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace fathom::cli {

using Action = std::function<int()>; // does the work and returns the exit code

// Exit codes, the same for every command. Errors are thrown and turned into codes in main.cpp.
constexpr int OK = 0, FAILED = 1, USAGE = 2, UNJUDGED = 3, INTERRUPTED = 130;

struct Command {
    const char* name;
    const char* about;
    const char* examples; // shown under the options by --help
    Action (*prepare)(CLI::App& app);
};

Action prepare_story(CLI::App& app); // without a command: the main job, with the embedded model
Action prepare_run(CLI::App& app);
Action prepare_chat(CLI::App& app);
Action prepare_render(CLI::App& app);
Action prepare_devices(CLI::App& app);
Action prepare_inspect(CLI::App& app);
Action prepare_logits(CLI::App& app);
Action prepare_convert(CLI::App& app);
Action prepare_quantize(CLI::App& app);
Action prepare_tokenize(CLI::App& app);
Action prepare_detokenize(CLI::App& app);
Action prepare_perplexity(CLI::App& app);
Action prepare_compare(CLI::App& app);
Action prepare_bench(CLI::App& app);
Action prepare_trace(CLI::App& app);
Action prepare_view(CLI::App& app);
Action prepare_serve(CLI::App& app);

std::string version_text(); // what --version prints

} // namespace fathom::cli
