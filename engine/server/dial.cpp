#include "server/dial.h"

#include "base/error.h"

#include <utility> // Asio 1.74 forgets it

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/websocket.hpp>

#include <chrono>
#include <deque>
#include <fmt/format.h>
#include <mutex>
#include <optional>
#include <thread>

namespace fathom::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;
using asio::ip::tcp;

namespace {
constexpr std::chrono::seconds AGAIN{1}, PATIENCE{10};
constexpr size_t MOST_MESSAGE = 256u << 20; // bytes
} // namespace

std::string Address::text() const { return fmt::format("{}:{}", host, port); }

Address parse_address(std::string_view url) {
    const auto refuse = [&] {
        return Error({.what = "no address of an engine",
                      .expected = "http://HOST:PORT, as 'fathom serve' prints it",
                      .got = printable(url)});
    };
    std::string_view rest = url;
    if (rest.starts_with("https://") || rest.starts_with("wss://"))
        throw Error(
            {.what = "TLS is not spoken here",
             .got = printable(url),
             .fix = "tunnel the port (ssh -L 8080:localhost:8080 HOST), and view http://localhost:8080"});
    if (rest.starts_with("http://"))
        rest.remove_prefix(7);
    else if (rest.starts_with("ws://"))
        rest.remove_prefix(5);
    else
        throw refuse();
    Address address;
    std::string key;
    if (const size_t at = rest.find('#'); at != rest.npos) {
        const std::string_view fragment = rest.substr(at + 1);
        if (fragment.starts_with("key=")) key = fragment.substr(4, fragment.find('&') - 4);
        rest = rest.substr(0, at);
    }
    const std::string_view place = rest.substr(0, rest.find('/'));
    std::string folder(rest.substr(place.size()));
    folder.resize(folder.rfind('/') == folder.npos ? 0 : folder.rfind('/'));
    address.path = folder + "/live" + (key.empty() ? "" : "?key=" + key);
    const size_t bracket = place.rfind(']'), colon = place.rfind(':');
    const bool has_port = colon != place.npos && (bracket == place.npos || colon > bracket);
    address.host = place.substr(0, has_port ? colon : place.npos);
    address.port = has_port ? place.substr(colon + 1) : "80";
    if (address.host.starts_with('[') && address.host.ends_with(']'))
        address.host = address.host.substr(1, address.host.size() - 2);
    if (address.host.empty() || address.port.empty() ||
        address.port.find_first_not_of("0123456789") != std::string::npos)
        throw refuse();
    return address;
}

// All but `come` is the thread's.
struct Dial::Impl {
    using Stream = websocket::stream<beast::tcp_stream>;
    Impl(Address to, std::string name) : address(std::move(to)), protocol(std::move(name)) {
        dial();
        thread = std::thread([this] { io.run(); });
    }
    ~Impl() {
        io.stop();
        thread.join();
    }

    const Address address;
    const std::string protocol;
    asio::io_context io{1};
    asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
    tcp::resolver resolver{io};
    asio::steady_timer timer{io};
    std::optional<Stream> stream;
    beast::flat_buffer buffer;
    std::deque<std::string> waiting;
    bool open = false;
    uint64_t call = 0; // counts connections: what an older one still says is not heard
    std::mutex mutex;
    std::vector<Piece> come;
    std::thread thread;

    void tell(Piece::Kind kind, std::string bytes) {
        const std::lock_guard lock(mutex);
        come.push_back({kind, std::move(bytes)});
    }
    void dial() {
        const uint64_t mine = ++call;
        waiting.clear();
        buffer.clear();
        stream.emplace(io);
        resolver.async_resolve(address.host, address.port, [this, mine](beast::error_code error, auto found) {
            if (error) return lose(mine, error);
            beast::get_lowest_layer(*stream).expires_after(PATIENCE);
            beast::get_lowest_layer(*stream).async_connect(found, [this, mine](beast::error_code e, auto) {
                if (e) return lose(mine, e);
                shake_hands(mine);
            });
        });
    }
    void shake_hands(uint64_t mine) {
        beast::get_lowest_layer(*stream).expires_never();
        stream->set_option(websocket::stream_base::timeout::suggested(beast::role_type::client));
        stream->set_option(websocket::stream_base::decorator([this](websocket::request_type& request) {
            request.set(beast::http::field::sec_websocket_protocol, protocol);
        }));
        stream->read_message_max(MOST_MESSAGE);
        const bool v6 = address.host.find(':') != std::string::npos;
        const std::string host =
            fmt::format("{}{}{}:{}", v6 ? "[" : "", address.host, v6 ? "]" : "", address.port);
        stream->async_handshake(host, address.path, [this, mine](beast::error_code error) {
            if (error) return lose(mine, error);
            open = true;
            tell(Piece::Kind::opened, "");
            read(mine);
        });
    }
    void read(uint64_t mine) {
        stream->async_read(buffer, [this, mine](beast::error_code error, size_t) {
            if (error) return lose(mine, error);
            tell(stream->got_text() ? Piece::Kind::text : Piece::Kind::binary,
                 beast::buffers_to_string(buffer.data()));
            buffer.consume(buffer.size());
            read(mine);
        });
    }
    void write(uint64_t mine) {
        stream->text(true);
        stream->async_write(asio::buffer(waiting.front()), [this, mine](beast::error_code error, size_t) {
            if (error) return lose(mine, error);
            waiting.pop_front();
            if (!waiting.empty()) write(mine);
        });
    }
    void lose(uint64_t mine, beast::error_code error) {
        if (mine != call) return;
        ++call; // nothing of this one is heard any more
        open = false;
        const std::string reason(stream->reason().reason.c_str());
        tell(Piece::Kind::closed, !reason.empty() ? reason
                                  : error == websocket::error::upgrade_declined
                                      ? "the server refuses viewers (does it ask for a key?)"
                                      : error.message());
        beast::get_lowest_layer(*stream).close();
        timer.expires_after(AGAIN);
        timer.async_wait([this](beast::error_code e) {
            if (!e) dial();
        });
    }
};

Dial::Dial(Address address, std::string protocol)
    : impl_(std::make_unique<Impl>(std::move(address), std::move(protocol))) {}

Dial::~Dial() = default;

std::vector<Dial::Piece> Dial::poll() {
    const std::lock_guard lock(impl_->mutex);
    return std::exchange(impl_->come, {});
}

void Dial::send(std::string text) {
    asio::post(impl_->io, [impl = impl_.get(), text = std::move(text)]() mutable {
        if (!impl->open) return;
        impl->waiting.push_back(std::move(text));
        if (impl->waiting.size() == 1) impl->write(impl->call);
    });
}

} // namespace fathom::server
