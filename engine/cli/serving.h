// A loaded model behind a server: of `fathom serve`, and beside a story where there is no display.
#pragma once

#include "cli/generate.h"
#include "server/server.h"

#include <memory>
#include <optional>
#include <string>

namespace fathom::cli {

struct ServeOptions {
    server::ServerOptions server;
    std::optional<std::string> chat_format; // none: the model's
    uint64_t cache_tokens = 0;              // for answers; viewers have room for one context more
    bool viewer = true, keep_prefixes = true;
};

// Listens at once; the model must outlive it. Throws Error where the address cannot be had.
std::unique_ptr<server::Server> make_server(const LoadedModel& model, const ServeOptions& options);
std::string url_of(const server::Server& server, const ServeOptions& options);

} // namespace fathom::cli
