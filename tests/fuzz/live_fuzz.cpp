// What a viewer's socket brings, in both directions: a viewer's message, which can be said again the same
// way, and an engine's: text, or frames behind a number.
#include "fuzz.h"
#include "trace/wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fathom;
    const trace::Shape shape{.n_layers = 4, .n_experts = 8, .n_active = 3, .moe_layers = {1, 2, 3}};
    const std::string_view text = fuzz::text_of(data, size);
    if (size != 0 && data[0] != '{')
        return fuzz::verdict([&] {
            trace::Decoder decoder;
            decoder.identity = trace::Identity{shape, nlohmann::json::object()};
            std::span<const std::byte> rest = std::as_bytes(std::span(data, size));
            try {
                while (!rest.empty()) decoder.take(trace::take_frame(rest), [](trace::Packet&&) {});
            } catch (const std::out_of_range& error) {
                throw Error({.what = "no frame", .got = error.what()});
            }
        });
    try {
        const trace::Command command = trace::parse_command(text, shape);
        check(trace::parse_command(trace::command_text(command), shape) == command,
              "a command is said again");
        return 0;
    } catch (const Error&) { // the engine's, then
    }
    return fuzz::verdict([&] { trace::parse_telling(text); });
}
