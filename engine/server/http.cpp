#include "server/http.h"

#include "base/error.h"
#include "base/log.h"
#include "server/websocket_stream.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <fmt/format.h>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

namespace fathom::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

namespace {
constexpr size_t MOST_DRAINED = 64u << 20; // bytes taken after a request was refused
constexpr size_t MOST_QUEUED = 256u << 10; // bytes of an answer that wait for a slow client
} // namespace

struct HttpServer::Impl {
    class Connection;
    HttpOptions options;
    Handler handler;
    std::set<Connection*> connections;  // of the io thread
    std::set<WebSocketStream*> sockets; // the same
    asio::io_context io{1};
    tcp::acceptor acceptor{io};
    asio::signal_set signals{io};
    asio::steady_timer grace{io};
    std::function<void()> hurry;
    bool stopping = false; // of the io thread
    std::mutex threads_mutex;
    std::condition_variable threads_done;
    uint32_t threads = 0; // handlers at work

    void accept();
    void begin_stop();
    void leave(Connection* connection) {
        connections.erase(connection);
        if (stopping && connections.empty()) grace.cancel();
    }
    void take_over(tcp::socket socket, WebSocketStream::Request request, std::string protocol, Join join);
};

// Everything but the queue and what handlers ask is the io thread's.
class HttpServer::Impl::Connection final : public HttpAnswer,
                                           public std::enable_shared_from_this<Connection> {
  public:
    Connection(Impl& server, tcp::socket socket) : server_(server), stream_(std::move(socket)) {
        server_.connections.insert(this);
    }
    ~Connection() override { server_.leave(this); }

    void read() {
        parser_.emplace();
        parser_->body_limit(server_.options.body_limit);
        parser_->header_limit(server_.options.header_limit);
        const uint32_t seconds =
            buffer_.size() == 0 && answered_ ? server_.options.idle_seconds : server_.options.read_seconds;
        stream_.expires_after(std::chrono::seconds(seconds));
        http::async_read(
            stream_, buffer_, *parser_,
            [self = shared_from_this()](beast::error_code error, size_t) { self->on_read(error); });
    }

    void close_if_idle() {
        if (!started_ && !busy_) close();
    }

    // --- HttpAnswer, from a handler's thread
    void respond(unsigned status, std::string_view type, std::string body,
                 std::string_view headers) override {
        const std::string head =
            fmt::format("{}{}Content-Length: {}\r\n\r\n", head_of(status, type), headers, body.size());
        queue(head + body, true);
    }
    void add_headers(std::string lines) override { more_headers_ += lines; }
    void begin(unsigned status, std::string_view type) override {
        queue(head_of(status, type) + "Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n", false);
    }
    bool write(std::string_view text) override {
        if (text.empty()) return !gone_;
        {
            std::unique_lock lock(mutex_);
            room_.wait(lock, [&] { return gone_ || queued_ < MOST_QUEUED; });
        }
        if (gone_) return false;
        queue(fmt::format("{:x}\r\n{}\r\n", text.size(), text), false);
        return true;
    }
    void end() override { queue("0\r\n\r\n", true); }
    void become_socket(Join join) override {
        started_ = true;
        asio::post(stream_.get_executor(), [self = shared_from_this(), join = std::move(join)]() mutable {
            if (self->gone_) return;
            self->server_.take_over(self->stream_.release_socket(), std::move(self->message_),
                                    std::move(self->protocol_), std::move(join));
        });
    }
    bool gone() const override { return gone_; }
    void on_gone(std::function<void()> act) override {
        {
            const std::lock_guard lock(mutex_);
            if (!gone_) {
                on_gone_ = std::move(act);
                return;
            }
        }
        act();
    }

  private:
    std::string head_of(unsigned status, std::string_view type) const {
        return fmt::format(
            "HTTP/1.1 {} {}\r\nServer: fathom\r\nContent-Type: {}\r\nX-Content-Type-Options: nosniff\r\n"
            "Connection: {}\r\n{}",
            status, std::string(http::obsolete_reason(static_cast<http::status>(status))), type,
            keep_ ? "keep-alive" : "close", more_headers_);
    }

    void on_read(beast::error_code error) {
        answered_ = true;
        if (error == http::error::end_of_stream || error == beast::error::timeout ||
            error == asio::error::eof || error == asio::error::connection_reset ||
            error == asio::error::operation_aborted)
            return close();
        if (error) {
            keep_ = false;
            refused_ = true;
            const bool large = error == http::error::body_limit;
            const bool heads = error == http::error::header_limit;
            return respond(
                large   ? 413
                : heads ? 431
                        : 400,
                "text/plain",
                fmt::format("{}\n", large ? "the body is too large" : "this is no request that can be read"),
                {});
        }
        message_ = parser_->release();
        keep_ = message_.keep_alive() && !server_.stopping;
        busy_ = true;
        more_headers_.clear();
        HttpRequest request = request_of(message_);
        protocol_ = request.protocol;
        stream_.expires_never();
        watch();
        {
            const std::lock_guard lock(server_.threads_mutex);
            ++server_.threads;
        }
        std::thread([self = shared_from_this(), request = std::move(request)]() mutable {
            Impl& server = self->server_;
            try {
                server.handler(request, self);
            } catch (const std::exception& problem) {
                log::warning("{} {}: {}", request.method, request.path, problem.what());
                self->fail();
            }
            // the io thread lets it go
            asio::post(server.io, [last = std::move(self)] {});
            const std::lock_guard lock(server.threads_mutex);
            --server.threads;
            server.threads_done.notify_all();
        }).detach();
    }

    // Takes the body out of the message.
    static HttpRequest request_of(http::request<http::string_body>& message) {
        const auto header = [&](http::field field) { return std::string(message[field]); };
        const std::string target(message.target());
        const size_t path = std::min(target.find('?'), target.size());
        const std::string protocols = header(http::field::sec_websocket_protocol);
        return {.method = std::string(message.method_string()),
                .path = target.substr(0, path),
                .query = target.substr(std::min(path + 1, target.size())),
                .body = std::move(message.body()),
                .host = header(http::field::host),
                .origin = header(http::field::origin),
                .authorization = header(http::field::authorization),
                .type = header(http::field::content_type),
                .socket = beast::websocket::is_upgrade(message),
                .protocol = protocols.substr(0, protocols.find_first_of(", "))};
    }

    // Ends an answer that its handler could not.
    void fail() {
        if (!started_) return respond(500, "text/plain", "something went wrong here\n", {});
        asio::post(stream_.get_executor(), [self = shared_from_this()] { self->lose(); });
    }

    // Notices a client that goes while its answer is made.
    void watch() {
        stream_.socket().async_wait(
            tcp::socket::wait_read, [self = shared_from_this()](beast::error_code error) {
                beast::error_code ignored;
                if (error || self->finished_) return;
                char byte;
                self->stream_.socket().non_blocking(true, ignored);
                const size_t n =
                    self->stream_.socket().receive(asio::buffer(&byte, 1), tcp::socket::message_peek, error);
                if (n == 0 && error != asio::error::would_block) self->lose();
            });
    }

    void queue(std::string text, bool last) {
        started_ = true;
        {
            const std::lock_guard lock(mutex_);
            queued_ += text.size();
        }
        asio::post(stream_.get_executor(),
                   [self = shared_from_this(), text = std::move(text), last]() mutable {
                       self->waiting_.push_back(std::move(text));
                       self->finished_ = last;
                       if (self->waiting_.size() == 1) self->send();
                   });
    }

    void send() {
        stream_.expires_after(std::chrono::seconds(server_.options.write_seconds));
        asio::async_write(
            stream_, asio::buffer(waiting_.front()),
            [self = shared_from_this()](beast::error_code error, size_t) { self->on_sent(error); });
    }

    void on_sent(beast::error_code error) {
        {
            const std::lock_guard lock(mutex_);
            queued_ -= waiting_.front().size();
        }
        room_.notify_all();
        waiting_.pop_front();
        if (error) return lose();
        if (!waiting_.empty()) return send();
        stream_.expires_never();
        if (!finished_) return;
        beast::error_code ignored;
        stream_.socket().cancel(ignored); // the watch
        if (refused_) return drain();
        if (!keep_ || server_.stopping) return close();
        finished_ = started_ = busy_ = false;
        {
            const std::lock_guard lock(mutex_);
            on_gone_ = nullptr;
        }
        read();
    }

    // Takes for a while what a client still sends that was refused before it had sent all: many read no
    // answer until they have.
    void drain() {
        beast::error_code ignored;
        stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
        stream_.expires_after(std::chrono::seconds(5));
        take_more();
    }
    void take_more() {
        buffer_.clear();
        stream_.async_read_some(buffer_.prepare(65536),
                                [self = shared_from_this()](beast::error_code error, size_t n) {
                                    self->drained_ += n;
                                    if (error || self->drained_ > MOST_DRAINED) return self->close();
                                    self->take_more();
                                });
    }

    void lose() {
        std::function<void()> act;
        {
            const std::lock_guard lock(mutex_);
            gone_ = true;
            act.swap(on_gone_);
        }
        room_.notify_all();
        close();
        if (act) act();
    }

    void close() {
        beast::error_code ignored;
        stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
        stream_.close();
    }

    Impl& server_;
    beast::tcp_stream stream_;
    beast::flat_buffer buffer_;
    std::optional<http::request_parser<http::string_body>> parser_;
    http::request<http::string_body> message_; // that is answered
    std::string protocol_, more_headers_;
    bool keep_ = false, answered_ = false, busy_ = false, finished_ = false, refused_ = false;
    size_t drained_ = 0; // bytes
    std::atomic<bool> started_ = false, gone_ = false;
    std::deque<std::string> waiting_; // to be sent, oldest first
    std::mutex mutex_;
    std::condition_variable room_;
    size_t queued_ = 0; // bytes
    std::function<void()> on_gone_;
};

