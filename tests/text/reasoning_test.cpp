// The split of a stream at <think> and </think>.
#include "text/reasoning.h"

#include <doctest/doctest.h>

using fathom::ReasoningStream;

namespace {

// The stream in pieces of `size` bytes, as "[reasoning]text".
std::string split(const std::string& text, size_t size, bool inside) {
    ReasoningStream stream(inside);
    std::string thought, said;
    const auto take = [&](const std::vector<ReasoningStream::Part>& parts) {
        for (const auto& part : parts) {
            CHECK(!part.text.empty());
            (part.reasoning ? thought : said) += part.text;
        }
    };
    for (size_t at = 0; at < text.size(); at += size) take(stream.push(text.substr(at, size)));
    take(stream.finish());
    return "[" + thought + "]" + said;
}

} // namespace

TEST_CASE("reasoning is told from the answer wherever the stream is cut") {
    for (size_t size = 1; size < 12; ++size) {
        CHECK(split("a<think>b</think>c", size, false) == "[b]ac");
        CHECK(split("b</th</think>c<th", size, true) == "[b</th]c<th");
        CHECK(split("b<think></think>c</think>", size, true) == "[b<think>]c</think>");
        CHECK(split("never ends </thin", size, true) == "[never ends </thin]");
        CHECK(split("<<think>x", size, false) == "[x]<");
    }
}

TEST_CASE("text that begins no mark is not held back") {
    ReasoningStream stream(true);
    CHECK(stream.push("a < b").size() == 1);
    CHECK(stream.push("</think>").empty());
    CHECK_FALSE(stream.inside());
    CHECK(stream.push("now").front().text == "now");
    CHECK(stream.finish().empty());
}
