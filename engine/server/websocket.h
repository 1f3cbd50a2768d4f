// One WebSocket connection over Boost.Beast, taken over from HTTP. What is said over it is a handler's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace fathom::server {

// The client at the other end; from any thread.
class Socket {
  public:
    virtual ~Socket() = default;
    // In order. A client that lets too much wait is cut off.
    virtual void send(std::string message, bool binary) = 0;
    virtual void close(uint16_t code, std::string_view reason) = 0; // after what was sent before
};

// Both are called on the server's own thread and must not wait.
struct SocketHandler {
    std::function<void(std::string_view text)> on_message;
    std::function<void()> on_closed; // once; nothing follows it
};
using Join = std::function<SocketHandler(std::shared_ptr<Socket>)>;

} // namespace fathom::server
