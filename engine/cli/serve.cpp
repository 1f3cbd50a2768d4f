// `fathom serve`: a model behind OpenAI's API, for the tools that people already have, and the viewer in the
// browser.
#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/generate.h"
#include "cli/live_source.h"
#include "cli/page_files.h"
#include "cli/recorder.h"
#include "server/server.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <memory>

namespace fathom::cli {

namespace {

struct Options {
    ModelOptions model;
    server::ServerOptions server;
    uint32_t port = 8080;
    std::optional<std::string> chat_format; // none: the model's
    bool viewer = true, keep_prefixes = true;
};

int serve(Options options) {
    if (options.port > 65535) throw UsageError(fmt::format("--port is 0 to 65535, not {}", options.port));
    options.server.http.port = static_cast<uint16_t>(options.port);
    options.model.spare_contexts = options.viewer ? 1 : 0;
    const LoadedModel model = load_model(options.model);
    const uint32_t context = model.engine->context();
    server::Served what = served(model);
    what.cache_tokens = options.model.cache_tokens ? options.model.cache_tokens : 2 * context;
    if (options.viewer)
        options.server.viewer = {.files = page_files(),
                                 .identity = identity_of(model, {}),
                                 .text_of = [&model](Token token) { return text_of(model, token); },
                                 .cache_tokens = context};
    what.keep_prefixes = options.keep_prefixes;
    if (options.chat_format)
        what.format = [&format = ChatFormat::named(*options.chat_format)]() -> const ChatFormat& {
            return format;
        };
    watch_layers(model, options.model);
    server::Server server(std::move(what), options.server);
    const std::string& host = options.server.http.host;
    const bool everywhere = host == "0.0.0.0" || host == "::";
    const std::string name = everywhere                            ? "localhost"
                             : host.find(':') != std::string::npos ? "[" + host + "]"
                                                                   : host;
    const std::string& key = options.server.api_key;
    fmt::print("{} at http://{}:{}/{}{} (API at /v1; Ctrl-C ends it)\n", model.files.name, name,
               server.port(),
               key.empty() || !options.viewer ? "" : "#key=", key.empty() || !options.viewer ? "" : key);
    std::fflush(stdout);
    if (host != "127.0.0.1" && host != "localhost" && host != "::1" && key.empty())
        log::warning("whoever reaches {} may use this model: --api-key KEY asks for one", host);
    server.run();
    return OK;
}

} // namespace

Action prepare_serve(CLI::App& app) {
    auto options = std::make_shared<Options>();
    options->model.cache_tokens = 0;
    add_model(app, options->model);
    app.add_option("--host", options->server.http.host, "The address to listen on")
        ->type_name("ADDRESS")
        ->capture_default_str();
    add_count(app, "--port", options->port, "The port; 0: any that is free");
    app.add_option("--api-key", options->server.api_key, "Let in only who sends it")
        ->type_name("KEY")
        ->envname("FATHOM_API_KEY");
    app.add_option("--allow-host", options->server.hosts,
                   "A name that clients may call this machine by, beside localhost and addresses")
        ->type_name("NAME");
    app.add_flag("--viewer,!--no-viewer", options->viewer, "Serve the viewer, too; default: yes");
    add_text(app, "--chat-format", options->chat_format, "NAME",
             "How conversations are written; default: what the model's chat template says");
    app.add_flag("--prefix-cache,!--no-prefix-cache", options->keep_prefixes,
                 "Do not read the beginning of a prompt again that an earlier one had; default: yes");
    add_context(app, options->model);
    add_watch(app, options->model);
    add_count(app, "--cache-tokens", options->model.cache_tokens,
              "Tokens that the cache holds for all answers together; 0: twice the context");
    add_loading(app, options->model);
    return [options] { return serve(*options); };
}

} // namespace fathom::cli
