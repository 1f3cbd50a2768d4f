// Reports for people: lines of the terminal's tables, and one line to paste.
#pragma once

#include "bench/report.h"

#include <functional>

namespace fathom::bench {

// How much a terminal shows: colours and bars, or plain text. `heat` colours a text by a share from 0 to 1.
struct Look {
    bool bars = false;
    std::function<std::string(double share, std::string_view text)> heat;
    std::function<std::string(std::string_view text)> bold, dim, red;
};
Look plain_look();

// Prints what a report has gained since the last call, section by section.
class Printer {
  public:
    explicit Printer(Look look) : look_(std::move(look)) {}
    std::string news(const Report& report);
    std::string end(const Report& report); // flags, what was left out, errors

  private:
    std::string head(const Report& report);
    std::string title(const char* text, const char* columns);
    std::string launches(const Overheads& overheads);
    std::string kernel(const KernelRow& row);
    std::string model(const ModelRow& row);
    std::string pipeline(const PipelineRow& row);

    Look look_;
    bool head_ = false, subject_ = false, overheads_ = false;
    size_t roofs_ = 0, kernels_ = 0, model_ = 0, pipelines_ = 0;
};

// "| device | driver | model | ... |": heading and line.
std::string markdown(const Report& report);

} // namespace fathom::bench