void HttpServer::Impl::accept() {
    acceptor.async_accept([this](beast::error_code error, tcp::socket socket) {
        if (stopping || error == asio::error::operation_aborted) return;
        if (!error && connections.size() + sockets.size() < options.connections) {
            socket.set_option(tcp::no_delay(true), error);
            std::make_shared<Connection>(*this, std::move(socket))->read();
        } // else there are too many, or too few descriptors: it is closed, and the client may try again
        accept();
    });
}

void HttpServer::Impl::take_over(tcp::socket socket, WebSocketStream::Request request, std::string protocol,
                                 Join join) {
    const auto taken = std::make_shared<WebSocketStream>(std::move(socket), options.message_limit,
                                                         [this](WebSocketStream* s) { sockets.erase(s); });
    sockets.insert(taken.get());
    taken->accept(std::move(request), std::move(protocol), std::move(join));
    if (stopping) taken->close(1001, "the server goes down");
}

void HttpServer::Impl::begin_stop() {
    if (stopping) return;
    stopping = true;
    beast::error_code ignored;
    acceptor.close(ignored);
    signals.cancel(ignored);
    grace.expires_after(std::chrono::seconds(options.grace_seconds));
    grace.async_wait([this](beast::error_code error) {
        if (!error) hurry();
    });
    for (Connection* connection : connections) connection->close_if_idle();
    for (WebSocketStream* socket : sockets) socket->close(1001, "the server goes down");
    if (connections.empty()) grace.cancel();
}

