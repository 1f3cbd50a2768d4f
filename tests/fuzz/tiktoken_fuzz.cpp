// A rank file with its tokenizer_config.json behind the first zero byte, and a short text through what is
// accepted.
#include "fuzz.h"
#include "text/tokenizer.h"

#include <algorithm>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fathom;
    return fuzz::verdict([&] {
        const std::string_view all = fuzz::text_of(data, size);
        const size_t end = std::min(all.find('\0'), all.size());
        const Tokenizer tokenizer = Tokenizer::from_tiktoken(
            all.substr(0, end), "input", all.substr(std::min(end + 1, all.size())), "config");
        const std::string_view text = "It's 12345 <x>\xFF \xE4\xB8\xAD\n\n  ok";
        check(tokenizer.decode(tokenizer.encode(text)) == text, "text comes back as it went");
    });
}
