// The server: which path is answered how, over http.h and completion.h.
#pragma once

#include "server/completion.h"
#include "server/http.h"

#include <chrono>

namespace fathom::server {

struct ServerOptions {
    HttpOptions http;
    std::string api_key;            // "": none is asked for
    std::vector<std::string> hosts; // names that a Host header may have, beside localhost and addresses
};

class Server {
  public:
    // Listens at once. Throws Error where the address cannot be had.
    Server(Served model, ServerOptions options);
    uint16_t port() const { return http_.port(); }
    void run() { // until SIGINT, SIGTERM or stop()
        http_.run([this] { completions_.stop_all(); });
    }
    void stop() { http_.stop(); }

  private:
    void handle(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);
    void check(const HttpRequest& request) const; // who may ask at all
    void complete(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer, bool chat);
    nlohmann::json tokenized(const HttpRequest& request) const;
    std::string metrics() const;

    Served model_;
    ServerOptions options_;
    Completions completions_;
    std::atomic<uint64_t> requests_ = 0, next_id_ = 0;
    const std::chrono::system_clock::time_point began_ = std::chrono::system_clock::now();
    HttpServer http_; // last: it calls handle()
};

} // namespace fathom::server
