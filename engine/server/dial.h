// A WebSocket to a server elsewhere, made again whenever it breaks: the other end of live.h, for a viewer
// that is no browser.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::server {

// Where an engine is: "http://HOST[:PORT][/PATH][#key=KEY]" as `fathom serve` prints it, or with ws://.
struct Address {
    std::string host, port, path; // path: of the socket, with the key
    std::string text() const;     // without the key
};
Address parse_address(std::string_view url); // throws Error

class Dial {
  public:
    struct Piece {
        enum class Kind : uint8_t { opened, text, binary, closed } kind;
        std::string bytes; // closed: the reason
    };
    Dial(Address address, std::string protocol);
    ~Dial();
    Dial(const Dial&) = delete;
    std::vector<Piece> poll();   // what has come since the last call
    void send(std::string text); // lost where there is no connection

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace fathom::server
