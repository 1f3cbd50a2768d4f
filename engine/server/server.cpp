#include "server/server.h"

#include "base/error.h"
#include "base/json.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom::server {

using nlohmann::json;

namespace {

constexpr const char* JSON = "application/json; charset=utf-8";
constexpr const char* LIVE = "/live"; // where viewers connect
// A page of ours runs nothing of others'.
constexpr std::string_view PAGE =
    "Cache-Control: no-cache\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: default-src 'self'; "
    "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' "
    "blob: data:; connect-src 'self' ws: wss: blob:; frame-ancestors 'none'\r\n";

int64_t unix_time(std::chrono::system_clock::time_point at) {
    return std::chrono::duration_cast<std::chrono::seconds>(at.time_since_epoch()).count();
}

// Of a Host header: without the port, and without the brackets of an IPv6 address.
std::string name_of(std::string_view host) {
    if (host.starts_with('[')) return std::string(host.substr(1, host.find(']') - 1));
    return std::string(host.substr(0, host.find(':')));
}

// A name that a browser can have been tricked into resolving to this machine is none of these.
bool is_address(const std::string& name) {
    return name.find(':') != std::string::npos || name.find_first_not_of("0123456789.") == std::string::npos;
}

// Takes as long for a wrong key as for a right one.
bool same(const std::string& a, const std::string& b) {
    unsigned different = a.size() != b.size();
    for (size_t i = 0; i < a.size() && !b.empty(); ++i)
        different |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i % b.size()]);
    return different == 0;
}

} // namespace

Server::Server(Served model, ServerOptions options)
    : model_(model), options_(std::move(options)), completions_(std::move(model)),
      http_(options_.http, [this](const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer) {
          handle(request, answer);
      }) {
    if (!options_.viewer) return;
    author_.emplace(model_, options_.viewer->cache_tokens, [this] { completions_.forget_prefixes(); });
    live_.emplace(*author_, options_.viewer->identity, options_.viewer->text_of);
    model_.engine.listen(live_->queue());
}

Server::~Server() {
    if (live_) model_.engine.ignore(live_->queue());
}

bool Server::lets_in(const std::string& origin) const {
    const auto& all = options_.origins;
    return std::find(all.begin(), all.end(), origin) != all.end() ||
           std::find(all.begin(), all.end(), "*") != all.end();
}

void Server::check(const HttpRequest& request) const {
    const std::string name = name_of(request.host);
    const auto& names = options_.hosts;
    if (name != "localhost" && !is_address(name) &&
        std::find(names.begin(), names.end(), name) == names.end())
        throw ApiError(403, "permission_error",
                       fmt::format("requests for the host '{}' are refused: --allow-host NAME lets them in",
                                   name.substr(0, 100)));
    if (!request.origin.empty() && request.origin != "http://" + request.host &&
        request.origin != "https://" + request.host && !lets_in(request.origin))
        throw ApiError(
            403, "permission_error",
            "requests from pages of other servers are refused: --allow-origin ORIGIN lets them in");
    const bool open =
        request.path == "/health" || (options_.viewer && options_.viewer->files.contains(request.path));
    // a browser's WebSocket can send no such header: the page has the key in its address, and tells it so
    const bool told = request.path == LIVE && same(request.query, "key=" + options_.api_key);
    if (!open && !options_.api_key.empty() && !told &&
        !same(request.authorization, "Bearer " + options_.api_key))
        throw ApiError(401, "authentication_error", "a valid API key is missing (Authorization: Bearer KEY)");
}

void Server::handle(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer) try {
    ++requests_;
    if (!request.origin.empty() && lets_in(request.origin)) {
        answer->add_headers(
            fmt::format("Access-Control-Allow-Origin: {}\r\nVary: Origin\r\n", request.origin));
        if (request.method == "OPTIONS") // a browser asks before it asks
            return answer->respond(204, "text/plain", "",
                                   "Access-Control-Allow-Methods: GET, POST\r\n"
                                   "Access-Control-Allow-Headers: Authorization, Content-Type\r\n"
                                   "Access-Control-Max-Age: 600\r\n");
    }
    check(request);
    if (view(request, answer)) return;
    const bool get = request.method == "GET", post = request.method == "POST";
    const auto wants = [&](const char* path, bool method) {
        if (request.path != path && request.path != std::string("/v1") + path) return false;
        if (!method)
            throw ApiError(405, "invalid_request_error",
                           fmt::format("{} is not asked with {}", path, request.method));
        return true;
    };
    const auto say = [&](const json& body) { answer->respond(200, JSON, dump(body)); };
    if (wants("/health", get)) return say({{"status", "ok"}});
    if (wants("/models", get))
        return say(
            {{"object", "list"},
             {"data",
              {{{"id", model_.name},
                {"object", "model"},
                {"created", unix_time(began_)},
                {"owned_by", "fathom"},
                {"meta",
                 {{"n_ctx", model_.engine.context()}, {"n_vocab", model_.engine.config().vocab_size}}}}}}});
    if (wants("/metrics", get)) return answer->respond(200, "text/plain; version=0.0.4", metrics());
    if (wants("/chat/completions", post)) return complete(request, answer, true);
    if (wants("/completions", post)) return complete(request, answer, false);
    if (wants("/tokenize", post)) return say(tokenized(request));
    if (wants("/detokenize", post)) {
        const json from = parse_json(request.body, "the body");
        std::vector<Token> tokens;
        for (const json& token :
             from.is_object() && from.contains("tokens") ? from["tokens"] : json::array()) {
            if (!token.is_number_unsigned() || token.get<uint64_t>() >= model_.tokenizer.size())
                throw bad_request("'tokens' must be ids of the vocabulary", "tokens");
            tokens.push_back(token.get<Token>());
        }
        return say({{"content", model_.tokenizer.decode(tokens)}});
    }
    if (wants("/embeddings", post))
        throw ApiError(501, "not_supported_error", "this model makes no embeddings");
    throw ApiError(404, "not_found_error",
                   fmt::format("there is nothing at {}", request.path.substr(0, 100)));
} catch (const ApiError& error) {
    answer->respond(error.status, JSON, dump(error.body()));
} catch (const Error& error) {
    answer->respond(400, JSON, dump(bad_request(error.what(), "").body()));
}

