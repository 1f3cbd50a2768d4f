// Reports as one page that needs nothing else.
#pragma once

#include "bench/report.h"

namespace fathom::bench {

// report.html with the reports in it: one is shown, several are compared.
std::string html(const std::vector<Report>& reports);

} // namespace fathom::bench
