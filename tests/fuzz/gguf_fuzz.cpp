// A GGUF file: keys and tensors, every byte that an accepted one lays claim to, and the configuration and the
// tokenizer inside.
#include "checkpoint/gguf.h"
#include "fuzz.h"
#include "model/config.h"
#include "text/gguf_vocabulary.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fathom;
    return fuzz::verdict([&] {
        const GgufFile file = parse_gguf(fuzz::bytes_of(data, size), "input");
        size_t bytes = 0;
        for (const TensorView& tensor : file.tensors) bytes += tensor.data.size();
        check(bytes <= size, "tensors do not overlap");
        for (const Gguf::Key& key : file.keys.keys())
            check(!text_of(key.value).empty(), "values have a text");
        fuzz::verdict([&] { (void)parse_config(file.keys); });
        const std::string prefix = "tokenizer.ggml.";
        const Tokenizer tokenizer = Tokenizer::from_gguf({.where = "input",
                                                          .model = file.keys.text(prefix + "model"),
                                                          .pre = file.keys.text(prefix + "pre"),
                                                          .tokens = file.keys.texts(prefix + "tokens"),
                                                          .types = file.keys.integers(prefix + "token_type"),
                                                          .merges = file.keys.texts(prefix + "merges")});
        const std::string_view text = "It's 12345 <x>\xFF \xE4\xB8\xAD\n\n  ok";
        check(tokenizer.decode(tokenizer.encode(text)) == text, "text comes back as it went");
    });
}
