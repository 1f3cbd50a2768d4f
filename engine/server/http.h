// HTTP/1.1 over Boost.Beast: connections, limits and time-outs; what is asked and answered is a handler's.
// TLS is left to a reverse proxy.
#pragma once

#include "server/websocket.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace fathom::server {

struct HttpRequest {
    std::string method, path, query; // query: what follows the first '?' of the path
    std::string body;
    std::string host, origin, authorization, type; // headers; "" where there is none
    bool socket = false;                           // asks for a WebSocket,
    std::string protocol;                          // with this sub-protocol
};

// The answer to one request, from any thread. Either respond(), or begin(), write()... and end(), or
// become_socket().
class HttpAnswer {
  public:
    virtual ~HttpAnswer() = default;
    // `headers`: further lines, each with its CR and LF.
    virtual void add_headers(std::string lines) = 0; // before any of these; each line with its CR and LF
    virtual void respond(unsigned status, std::string_view type, std::string body,
                         std::string_view headers = {}) = 0;
    virtual void begin(unsigned status, std::string_view type) = 0; // a stream of unknown length
    // Waits while the client is slow to take what came before; false where it is gone.
    virtual bool write(std::string_view text) = 0;
    virtual void end() = 0;
    virtual void become_socket(Join join) = 0; // of a request for one
    virtual bool gone() const = 0;
    // Called once, from another thread, when the client goes before the answer is whole.
    virtual void on_gone(std::function<void()> act) = 0;
};

struct HttpOptions {
    std::string host = "127.0.0.1";
    uint16_t port = 8080; // 0: any that is free
    uint64_t body_limit = 4ull << 20;
    uint32_t header_limit = 16u << 10, connections = 256;
    uint32_t message_limit = 64u << 10; // bytes of a WebSocket's message
    uint32_t read_seconds = 30, write_seconds = 60, idle_seconds = 75;
    bool signals = true;        // SIGINT and SIGTERM end it
    uint32_t grace_seconds = 3; // that answers have to end in, once stop() was called
};

// Throws Error where a server could not listen now. For those who load a model first, which takes minutes.
void check_address(const HttpOptions& options);

class HttpServer {
  public:
    // A handler runs on a thread of its own for each request; what it throws is answered with 500.
    using Handler = std::function<void(const HttpRequest&, const std::shared_ptr<HttpAnswer>&)>;
    // Listens at once. Throws Error where the address cannot be had.
    HttpServer(const HttpOptions& options, Handler handler);
    ~HttpServer();
    HttpServer(const HttpServer&) = delete;

    uint16_t port() const; // that it listens on
    // Serves until stop(), or a signal; then takes no more, calls `hurry` after the grace and
    // returns when every answer has ended.
    void run(const std::function<void()>& hurry);
    void stop(); // from any thread

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace fathom::server
