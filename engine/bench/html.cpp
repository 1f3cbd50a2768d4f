// The page; see html.h. Everything that is drawn is drawn by its script, from the reports as JSON.
#include "bench/html.h"

#include "base/error.h"

namespace fathom::bench {

std::string_view report_html(); // the file of this name

std::string html(const std::vector<Report>& reports) {
    nlohmann::json all = nlohmann::json::array();
    for (const Report& report : reports) all.push_back(to_json(report));
    std::string data = all.dump(-1, ' ', true);
    for (size_t at = 0; (at = data.find("</", at)) != data.npos; at += 3)
        data.insert(at + 1, "\\"); // no end tag
    std::string page(report_html());
    constexpr std::string_view mark = "/*REPORTS*/[]";
    const size_t at = page.find(mark);
    check(at != page.npos, "the page has a place for its reports");
    return page.replace(at, mark.size(), data);
}

} // namespace fathom::bench
