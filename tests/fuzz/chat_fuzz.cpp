// A conversation in OpenAI's shape, through every chat format.
#include "fuzz.h"
#include "text/chat.h"

#include <algorithm>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fathom;
    return fuzz::verdict([&] {
        const Conversation conversation = parse_conversation(fuzz::text_of(data, size), "input");
        const std::string names = ChatFormat::names();
        for (size_t at = 0; at < names.size();) {
            const size_t end = std::min(names.find(", ", at), names.size());
            const ChatFormat& format = ChatFormat::named(std::string_view(names).substr(at, end - at));
            fuzz::verdict([&] { (void)format.render(conversation); });
            at = end + 2;
        }
    });
}
