// Matching rows by what they measure; see compare.h.
#include "bench/compare.h"

#include "base/error.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace fathom::bench {

namespace {

std::string subject_key(const Report& r) {
    const Subject& s = r.subject;
    return fmt::format("{} {} {} {}/{}", s.name, s.format, s.routing, s.layers, s.of_layers);
}

void check_comparable(const std::vector<Report>& reports) {
    if (reports.size() < 2)
        throw Error({.what = "a comparison needs at least two reports",
                     .where = "--compare",
                     .got = fmt::format("{}", reports.size())});
    for (size_t i = 0; i < reports.size(); ++i) {
        if (reports[i].kind != "run")
            throw Error({.what = "only measured runs are compared",
                         .where = fmt::format("report {}", i + 1),
                         .expected = "kind run",
                         .got = "kind " + printable(reports[i].kind)});
        if (reports[i].method.version != METHOD_VERSION)
            throw Error(
                {.what = "a report was measured by another version of the method",
                 .where = fmt::format("report {}: {}", i + 1, printable(reports[i].device.name)),
                 .expected = fmt::format("method {}", METHOD_VERSION),
                 .got = fmt::format("method {}", reports[i].method.version),
                 .fix = "measure again with this version: numbers of two methods say nothing together"});
    }
}

// Why the reports are only shown; empty: differences can be judged.
std::string obstacle(const std::vector<Report>& reports) {
    for (size_t i = 0; i < reports.size(); ++i) {
        const Report& r = reports[i];
        if (r.device.name != reports[0].device.name) return "the devices differ";
        if (subject_key(r) != subject_key(reports[0])) return "what was measured differs";
        for (const char* flag : {"noisy", "throttled", "interrupted"})
            if (r.flagged(flag)) return fmt::format("report {} is {}: measure it again", i + 1, flag);
    }
    return "";
}

class Rows {
  public:
    explicit Rows(const std::vector<Report>& reports) : reports_(reports) {}
    std::vector<ComparedRow> rows;

    void add(size_t report, const char* section, std::string name, const char* unit, bool higher,
             const Spread& value) {
        auto it = std::find_if(rows.begin(), rows.end(),
                               [&](const ComparedRow& r) { return r.section == section && r.name == name; });
        if (it == rows.end())
            it = rows.insert(
                rows.end(),
                {section, std::move(name), unit, higher, std::vector<Spread>(reports_.size()), {}, {}});
        it->values[report] = value;
    }

    void add_all() {
        for (size_t i = 0; i < reports_.size(); ++i) {
            const Report& r = reports_[i];
            for (const Roof& roof : r.roofs)
                add(i, "roofs", roof.name, roof.unit == "GB/s" ? "GB/s" : "Gop/s", true, roof.rate);
            for (const Overhead& o : r.overheads.launches)
                add(i, "launches", o.name, "us", false, {o.per_dispatch, o.per_dispatch, o.per_dispatch, 1});
            if (subject_key(r) != subject_key(reports_[0])) continue;
            for (const KernelRow& k : r.kernels)
                add(i, "kernels", fmt::format("{} {} {} {}", k.step, k.op, k.format, k.shape), "us", false,
                    k.cold);
            for (const ModelRow& m : r.model) add(i, "model", m.name, "tokens/s", true, m.tokens_per_second);
        }
    }

    void judge() {
        for (ComparedRow& row : rows) {
            const Spread& base = row.values[0];
            for (const Spread& value : row.values) {
                const bool both = base.n != 0 && value.n != 0 && base.median > 0 && value.median > 0;
                const double gain = !both                  ? 0
                                    : row.higher_is_better ? value.median / base.median - 1
                                                           : base.median / value.median - 1;
                const bool apart = row.higher_is_better ? value.p90 < base.p10 : value.p10 > base.p90;
                row.gain.push_back(gain);
                // Kernels of a few microseconds and launches are shown; end-to-end speed and roofs are
                // judged.
                row.worse.push_back(both && apart && gain < -NOISY && row.section != "launches");
            }
        }
    }

  private:
    const std::vector<Report>& reports_;
};

std::string number(const Spread& s) { return s.n == 0 ? "-" : fmt::format("{:.4g}", s.median); }

} // namespace

Comparison compare(const std::vector<Report>& reports) {
    check_comparable(reports);
    Comparison out;
    for (const Report& r : reports)
        out.titles.push_back(fmt::format("{} ({}), {}, {}", printable(r.device.name),
                                         printable(r.device.driver),
                                         r.subject.name.empty() ? "no model" : subject_key(r), r.time_utc));
    Rows rows(reports);
    rows.add_all();
    rows.judge();
    out.rows = std::move(rows.rows);
    out.why_not = obstacle(reports);
    out.judged = out.why_not.empty();
    if (out.judged)
        for (const ComparedRow& row : out.rows)
            out.regressions += static_cast<uint32_t>(std::count(row.worse.begin(), row.worse.end(), true));
    return out;
}

std::string text_of(const Comparison& c, const Look& look) {
    std::string out;
    for (size_t i = 0; i < c.titles.size(); ++i)
        out += look.bold(fmt::format("{}", static_cast<char>('A' + i % 26))) + " " + c.titles[i] + "\n";
    std::string section;
    for (const ComparedRow& row : c.rows) {
        if (row.section != section) {
            section = row.section;
            out += "\n" + look.bold(section) + "\n";
        }
        out += fmt::format("  {:<64}", row.name);
        for (size_t i = 0; i < row.values.size(); ++i) {
            out += fmt::format("{:>11}", number(row.values[i]));
            if (i == 0) continue;
            const std::string gain = row.values[i].n == 0 || row.values[0].n == 0
                                         ? fmt::format("{:>12}", "")
                                         : fmt::format("{:>+10.1f} %", 100 * row.gain[i]);
            out += c.judged && row.worse[i] ? look.red(gain + " worse") : gain + "      ";
        }
        out += " " + row.unit + "\n";
    }
    out += "\n";
    if (!c.judged) return out + look.bold("not judged: ") + c.why_not + "\n";
    return out + (c.regressions == 0 ? "no regression\n"
                                     : look.red(fmt::format("{} worse than A\n", c.regressions)));
}

} // namespace fathom::bench
