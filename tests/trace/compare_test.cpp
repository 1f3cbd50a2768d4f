// Two recordings: the first token and the first choice that differ, and what came before.
#include "trace/compare.h"
#include "trace/help.h"

using namespace fathom;
using namespace fathom::trace_test;

namespace {
trace::Recording recording() {
    trace::Recording r{.identity = identity()};
    for (uint32_t i = 0; i < 30; ++i) r.tokens.push_back(record(i, i >= 10));
    return r;
}
} // namespace

TEST_CASE("compare: what is the same") {
    const trace::Difference same = trace::compare(recording(), recording());
    CHECK(same.compared == 30);
    CHECK(!same.token);
    CHECK(same.flips.empty());
    CHECK(same.choices == 90);
    CHECK(same.weights == 0);
    CHECK(trace::compare({.identity = identity()}, recording()).compared == 0);
}

TEST_CASE("compare: the first flip, the first token, and how near the rest is") {
    trace::Recording other = recording();
    other.tokens[4].weights[2] += 0.01f;
    other.tokens[5].norms[1] *= 1.01f;
    std::swap(other.tokens[6].experts[0], other.tokens[6].experts[1]); // another order is no other choice
    std::swap(other.tokens[6].weights[0], other.tokens[6].weights[1]);
    other.tokens[12].experts[4] = 1; // layer 2's second choice, which was another
    REQUIRE(record(12).experts[4] != 1);
    other.tokens[12].margin[1] = 1e-7f;
    other.tokens[13].weights[0] += 5; // after the flip everything may differ
    other.tokens[20].token += 1;
    const trace::Difference d = trace::compare(recording(), other);
    CHECK(d.compared == 20);
    CHECK(d.token == 20u);
    REQUIRE(d.flips.size() == 1);
    CHECK(d.flips[0].position == 12);
    CHECK(d.flips[0].layer == 2);
    CHECK(d.flips[0].only_a == std::vector<uint16_t>{record(12).experts[4]});
    CHECK(d.flips[0].only_b == std::vector<uint16_t>{1});
    CHECK(d.flips[0].margin_b == 1e-7f);
    CHECK(d.weights == doctest::Approx(0.01).epsilon(1e-4));
    CHECK(d.norms == doctest::Approx(0.01).epsilon(0.02));
}

TEST_CASE("compare: models of different shape are not compared") {
    trace::Recording other = recording();
    other.identity.shape.n_active = 2;
    CHECK_THROWS_AS(trace::compare(recording(), other), Error);
}
