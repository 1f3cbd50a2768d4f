// A tokenizer.json, and a short text through one that is accepted.
#include "fuzz.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fathom;
    return fuzz::verdict([&] {
        const Tokenizer tokenizer = Tokenizer::from_json(fuzz::text_of(data, size), "input");
        const std::string_view text = "It's 12345 <x>\xFF \xE4\xB8\xAD\n\n  ok";
        for (const Added added : {Added::none, Added::ordinary, Added::all})
            (void)tokenizer.decode(tokenizer.encode(text, added)); // a split may remove what it finds
    });
}
