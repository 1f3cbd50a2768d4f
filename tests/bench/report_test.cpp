// Reports without a device: statistics, JSON, comparisons.
#include "base/error.h"
#include "bench/compare.h"
#include "bench/html.h"
#include "bench/subject.h"

#include <doctest/doctest.h>

using namespace fathom;
using namespace fathom::bench;

namespace {

Spread around(double median) { return {median, 0.99 * median, 1.01 * median, 10}; }

Report sample() {
    Report r;
    r.device.name = "card";
    r.subject = {.name = "tiny", .format = "q4_k"};
    r.roofs = {{"read", "GB/s", around(100), 100}, {"fma_f32", "Gop/s", around(1000), 1000}};
    r.overheads.launches = {{"barrier", 5, 2}};
    r.kernels = {{.step = "decode", .op = "o", .shape = "8 x 8", .cold = around(50)}};
    r.model = {{.name = "decode", .tokens_per_second = around(200)}};
    return r;
}

} // namespace

TEST_CASE("bench: order statistics") {
    CHECK(spread_of({}).n == 0);
    const double odd[] = {5, 1, 3}, even[] = {4, 1, 3, 2};
    CHECK(spread_of(odd).median == 3);
    CHECK(spread_of(even).median == 2.5);
    std::vector<double> many;
    for (int i = 0; i <= 100; ++i) many.push_back(100 - i);
    const Spread s = spread_of(many);
    CHECK(s.p10 == 10);
    CHECK(s.p90 == 90);
    const Spread rate = inverse(s, 100);
    CHECK(rate.median == 2);
    CHECK(rate.p10 < rate.p90);
    CHECK(rate.p90 == 10);
}

TEST_CASE("bench: a line through times of launches") {
    std::vector<double> n, t;
    for (double x = 1; x <= 4096; x *= 4) n.push_back(x), t.push_back(30 + 2 * x);
    const Line line = line_through(n, t);
    CHECK(line.intercept == doctest::Approx(30));
    CHECK(line.slope == doctest::Approx(2));
}

TEST_CASE("bench: a slice, scaled") { // 2 ms outside the layers, 1 dense of 3 ms, 2 MoE of 5 ms each
    const SliceTimes slice{.rest = 2, .dense = 3, .moe = 10, .n_dense = 1, .n_moe = 2};
    CHECK(slice_factor(slice, 1, 2) == 1);
    CHECK(slice_factor(slice, 3, 58) == doctest::Approx((2 + 3 * 3 + 58 * 5) / 15.0));
}

TEST_CASE("bench: the lower roof") {
    const Report r = sample(); // 100 GB/s and 1000 Gop/s: the ridge is at 10 operations a byte
    CHECK(share_of_roof(r, 1e6, 1e6, 20).bound == "memory");
    CHECK(share_of_roof(r, 1e6, 1e6, 20).percent == doctest::Approx(50)); // 10 us at 100 GB/s
    CHECK(share_of_roof(r, 1e6, 1e8, 200).bound == "compute");
    CHECK(share_of_roof(r, 1e6, 1e8, 200).percent == doctest::Approx(50));
    CHECK(share_of_roof(r, 1e3, 1e3, 4).bound == "launch"); // 0.01 us of work, 2 us for a launch
    CHECK(share_of_roof(Report{}, 1, 1, 1).bound == "");
}

TEST_CASE("bench: a report as JSON and back") {
    const Report r = sample();
    const Report back = report_from_json(to_json(r).dump(), "here");
    CHECK(to_json(back) == to_json(r));
    CHECK_THROWS_WITH_AS(report_from_json("{}", "file"), doctest::Contains("without \"schema\""), Error);
    CHECK_THROWS_WITH_AS(report_from_json("[1]", "file"), doctest::Contains("file"), Error);
    CHECK_THROWS_WITH_AS(report_from_json("{\"schema\": \"other/1\"}", "file"), doctest::Contains("other/1"),
                         Error);
    CHECK_THROWS_WITH_AS(report_from_json("{\"schema\": \"fathom-bench/1\"}", "file"),
                         doctest::Contains("not a benchmark report"), Error);
    CHECK_THROWS_AS(report_from_json("nonsense", "file"), Error);
    auto json = to_json(r);
    json["kernels"] = "none";
    CHECK_THROWS_AS(report_from_json(json.dump(), "file"), Error);
}

TEST_CASE("bench: comparisons judge what can be judged") {
    const Report base = sample();
    Report slower = base, other = base, noisy = base, older = base;
    slower.model.front().tokens_per_second = around(180);
    Comparison c = compare({base, base});
    CHECK(c.judged);
    CHECK(c.regressions == 0);
    c = compare({base, slower});
    CHECK(c.judged);
    CHECK(c.regressions == 1);
    CHECK(text_of(c, plain_look()).find("-10.0 % worse") != std::string::npos);
    CHECK(compare({slower, base}).regressions == 0);
    slower.model.front().tokens_per_second = {180, 150, 210, 10}; // within the spread: chance
    CHECK(compare({base, slower}).regressions == 0);
    slower.kernels.front().cold = around(60);
    CHECK(compare({base, slower}).regressions == 1);

    other.device.name = "another";
    CHECK(!compare({base, other}).judged);
    noisy.flags = {"noisy: read spreads by 20 %"};
    c = compare({base, noisy});
    CHECK(!c.judged);
    CHECK(c.why_not == "report 2 is noisy: measure it again");
    Report subject = base;
    subject.subject.format = "q8_0";
    c = compare({base, subject});
    CHECK(!c.judged);
    for (const ComparedRow& row : c.rows)
        if (row.section == "model" || row.section == "kernels") CHECK(row.values[1].n == 0);

    older.method.version = METHOD_VERSION - 1;
    CHECK_THROWS_WITH_AS(compare({base, older}), doctest::Contains("another version of the method"), Error);
    CHECK_THROWS_AS(compare({base}), Error);
    older.method.version = METHOD_VERSION;
    older.kind = "offline";
    CHECK_THROWS_AS(compare({base, older}), Error);
}

TEST_CASE("bench: the page holds its reports, whatever they say") {
    Report r = sample();
    r.device.name = "</script><b>\"card\"";
    const std::string page = html({r, r});
    CHECK(page.find("/*REPORTS*/") == std::string::npos);
    CHECK(page.find("</script><b>") == std::string::npos);
    CHECK(page.find("http") == std::string::npos); // needs nothing from anywhere
}
