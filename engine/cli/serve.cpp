// `fathom serve`: a model behind OpenAI's API, for the tools that people already have, and the viewer in the
// browser.
#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/generate.h"
#include "cli/live_source.h"
#include "cli/page_files.h"
#include "cli/recorder.h"
#include "cli/serving.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <memory>

namespace fathom::cli {

std::unique_ptr<server::Server> make_server(const LoadedModel& model, const ServeOptions& options) {
    server::Served what = served(model);
    what.cache_tokens = options.cache_tokens;
    what.keep_prefixes = options.keep_prefixes;
    if (options.chat_format)
        what.format = [&format = ChatFormat::named(*options.chat_format)]() -> const ChatFormat& {
            return format;
        };
    server::ServerOptions wanted = options.server;
    if (options.viewer)
        wanted.viewer = {.files = page_files(),
                         .identity = identity_of(model, {}),
                         .text_of = [&model](Token token) { return text_of(model, token); },
                         .cache_tokens = model.engine->context()};
    return std::make_unique<server::Server>(std::move(what), wanted);
}

std::string url_of(const server::Server& server, const ServeOptions& options) {
    const std::string &host = options.server.http.host, &key = options.server.api_key;
    const bool everywhere = host == "0.0.0.0" || host == "::";
    const std::string name = everywhere                            ? "localhost"
                             : host.find(':') != std::string::npos ? "[" + host + "]"
                                                                   : host;
    const bool tells = !key.empty() && options.viewer;
    return fmt::format("http://{}:{}/{}{}", name, server.port(), tells ? "#key=" : "", tells ? key : "");
}

namespace {

struct Options {
    ModelOptions model;
    ServeOptions serve;
    uint32_t port = 8080;
};

int serve(Options options) {
    if (options.port > 65535) throw UsageError(fmt::format("--port is 0 to 65535, not {}", options.port));
    options.serve.server.http.port = static_cast<uint16_t>(options.port);
    server::check_address(options.serve.server.http);
    options.model.spare_contexts = options.serve.viewer ? 1 : 0;
    const LoadedModel model = load_model(options.model);
    options.serve.cache_tokens =
        options.model.cache_tokens ? options.model.cache_tokens : 2 * model.engine->context();
    watch_layers(model, options.model);
    const auto server = make_server(model, options.serve);
    fmt::print("{} at {} (API at /v1; Ctrl-C ends it)\n", model.files.name, url_of(*server, options.serve));
    std::fflush(stdout);
    const std::string& host = options.serve.server.http.host;
    if (host != "127.0.0.1" && host != "localhost" && host != "::1" && options.serve.server.api_key.empty())
        log::warning("whoever reaches {} may use this model: --api-key KEY asks for one", host);
    server->run();
    return OK;
}

} // namespace

Action prepare_serve(CLI::App& app) {
    auto options = std::make_shared<Options>();
    options->model.cache_tokens = 0;
    add_model(app, options->model);
    app.add_option("--host", options->serve.server.http.host, "The address to listen on")
        ->type_name("ADDRESS")
        ->capture_default_str();
    add_count(app, "--port", options->port, "The port; 0: any that is free");
    app.add_option("--api-key", options->serve.server.api_key, "Let in only who sends it")
        ->type_name("KEY")
        ->envname("FATHOM_API_KEY");
    app.add_option("--allow-origin", options->serve.server.origins,
                   "Pages elsewhere that may ask, as https://example.org; '*': all")
        ->type_name("ORIGIN");
    app.add_option("--allow-host", options->serve.server.hosts,
                   "A name that clients may call this machine by, beside localhost and addresses")
        ->type_name("NAME");
    app.add_flag("--viewer,!--no-viewer", options->serve.viewer, "Serve the viewer, too; default: yes");
    add_text(app, "--chat-format", options->serve.chat_format, "NAME",
             "How conversations are written; default: what the model's chat template says");
    app.add_flag("--prefix-cache,!--no-prefix-cache", options->serve.keep_prefixes,
                 "Do not read the beginning of a prompt again that an earlier one had; default: yes");
    add_context(app, options->model);
    add_watch(app, options->model);
    add_count(app, "--cache-tokens", options->model.cache_tokens,
              "Tokens that the cache holds for all answers together; 0: twice the context");
    add_loading(app, options->model);
    return [options] { return serve(*options); };
}

} // namespace fathom::cli
