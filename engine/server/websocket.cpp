#include "server/websocket_stream.h"

#include <chrono>

namespace fathom::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;

namespace {
constexpr size_t MOST_WAITING = 32u << 20; // bytes
constexpr std::chrono::seconds PATIENCE{2}, SILENCE{30};
} // namespace

WebSocketStream::WebSocketStream(asio::ip::tcp::socket socket, size_t message_limit,
                                 std::function<void(WebSocketStream*)> leave)
    : stream_(std::move(socket)), leave_(std::move(leave)) {
    // Who is silent is asked with a ping, and given up when no answer comes.
    stream_.set_option(websocket::stream_base::timeout{PATIENCE, SILENCE, true});
    stream_.read_message_max(message_limit);
}

void WebSocketStream::accept(Request request, std::string protocol, Join join) {
    request_ = std::move(request);
    if (!protocol.empty())
        stream_.set_option(websocket::stream_base::decorator([protocol](websocket::response_type& response) {
            response.set(beast::http::field::sec_websocket_protocol, protocol);
        }));
    stream_.async_accept(request_, [self = shared_from_this(), join = std::move(join)](
                                       beast::error_code error) { self->on_accept(error, join); });
}

void WebSocketStream::on_accept(beast::error_code error, const Join& join) {
    if (error) return end();
    open_ = true;
    handler_ = join(shared_from_this());
    read();
    if (closing_ && waiting_.empty()) say_goodbye();
}

void WebSocketStream::read() {
    stream_.async_read(buffer_, [self = shared_from_this()](beast::error_code error, size_t) {
        if (error)
            return self->end(); // a close, a message too large, one that breaks the protocol, a time-out
        const std::string message = beast::buffers_to_string(self->buffer_.data());
        self->buffer_.consume(self->buffer_.size());
        if (self->closing_) return self->read();
        if (self->stream_.got_text())
            self->handler_.on_message(message);
        else
            self->close(1003, "only text is understood here");
        self->read();
    });
}

void WebSocketStream::send(std::string message, bool binary) {
    asio::post(stream_.get_executor(),
               [self = shared_from_this(), message = std::move(message), binary]() mutable {
                   if (self->ended_ || self->closing_) return;
                   self->waiting_bytes_ += message.size();
                   if (self->waiting_bytes_ > MOST_WAITING) return self->end();
                   self->waiting_.push_back({std::move(message), binary});
                   if (self->waiting_.size() == 1) self->write();
               });
}

void WebSocketStream::write() {
    stream_.binary(waiting_.front().binary);
    stream_.async_write(asio::buffer(waiting_.front().bytes),
                        [self = shared_from_this()](beast::error_code error, size_t) {
                            if (error) return self->end();
                            self->waiting_bytes_ -= self->waiting_.front().bytes.size();
                            self->waiting_.pop_front();
                            if (!self->waiting_.empty()) return self->write();
                            if (self->closing_) self->say_goodbye();
                        });
}

void WebSocketStream::close(uint16_t code, std::string_view reason) {
    asio::post(stream_.get_executor(), [self = shared_from_this(), code, text = std::string(reason)] {
        if (self->ended_ || self->closing_) return;
        self->closing_ = true;
        self->reason_ = websocket::close_reason(static_cast<websocket::close_code>(code), text);
        if (self->waiting_.empty()) self->say_goodbye();
    });
}

void WebSocketStream::say_goodbye() {
    if (!open_ || said_) return; // it is said once the other end is there
    said_ = true;
    stream_.async_close(reason_, [self = shared_from_this()](beast::error_code) { self->end(); });
}

void WebSocketStream::end() {
    if (ended_) return;
    ended_ = true;
    beast::get_lowest_layer(stream_).close();
    const SocketHandler last = std::exchange(handler_, {});
    if (last.on_closed) last.on_closed();
}

} // namespace fathom::server
