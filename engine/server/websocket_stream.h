// The Beast side of websocket.h, for http.cpp alone.
#pragma once

#include "server/websocket.h"

#include <utility> // Asio 1.74 forgets it

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

#include <deque>
#include <functional>
#include <memory>
#include <string>

namespace fathom::server {

// All but send() and close() is the io thread's.
class WebSocketStream final : public Socket, public std::enable_shared_from_this<WebSocketStream> {
  public:
    using Request = boost::beast::http::request<boost::beast::http::string_body>;
    WebSocketStream(boost::asio::ip::tcp::socket socket, size_t message_limit,
                    std::function<void(WebSocketStream*)> leave);
    ~WebSocketStream() override { leave_(this); }
    void accept(Request request, std::string protocol, Join join);
    void send(std::string message, bool binary) override;
    void close(uint16_t code, std::string_view reason) override;

  private:
    struct Message {
        std::string bytes;
        bool binary;
    };
    void on_accept(boost::beast::error_code error, const Join& join);
    void read();
    void write();
    void end(); // the connection is over
    void say_goodbye();

    boost::beast::websocket::stream<boost::beast::tcp_stream> stream_;
    boost::beast::flat_buffer buffer_;
    std::function<void(WebSocketStream*)> leave_;
    Request request_;
    SocketHandler handler_;
    std::deque<Message> waiting_;
    size_t waiting_bytes_ = 0;
    boost::beast::websocket::close_reason reason_;
    bool open_ = false, closing_ = false, ended_ = false, said_ = false;
};

} // namespace fathom::server
