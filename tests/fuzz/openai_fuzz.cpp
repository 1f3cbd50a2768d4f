// A request of OpenAI's API, read as one of both kinds: refused by key, or within the limits that it states.
#include "fuzz.h"
#include "server/openai.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fathom;
    return fuzz::verdict([&] {
        const std::string body(fuzz::text_of(data, size));
        for (const bool chat : {false, true}) {
            try {
                const server::CompletionRequest request = server::parse_completion(body, chat);
                check(request.n >= 1 && request.n <= 16 && request.stop.size() <= 16 &&
                          request.top_logprobs <= 20,
                      "a request is within its limits");
            } catch (const server::ApiError& error) {
                if (std::getenv("FATHOM_FUZZ_VALID")) throw;
                check(error.status == 400 && !server::dump(error.body()).empty(), "an error can be told");
            }
        }
    });
}
