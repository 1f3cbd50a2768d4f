#include "cli/recorder.h"

#include "base/log.h"
#include "cli/command.h"

#include <CLI/CLI.hpp>
#include <ctime>
#include <fmt/format.h>

namespace fathom::cli {

namespace {

std::string time_text() {
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    gmtime_r(&now, &utc);
    char text[32];
    std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
    return text;
}

} // namespace

void add_trace(CLI::App& app, ModelOptions& options) {
    add_path(app, "--trace", options.trace, "FILE.ftrace",
             "Record what the model does, token by token, into FILE (see 'fathom trace'); off: the kernels "
             "tell nothing");
}

void add_watch(CLI::App& app, ModelOptions& options) {
    app.add_option("--watch", options.watch,
                   "Watch these layers closer, as 5 or 0,5,9: what their heads look at, and all scores of "
                   "their routers")
        ->delimiter(',')
        ->type_name("LAYERS");
    add_count(app, "--watch-width", options.watch_width,
              "Sum neighbouring positions so that what a head looks at are at most N numbers; 0: never");
}

void watch_layers(const LoadedModel& model, const ModelOptions& options) {
    if (options.watch.empty()) return;
    model.engine->watch_layers({.layers = options.watch, .width = options.watch_width});
}

std::string text_of(const LoadedModel& model, Token token) {
    return token < model.tokenizer.size() ? model.tokenizer.decode(std::vector<Token>{token}) : "";
}

trace::Identity identity_of(const LoadedModel& model, const SamplingParams& sampling) {
    const ModelConfig& c = model.config();
    return {model.engine->trace_shape(),
            {{"program", version_text()},
             {"created", time_text()},
             {"model",
              {{"name", model.files.name},
               {"n_heads", c.n_heads},
               {"dim", c.dim},
               {"vocab_size", c.vocab_size},
               {"latent", c.is_mla()},
               {"cache_floats", c.cache_dim()},
               {"kv_lora_rank", c.kv_lora_rank},
               {"qk_nope_head_dim", c.qk_nope_head_dim},
               {"qk_rope_head_dim", c.qk_rope_head_dim},
               {"v_head_dim", c.v_head_dim},
               {"n_shared_experts", c.n_shared_experts},
               {"rope", rope_frequencies(c).inv_freq},
               {"device_memory", model.engine->memory().device},
               {"context", model.engine->context()}}},
             {"device", model.engine->device_name()},
             {"settings",
              {{"seed", sampling.seed},
               {"temperature", sampling.temperature},
               {"top_p", sampling.top_p},
               {"top_k", sampling.top_k},
               {"min_p", sampling.min_p}}}}};
}

Recorder::Recorder(const LoadedModel& model, const ModelOptions& options, const SamplingParams& sampling)
    : engine_(*model.engine) {
    const bool records = !options.trace.empty() && options.trace != "off";
    if (!options.watch.empty() && !records)
        throw UsageError("--watch goes into a recording: name one with --trace FILE");
    if (!records) return;
    sink_.emplace(options.trace, identity_of(model, sampling),
                  [&model](Token token) { return text_of(model, token); });
    watch_layers(model, options);
    engine_.listen(sink_->queue());
}

Recorder::~Recorder() {
    if (sink_) engine_.ignore(sink_->queue());
}

void Recorder::finish() {
    if (!sink_) return;
    engine_.ignore(sink_->queue());
    sink_->finish();
    if (const uint64_t lost = sink_->queue().dropped(); lost != 0)
        log::warning("the recording lacks {} records: writing it was too slow", lost);
}

} // namespace fathom::cli
