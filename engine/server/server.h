// The server: which path is answered how, over http.h, completion.h and live.h.
#pragma once

#include "server/author.h"
#include "server/completion.h"
#include "server/http.h"
#include "server/live.h"

#include <chrono>
#include <map>

namespace fathom::server {

// A part of the viewer's page: anybody may have it.
struct PageFile {
    std::string type; // "text/html; charset=utf-8"
    bool gzip = false;
    std::function<std::string()> read;
};

// For viewers elsewhere: the page that is one, and what it is told.
struct ViewerOptions {
    std::map<std::string, PageFile> files; // by path: "/" and others
    trace::Identity identity;
    trace::TextOf text_of;
    uint64_t cache_tokens = 0; // that what is written for viewers may take, beside those of Served
};

struct ServerOptions {
    HttpOptions http;
    std::string api_key;              // "": none is asked for
    std::vector<std::string> hosts;   // names that a Host header may have, beside localhost and addresses
    std::vector<std::string> origins; // of pages elsewhere that may ask ("https://example.org"), "*": all
    std::optional<ViewerOptions> viewer;
};

class Server {
  public:
    // Listens at once. Throws Error where the address cannot be had.
    Server(Served model, ServerOptions options);
    ~Server();
    Server(const Server&) = delete;
    uint16_t port() const { return http_.port(); }
    void run() { // until SIGINT, SIGTERM or stop()
        http_.run([this] { completions_.stop_all(); });
    }
    void stop() { http_.stop(); }

  private:
    void handle(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer);
    void check(const HttpRequest& request) const;                                     // who may ask at all
    bool lets_in(const std::string& origin) const;                                    // a page elsewhere
    bool view(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer); // was it a viewer's?
    void complete(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer, bool chat);
    nlohmann::json tokenized(const HttpRequest& request) const;
    std::string metrics() const;

    Served model_;
    ServerOptions options_;
    Completions completions_;
    std::optional<Author> author_;
    std::optional<Live> live_;
    std::atomic<uint64_t> requests_ = 0, next_id_ = 0;
    const std::chrono::system_clock::time_point began_ = std::chrono::system_clock::now();
    HttpServer http_; // last: it calls handle()
};

} // namespace fathom::server
