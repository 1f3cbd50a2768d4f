#include "viewer/web/link.h"

#include <emscripten.h>
#include <emscripten/websocket.h>

#include <utility>

namespace fathom::viewer {

namespace {

constexpr double AGAIN = 1000; // ms

class BrowserLink final : public Link {
  public:
    explicit BrowserLink(std::string url) : url_(std::move(url)) {
        if (!url_.empty()) connect();
    }
    ~BrowserLink() override { close(); }

    std::vector<Piece> poll() override {
        if (socket_ <= 0 && !url_.empty() && emscripten_get_now() >= again_) connect();
        return std::exchange(come_, {});
    }
    void send(std::string text) override {
        if (open_) emscripten_websocket_send_utf8_text(socket_, text.c_str());
    }
    const std::string& address() const override { return url_; }

  private:
    void connect() {
        const std::string protocol = trace::wire_protocol();
        EmscriptenWebSocketCreateAttributes attributes{url_.c_str(), protocol.c_str(), EM_TRUE};
        again_ = emscripten_get_now() + AGAIN;
        socket_ = emscripten_websocket_new(&attributes);
        if (socket_ <= 0) return;
        emscripten_websocket_set_onopen_callback(
            socket_, this, [](int, const EmscriptenWebSocketOpenEvent*, void* self) -> EM_BOOL {
                static_cast<BrowserLink*>(self)->open_ = true;
                static_cast<BrowserLink*>(self)->come_.push_back({Piece::Kind::opened, ""});
                return EM_TRUE;
            });
        emscripten_websocket_set_onmessage_callback(
            socket_, this, [](int, const EmscriptenWebSocketMessageEvent* event, void* self) -> EM_BOOL {
                const auto* bytes = reinterpret_cast<const char*>(event->data);
                size_t size = event->numBytes;
                if (event->isText && size != 0) --size; // the NUL behind it
                static_cast<BrowserLink*>(self)->come_.push_back(
                    {event->isText ? Piece::Kind::text : Piece::Kind::binary, std::string(bytes, size)});
                return EM_TRUE;
            });
        emscripten_websocket_set_onclose_callback(
            socket_, this, [](int, const EmscriptenWebSocketCloseEvent* event, void* self) -> EM_BOOL {
                static_cast<BrowserLink*>(self)->closed(event->reason);
                return EM_TRUE;
            });
    }
    void closed(const char* reason) {
        come_.push_back({Piece::Kind::closed, reason});
        close();
        again_ = emscripten_get_now() + AGAIN;
    }
    void close() {
        open_ = false;
        if (socket_ <= 0) return;
        emscripten_websocket_set_onclose_callback(socket_, nullptr, nullptr);
        emscripten_websocket_close(socket_, 1000, "");
        emscripten_websocket_delete(socket_);
        socket_ = 0;
    }

    std::string url_;
    EMSCRIPTEN_WEBSOCKET_T socket_ = 0;
    bool open_ = false;
    double again_ = 0;
    std::vector<Piece> come_;
};

} // namespace

std::unique_ptr<Link> open_link(std::string url) { return std::make_unique<BrowserLink>(std::move(url)); }

} // namespace fathom::viewer