namespace {

void listen(tcp::acceptor& acceptor, const HttpOptions& options) {
    beast::error_code error;
    const auto address =
        asio::ip::make_address(options.host == "localhost" ? "127.0.0.1" : options.host, error);
    const tcp::endpoint endpoint(address, options.port);
    const auto step = [&](auto&& act) {
        if (!error) act();
    };
    step([&] { acceptor.open(endpoint.protocol(), error); });
    step([&] { acceptor.set_option(tcp::acceptor::reuse_address(true), error); });
    step([&] { acceptor.bind(endpoint, error); });
    step([&] { acceptor.listen(asio::socket_base::max_listen_connections, error); });
    if (error)
        throw Error({.what = "cannot listen",
                     .where = fmt::format("{}:{}", options.host, options.port),
                     .expected = "an address of this machine and a free port",
                     .got = error.message(),
                     .fix = "choose another --port or --host"});
}

} // namespace

void check_address(const HttpOptions& options) {
    asio::io_context io;
    tcp::acceptor acceptor(io);
    listen(acceptor, options);
}

HttpServer::HttpServer(const HttpOptions& options, Handler handler) : impl_(std::make_unique<Impl>()) {
    impl_->options = options;
    impl_->handler = std::move(handler);
    listen(impl_->acceptor, options);
    if (!options.signals) return;
    impl_->signals.add(SIGINT);
    impl_->signals.add(SIGTERM);
}

HttpServer::~HttpServer() = default;

uint16_t HttpServer::port() const { return impl_->acceptor.local_endpoint().port(); }

void HttpServer::run(const std::function<void()>& hurry) {
    impl_->hurry = hurry;
    if (impl_->options.signals)
        impl_->signals.async_wait([this](beast::error_code error, int) {
            if (!error) impl_->begin_stop();
        });
    impl_->accept();
    impl_->io.run();
    std::unique_lock lock(impl_->threads_mutex);
    impl_->threads_done.wait(lock, [&] { return impl_->threads == 0; });
}

void HttpServer::stop() {
    asio::post(impl_->io, [this] { impl_->begin_stop(); });
}

} // namespace fathom::server
