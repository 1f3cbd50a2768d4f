// --trace: what a command's engine tells, recorded into a file.
#pragma once

#include "cli/generate.h"
#include "trace/file.h"

#include <optional>

namespace CLI {
class App;
}

namespace fathom::cli {

// `where` is a file, "off" (the kernels write nothing either), or empty: told, and not recorded.
void add_trace(CLI::App& app, ModelOptions& options);

// --watch LAYERS and --watch-width: more is told of these layers.
void add_watch(CLI::App& app, ModelOptions& options);
void watch_layers(const LoadedModel& model, const ModelOptions& options);

std::string text_of(const LoadedModel& model, Token token); // its bytes; "" for an id that has none
// What a recording of this model says of itself.
trace::Identity identity_of(const LoadedModel& model, const SamplingParams& sampling);

// Records all sessions of the model's engine while it lives; nothing where options.trace names no file.
class Recorder {
  public:
    Recorder(const LoadedModel& model, const ModelOptions& options, const SamplingParams& sampling);
    ~Recorder();
    Recorder(const Recorder&) = delete;
    void finish(); // the file is whole afterwards; throws Error where it could not be written

  private:
    Engine& engine_;
    std::optional<trace::FileSink> sink_;
};

} // namespace fathom::cli
