// A benchmark run from beginning to end: the device's roofs and overheads, kernels and model at the shapes of
// a preset or of a checkpoint, the roofs again.
#pragma once

#include "bench/report.h"
#include "bench/stop.h"
#include "checkpoint/weight_format.h"
#include "model/preset.h"

#include <functional>
#include <optional>
#include <set>

namespace fathom::bench {

enum class Section : uint8_t { roofs, overheads, kernels, model };

struct RunOptions {
    LoadOptions load; // the device, and how a checkpoint is loaded; context 0: the longest that is of use
    // What is measured: a checkpoint, or else a preset; the one that suits the device where neither is given.
    const ModelFiles* files = nullptr;
    std::string preset; // "": automatic; v3-slice: as many of V3's layers as fit
    Format format = Format::q4_k;
    bool skewed = false;
    uint32_t seed = 1;
    std::set<Section> sections = {Section::roofs, Section::overheads, Section::kernels, Section::model};
    uint32_t samples = 10;
    double seconds = 100; // about so long, where there is a choice
    Tool tool;
    std::function<void(const Report&)> on_change;        // after every row
    std::function<void(const std::string&)> on_progress; // what is being done
    std::string wrong_kernel, lost_kernel;               // test hooks; see KernelOptions
};
// Throws Error where nothing can be measured: no device, no such preset, one that does not fit. What goes
// wrong later is in the report, beside all that went well.
Report run(const RunOptions& options, Stop& stop);

// Presets that benchmarks know besides models/presets, and what is tried where none is named.
constexpr const char* SLICE = "v3-slice";
std::vector<std::string> preset_names();
const Preset& preset_named(const std::string& name); // of models/presets; throws Error listing the names

} // namespace fathom::bench