bool Server::view(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer) {
    if (!live_) return false;
    const auto file = options_.viewer->files.find(request.path);
    if (request.path != LIVE && file == options_.viewer->files.end()) return false;
    if (request.method != "GET")
        throw ApiError(405, "invalid_request_error",
                       fmt::format("{} is not asked with {}", request.path, request.method));
    if (request.path != LIVE) {
        const PageFile& page = file->second;
        answer->respond(200, page.type, page.read(),
                        std::string(PAGE) + (page.gzip ? "Content-Encoding: gzip\r\n" : ""));
    } else if (request.socket) {
        answer->become_socket([this, protocol = request.protocol](std::shared_ptr<Socket> socket) {
            return live_->join(std::move(socket), protocol);
        });
    } else {
        throw ApiError(426, "invalid_request_error", "a viewer asks for a WebSocket here");
    }
    return true;
}

json Server::tokenized(const HttpRequest& request) const {
    const json from = parse_json(request.body, "the body");
    if (!from.is_object() || !from.contains("content") || !from["content"].is_string())
        throw bad_request("'content' must be a string", "content");
    std::vector<Token> tokens;
    if (from.value("add_special", json()) == true && model_.bos) tokens.push_back(*model_.bos);
    for (const Token token : model_.tokenizer.encode(from["content"].get<std::string>()))
        tokens.push_back(token);
    return {{"tokens", tokens}};
}

void Server::complete(const HttpRequest& request, const std::shared_ptr<HttpAnswer>& answer, bool chat) {
    const CompletionRequest wanted = parse_completion(request.body, chat);
    Header header{.id = fmt::format("{}-{:x}", chat ? "chatcmpl" : "cmpl",
                                    ++next_id_ + uint64_t(unix_time(began_)) * 4096),
                  .model = model_.name,
                  .created = unix_time(std::chrono::system_clock::now()),
                  .chat = chat,
                  .logprobs = wanted.logprobs};
    const auto stop = std::make_shared<Stop>();
    answer->on_gone([stop] { stop->now(); });
    std::vector<Choice> choices(wanted.n);
    if (wanted.echo)
        for (Choice& choice : choices) choice.text = wanted.prompt;
    bool begun = false;
    std::vector<bool> told(wanted.n);
    const auto send = [&](const json& event) { return answer->write("data: " + dump(event) + "\n\n"); };
    const auto sink = [&](size_t index, const Choice& more) {
        if (!wanted.stream) {
            Choice& choice = choices[index];
            choice.text += more.text, choice.reasoning += more.reasoning;
            choice.logprobs.insert(choice.logprobs.end(), more.logprobs.begin(), more.logprobs.end());
            choice.calls.insert(choice.calls.end(), more.calls.begin(), more.calls.end());
            choice.finish_reason = more.finish_reason;
            return !answer->gone();
        }
        if (!begun) answer->begin(200, "text/event-stream; charset=utf-8");
        begun = true;
        Choice shown = more;
        if (!told[index] && wanted.echo) shown.text = wanted.prompt + shown.text;
        const bool first = !told[index];
        told[index] = true;
        return send(piece(header, index, shown, first));
    };
    Usage usage;
    try {
        usage = completions_.run(wanted, *stop, sink);
    } catch (const ApiError& error) {
        if (!begun) throw;
        send(error.body()); // the head is out: it is told as an event
        answer->end();
        return;
    }
    if (!wanted.stream) return answer->respond(200, JSON, dump(server::answer(header, choices, usage)));
    if (!begun) answer->begin(200, "text/event-stream; charset=utf-8");
    if (wanted.stream_usage) send(usage_piece(header, usage));
    answer->write("data: [DONE]\n\n");
    answer->end();
}

std::string Server::metrics() const {
    std::string out = metric_text("requests_total", "counter", "HTTP requests", double(requests_));
    out += completions_.metrics();
    if (live_) {
        const Live::Counts viewers = live_->counts();
        out += metric_text("viewers", "gauge", "Viewers that are connected", viewers.viewers);
        out += metric_text("viewer_lost_records_total", "counter", "Records dropped for slow viewers",
                           double(viewers.lost));
    }
    return out + metric_text("memory_bytes", "gauge", "Memory taken from the device",
                             double(model_.engine.memory().total));
}

} // namespace fathom::server
