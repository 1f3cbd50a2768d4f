// The statistics file; see stats.h.
#include "cli/stats.h"

#include <nlohmann/json.hpp>

namespace fathom::cli {

namespace {

using Json = nlohmann::ordered_json;

Json rate(uint32_t tokens, double seconds) {
    return tokens > 0 && seconds > 0 ? Json(tokens / seconds) : Json();
}

std::string_view name_of(End end) {
    switch (end) {
    case End::stop_token:
        return "stop_token";
    case End::max_tokens:
        return "max_tokens";
    case End::context_full:
        return "context_full";
    case End::interrupted:
        return "interrupted";
    }
    return "";
}

} // namespace

std::string stats_json(const RunStats& stats) {
    const Generated& g = stats.generated;
    const uint32_t decoded = g.tokens > 0 ? g.tokens - 1 : 0; // the first token's time belongs to first_token
    const uint32_t fed = g.prompt_tokens > 0 ? g.prompt_tokens - 1 : 0; // so does that of the prompt's last
    Json memory = Json::array();
    for (const MemoryReport::Item& item : stats.memory.items)
        memory.push_back({{"owner", item.owner}, {"bytes", item.bytes}, {"reserved", item.reserved}});
    const Json out = {
        {"model", stats.model},
        {"device", stats.device},
        {"seed", stats.seed},
        {"prompt_tokens", g.prompt_tokens},
        {"generated_tokens", g.tokens},
        {"end", name_of(g.end)},
        {"seconds",
         {{"load", stats.load_seconds},
          {"prefill", g.prefill},
          {"decode", g.decode},
          {"first_token", g.first_token}}},
        {"tokens_per_second", {{"prefill", rate(fed, g.prefill)}, {"decode", rate(decoded, g.decode)}}},
        {"dispatches_per_token", stats.dispatches_per_token},
        {"memory", memory},
    };
    return out.dump(2, ' ', false, Json::error_handler_t::replace) +
           "\n"; // names of folders may not be UTF-8
}

} // namespace fathom::cli
