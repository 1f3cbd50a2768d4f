// Reports beside each other: what is measured in all of them, against the first.
#pragma once

#include "bench/report.h"
#include "bench/text.h"

namespace fathom::bench {

struct ComparedRow {
    std::string section, name, unit;
    bool higher_is_better = true;
    std::vector<Spread> values; // n is 0 where a report lacks it
    std::vector<double> gain;   // of each report over the first: 0.1 is 10 % better; 0 where either lacks it
    std::vector<bool> worse;    // beyond chance: more than NOISY, and the middle 80 % apart
};
struct Comparison {
    std::vector<std::string> titles; // of the reports
    std::vector<ComparedRow> rows;
    bool judged = false; // one device and subject, and no run flagged as noisy, throttled or interrupted
    std::string why_not; // of judged
    uint32_t regressions = 0;
};
// Throws Error for fewer than two reports, for other kinds than "run", and for methods of different versions
// or another one than this program's.
Comparison compare(const std::vector<Report>& reports);
std::string text_of(const Comparison& comparison, const Look& look);

} // namespace fathom::bench
