// UTF-8 and the stream that never prints half a character.
#include "help.h"
#include "text/utf8.h"

#include <random>

using namespace help;
using fathom::Utf8Stream;

namespace {

const std::string BAD = "\xEF\xBF\xBD"; // U+FFFD

std::string streamed(std::string_view text, size_t step) {
    Utf8Stream stream;
    std::string out;
    for (size_t at = 0; at < text.size(); at += step) out += stream.push(text.substr(at, step));
    return out + stream.finish();
}

} // namespace

TEST_CASE("a stream prints every split of multi-byte text whole") {
    const std::string text =
        "a\u00e9\u4f60\u597d \U0001f999\U0001f1e9\U0001f1ea\u0301 \U0010ffff\ud7ff\ue000\n";
    for (size_t cut = 0; cut <= text.size(); ++cut) {
        for (size_t second = cut; second <= text.size(); ++second) {
            Utf8Stream stream;
            const std::string parts[] = {stream.push(std::string_view(text).substr(0, cut)),
                                         stream.push(std::string_view(text).substr(cut, second - cut)),
                                         stream.push(std::string_view(text).substr(second))};
            std::string all;
            for (const std::string& part : parts) {
                REQUIRE(fathom::utf8_valid_prefix(part) == part.size());
                all += part;
            }
            REQUIRE(all == text);
            REQUIRE(stream.finish() == "");
        }
    }
    for (size_t step = 1; step <= 5; ++step) CHECK(streamed(text, step) == text);
}

TEST_CASE("a stream holds back no more than it must") {
    Utf8Stream stream;
    CHECK(stream.push("ab\xE4") == "ab");
    CHECK(stream.push("\xBD") == "");
    CHECK(stream.push("\xA0z") == "\u4f60z");
    CHECK(stream.push("\xF0\x9F") == "");
    CHECK(stream.push("x") == BAD + "x"); // it can no longer become a character
    CHECK(stream.push("\xF0\x9F\xA6") == "");
    CHECK(stream.finish() == BAD);
    CHECK(stream.finish() == "");
    CHECK(stream.push("again") == "again");
}

TEST_CASE("ill-formed bytes become U+FFFD by maximal parts") {
    // The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
    const std::pair<std::string, std::string> cases[] = {
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", BAD + BAD + BAD + BAD + BAD + BAD + BAD + BAD + "A"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", BAD + BAD + BAD + BAD + BAD + BAD + BAD + BAD + "A"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", BAD + BAD + BAD + BAD + BAD + "A" + BAD + BAD + "B"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", BAD + BAD + BAD + BAD + "A"},
        {"\xF5", BAD},
        {"\x80", BAD},
        {"\xC1\x80", BAD + BAD},
        {"\xE0\x9F", BAD + BAD},
        {"\xF0\x8F", BAD + BAD}};
    for (const auto& [bytes, expected] : cases)
        for (size_t step = 1; step <= bytes.size(); ++step) CHECK(streamed(bytes, step) == expected);
}

TEST_CASE("streaming does not depend on how the bytes arrive") {
    std::mt19937 random(5);
    for (int round = 0; round < 2000; ++round) {
        std::string bytes;
        for (int i = 0; i < 12; ++i) { // mostly lead and continuation bytes
            const unsigned choice = random() % 4, byte = random() & 0xFF;
            bytes += static_cast<char>(choice == 0   ? byte
                                       : choice == 1 ? 0xC0 | (byte & 0x3F)
                                                     : 0x80 | (byte & 0x3F));
        }
        const std::string whole = streamed(bytes, bytes.size());
        REQUIRE(fathom::utf8_valid_prefix(whole) == whole.size());
        for (size_t step = 1; step < bytes.size(); ++step) REQUIRE(streamed(bytes, step) == whole);
    }
}

TEST_CASE("every sequence of up to three bytes is judged as by its code point") {
    size_t valid[4] = {};
    for (uint32_t bits = 0; bits < 0x1000000; ++bits) {
        const std::string text = {static_cast<char>(bits >> 16), static_cast<char>(bits >> 8),
                                  static_cast<char>(bits)};
        const auto front = fathom::utf8_front(text);
        if (!front.valid) continue;
        bits |= (1u << 8 * (3 - front.length)) - 1; // what follows the character does not matter
        ++valid[front.length];
        const char32_t point = fathom::utf8_decode(text, front.length);
        const char32_t lowest[] = {0, 0, 0x80, 0x800};
        if (point < lowest[front.length] || (point >= 0xD800 && point < 0xE000))
            FAIL("ill-formed, taken for valid");
    }
    CHECK(valid[1] == 0x80);
    CHECK(valid[2] == 0x780);
    CHECK(valid[3] == 0xF800 - 0x800);
}

TEST_CASE("four-byte sequences reach U+10FFFF and no further") {
    const std::pair<std::string, bool> cases[] = {{"\xF0\x90\x80\x80", true},  {"\xF0\x8F\xBF\xBF", false},
                                                  {"\xF4\x8F\xBF\xBF", true},  {"\xF4\x90\x80\x80", false},
                                                  {"\xF5\x80\x80\x80", false}, {"\xF3\xBF\xBF\x7F", false}};
    for (const auto& [text, expected] : cases) CHECK(fathom::utf8_front(text).valid == expected);
    CHECK(fathom::utf8_decode("\xF0\x90\x80\x80", 4) == 0x10000);
    CHECK(fathom::utf8_decode("\xF4\x8F\xBF\xBF", 4) == 0x10FFFF);
}
