// Load, variation and entropy of routing records, counted by hand.
#include "cli/routing_summary.h"

#include <cmath>
#include <doctest/doctest.h>
#include <stdexcept>

using namespace fathom;
using namespace fathom::cli;

namespace {

trace::Shape four_experts() { // layers 1 and 2 route, 2 of 4 experts
    return {.n_layers = 3, .n_experts = 4, .n_active = 2, .moe_layers = {1, 2}};
}

trace::TokenRecord record(std::vector<uint16_t> experts) {
    return {.experts = experts, .weights = std::vector<float>(experts.size(), 0.5f)};
}

} // namespace

TEST_CASE("variation and entropy of known loads") {
    using Load = std::vector<uint64_t>;
    CHECK(load_cv(Load{5, 5, 5, 5}) == 0);
    CHECK(load_entropy(Load{5, 5, 5, 5}) == doctest::Approx(2));
    CHECK(load_cv(Load{8, 0, 0, 0}) == doctest::Approx(std::sqrt(3.0))); // one expert does all: sqrt(E - 1)
    CHECK(load_entropy(Load{8, 0, 0, 0}) == 0);
    CHECK(load_cv(Load{1, 3}) == doctest::Approx(0.5));
    CHECK(load_entropy(Load{1, 3}) == doctest::Approx(0.811278));
    CHECK(load_entropy(Load{2, 2, 0, 0}) == doctest::Approx(1));
    CHECK(load_cv(Load{0, 0}) == 0);
    CHECK(load_entropy(Load{0, 0}) == 0);
}

TEST_CASE("records are counted by layer of the model") {
    RoutingSummary summary(four_experts());
    CHECK(summary.table(Style(false), 80).empty());
    CHECK(summary.line().empty());
    const std::vector<trace::TokenRecord> records = {record({0, 1, 3, 2}), record({0, 2, 3, 1}),
                                                 record({1, 0, 2, 3})};
    summary.add(records);
    CHECK(summary.tokens() == 3);
    const auto& layers = summary.layers();
    REQUIRE(layers.size() == 2);
    CHECK(layers[0].layer == 1);
    CHECK(layers[0].load == std::vector<uint64_t>{3, 2, 1, 0});
    CHECK(layers[1].layer == 2);
    CHECK(layers[1].load == std::vector<uint64_t>{0, 1, 2, 3});
    CHECK(layers[0].cv == doctest::Approx(layers[1].cv));
    CHECK(layers[0].entropy == doctest::Approx(1.459148));
    summary.clear();
    CHECK(summary.tokens() == 0);
    CHECK(summary.layers()[0].load == std::vector<uint64_t>(4));
}

TEST_CASE("the table has one row for each layer, and no colour codes where none are wanted") {
    RoutingSummary summary(four_experts());
    const std::vector<trace::TokenRecord> records = {record({0, 1, 3, 2})};
    summary.add(records);
    const std::string plain = summary.table(Style(false), 80);
    CHECK(plain.find('\x1b') == std::string::npos);
    CHECK(plain.find("    1  ██··") != std::string::npos);
    CHECK(plain.find("    2  ··██") != std::string::npos);
    CHECK(plain.find("50.0 %") != std::string::npos);
    CHECK(plain.find("1.00 (50 %)") != std::string::npos);
    CHECK(summary.table(Style(true), 80).find("\x1b[38;5;") != std::string::npos);
    CHECK(summary.line() == "expert load: CV 1.00 to 1.00, entropy 1.00 of 2.00 bits");
}

TEST_CASE("bars: an even share is half high, many experts share cells") {
    const Style plain(false);
    const std::vector<uint64_t> even(16, 7);
    CHECK(load_bar(even, 16, plain) == "▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄");
    CHECK(load_bar(even, 4, plain) == "▄▄▄▄");
    CHECK(load_bar(even, 7, plain) ==
          "▄▄▄▄▄▄"); // three a cell, the last cell alone: an even share all the same
    const std::vector<uint64_t> one = {0, 100, 0, 0};
    CHECK(load_bar(one, 4, plain) == "·█··");
    const std::vector<uint64_t> rare = {1, 1000, 1000, 1000};
    CHECK(load_bar(rare, 4, plain) == "▁▅▅▅"); // chosen at all is more than a dot
}

TEST_CASE("tables of wide models stay within the terminal") {
    trace::Shape shape = four_experts();
    shape.n_experts = 256;
    RoutingSummary summary(shape);
    const std::vector<trace::TokenRecord> records = {record({0, 255, 128, 7})};
    summary.add(records);
    const std::string table = summary.table(Style(false), 100);
    size_t start = 0;
    for (size_t end; (end = table.find('\n', start)) != std::string::npos; start = end + 1)
        CHECK(columns_of(std::string_view(table).substr(start, end - start)) <= 100);
}

TEST_CASE("a record that is not the model's is our mistake") {
    RoutingSummary summary(four_experts());
    const std::vector<trace::TokenRecord> shorter = {record({0, 1})}, outside = {record({0, 1, 2, 4})};
    CHECK_THROWS_AS(summary.add(shorter), std::logic_error);
    CHECK_THROWS_AS(summary.add(outside), std::logic_error);
}
