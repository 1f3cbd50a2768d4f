#include "trace/wire.h"

#include "base/error.h"
#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <stdexcept>

namespace fathom::trace {

using nlohmann::json;

namespace {

constexpr size_t MOST_STEERED = 65536;

std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

uint64_t whole(const json& value, const char* key, uint64_t most) {
    const json& n = value.at(key);
    if (!n.is_number_integer() || (!n.is_number_unsigned() && n.get<int64_t>() < 0))
        throw std::out_of_range(fmt::format("{} is a whole number", key));
    const auto number = n.get<uint64_t>();
    if (number > most) throw std::out_of_range(fmt::format("{} is 0 to {}, not {}", key, most, number));
    return number;
}

uint32_t number(const json& value, const char* key, uint32_t most = std::numeric_limits<uint32_t>::max()) {
    return static_cast<uint32_t>(whole(value, key, most));
}

float real(const json& value, const char* key, float least, float most) {
    const auto x = value.at(key).get<float>();
    if (!(x >= least && x <= most))
        throw std::out_of_range(fmt::format("{} is {} to {}, not {}", key, least, most, x));
    return x;
}

json to_json(const Request& r) {
    json out = {{"kind", "generate"},
                {"keep", r.keep},
                {"text", r.text},
                {"chat", r.chat},
                {"again", r.again},
                {"twice", r.twice},
                {"temperature", r.sampling.temperature},
                {"top_p", r.sampling.top_p},
                {"top_k", r.sampling.top_k},
                {"max_tokens", r.sampling.max_tokens},
                {"seed", r.sampling.seed}};
    if (r.session) out["session"] = *r.session;
    if (r.forced) out["forced"] = *r.forced;
    return out;
}

Request request_of(const json& value) {
    Request r;
    r.keep = number(value, "keep");
    r.text = value.at("text").get<std::string>();
    r.chat = value.at("chat").get<bool>();
    r.again = value.at("again").get<bool>();
    r.twice = value.at("twice").get<bool>();
    r.sampling = {.temperature = real(value, "temperature", 0, 100),
                  .top_p = real(value, "top_p", 0, 1),
                  .top_k = number(value, "top_k"),
                  .max_tokens = number(value, "max_tokens"),
                  .seed = whole(value, "seed", std::numeric_limits<uint64_t>::max())};
    if (value.contains("session")) r.session = number(value, "session");
    if (value.contains("forced")) r.forced = number(value, "forced");
    return r;
}

std::vector<Steered> steered_of(const json& value, const Shape& shape) {
    const json& list = value.at("experts");
    if (!list.is_array() || list.size() > MOST_STEERED) throw std::out_of_range("experts is a list");
    const auto layers = static_cast<uint32_t>(shape.moe_layers.size());
    if (!list.empty() && layers == 0) throw std::out_of_range("this model has no experts");
    std::vector<Steered> all;
    for (const json& s : list)
        all.push_back({.expert = {number(s, "layer", layers - 1), number(s, "expert", shape.n_experts - 1)},
                       .key = real(s, "key", Steered::SILENT, Steered::FORCED),
                       .factor = real(s, "factor", -1e6f, 1e6f)});
    return all;
}

LayerWatch watch_of(const json& value, const Shape& shape) {
    LayerWatch watch{.layers = {},
                     .first_head = number(value, "first_head"),
                     .n_heads = number(value, "n_heads"),
                     .width = number(value, "width")};
    const json& layers = value.at("layers");
    if (!layers.is_array() || layers.size() > shape.n_layers) throw std::out_of_range("layers is a list");
    for (const json& layer : layers) {
        const auto n = layer.get<int64_t>();
        if (n < 0 || n >= shape.n_layers)
            throw std::out_of_range(fmt::format("layer {}: there are {}", n, shape.n_layers));
        watch.layers.push_back(static_cast<uint32_t>(n));
    }
    return watch;
}

Command command_of(const json& value, const Shape& shape) {
    const auto kind = value.at("kind").get<std::string>();
    if (kind == "ack") return Ack{number(value, "sequence")};
    if (kind == "generate") return request_of(value);
    if (kind == "stop") return Halt{};
    if (kind == "steer") return steered_of(value, shape);
    if (kind == "watch") return watch_of(value, shape);
    if (kind == "measure") return Measure{};
    if (kind == "pause") return Pause{value.at("on").get<bool>()};
    throw std::out_of_range(fmt::format("no message is of the kind '{}'", kind.substr(0, 40)));
}

// What is wrong with a message, whatever found it.
template <class Read> auto reading(std::string_view text, const char* what, Read&& read) {
    try {
        return read(parse_json(text, what));
    } catch (const json::exception& error) {
        throw Error(
            {.what = "a message that makes no sense", .where = what, .got = json_reason(error.what())});
    } catch (const std::out_of_range& error) {
        throw Error({.what = "a message that makes no sense", .where = what, .got = error.what()});
    }
}

} // namespace

std::string wire_protocol() { return fmt::format("fathom.v{}", WIRE_VERSION); }

std::string command_text(const Command& command) {
    struct Visitor {
        json operator()(const Ack& ack) const { return {{"kind", "ack"}, {"sequence", ack.sequence}}; }
        json operator()(const Request& request) const { return to_json(request); }
        json operator()(const Halt&) const { return {{"kind", "stop"}}; }
        json operator()(const std::vector<Steered>& all) const {
            json list = json::array();
            for (const Steered& s : all)
                list.push_back({{"layer", s.expert.layer},
                                {"expert", s.expert.expert},
                                {"key", s.key},
                                {"factor", s.factor}});
            return {{"kind", "steer"}, {"experts", list}};
        }
        json operator()(const LayerWatch& w) const {
            return {{"kind", "watch"},
                    {"layers", w.layers},
                    {"first_head", w.first_head},
                    {"n_heads", w.n_heads},
                    {"width", w.width}};
        }
        json operator()(const Measure&) const { return {{"kind", "measure"}}; }
        json operator()(const Pause& pause) const { return {{"kind", "pause"}, {"on", pause.on}}; }
    };
    return dump(std::visit(Visitor{}, command));
}

Command parse_command(std::string_view text, const Shape& shape) {
    return reading(text, "a viewer's message", [&](const json& value) { return command_of(value, shape); });
}

std::string hello_text(const Hello& hello) {
    return dump({{"kind", "hello"},
                 {"version", hello.version},
                 {"run", hello.run},
                 {"identity", to_json(hello.identity)}});
}

std::string state_text(const State& state) {
    json launches = json::array();
    for (const Launch& l : state.profile.launches)
        launches.push_back(
            {{"label", l.label}, {"seconds", l.seconds}, {"bytes", l.bytes}, {"flops", l.flops}});
    return dump({{"kind", "state"},
                 {"busy", state.busy},
                 {"failure", state.failure},
                 {"launches", launches},
                 {"read_rate", state.profile.read_rate}});
}

std::string refusal_text(std::string_view reason) { return dump({{"kind", "refused"}, {"reason", reason}}); }

Telling parse_telling(std::string_view text) {
    return reading(text, "an engine's message", [](const json& value) -> Telling {
        const auto kind = value.at("kind").get<std::string>();
        if (kind == "refused")
            throw Error(
                {.what = "the engine refuses this viewer", .got = value.at("reason").get<std::string>()});
        if (kind == "hello") {
            const uint32_t version = number(value, "version");
            if (version != WIRE_VERSION)
                throw Error({.what = "the engine speaks another version of the viewer's protocol",
                             .expected = fmt::format("version {}", WIRE_VERSION),
                             .got = fmt::format("version {}", version),
                             .fix = "use a viewer and an engine of the same release"});
            return Hello{version, value.at("run").get<std::string>(), identity_from(value.at("identity"))};
        }
        if (kind != "state") throw std::out_of_range(fmt::format("a message of the kind '{}'", kind));
        State state{.busy = value.at("busy").get<bool>(), .failure = value.at("failure").get<std::string>()};
        state.profile.read_rate = value.at("read_rate").get<double>();
        for (const json& l : value.at("launches"))
            state.profile.launches.push_back({l.at("label").get<std::string>(), l.at("seconds").get<double>(),
                                              l.at("bytes").get<double>(), l.at("flops").get<double>()});
        return state;
    });
}

} // namespace fathom::trace
