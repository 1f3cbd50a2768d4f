// What a benchmark run found: the structure that is printed, written as JSON (report.schema.json says how)
// and compared. Times are in microseconds, rates in GB/s, Gop/s or tokens/s, sizes in bytes. Nothing here
// names a person, a machine or a path.
#pragma once

#include "bench/spread.h"

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace fathom::bench {

constexpr const char* SCHEMA = "fathom-bench/1";
// Raised with every change of what is measured or how: reports of different versions are not compared.
constexpr uint32_t METHOD_VERSION = 1;
constexpr double NOISY = 0.05;       // roofs or medians may spread or drift by so much
constexpr double ERROR_LIMIT = 1e-4; // of a kernel in f32: of its result, relative to its largest value

struct Method {
    uint32_t version = METHOD_VERSION;
    std::string clock; // "gpu": timestamps; "wall": the host's, where the two disagree or there are none
    uint32_t samples = 0;
    uint64_t flush_bytes = 0; // read between cold launches
};
struct Tool {
    std::string name = "fathom", version, commit, glslang;
};
struct Host {
    std::string os, kernel, cpu;
    uint32_t cores = 0;
    uint64_t memory = 0;
};
struct DeviceFacts {
    std::string name, driver, type, api_version, vendor_id, device_id;
    uint64_t memory = 0;
    uint32_t subgroup_size = 0, shared_bytes = 0;
    std::vector<std::string> features, quirks;
};
struct Subject {                                  // whose shapes were measured
    std::string name, source, format, routing;    // source: "preset" or "checkpoint"
    uint32_t seed = 0, layers = 0, of_layers = 0; // layers < of_layers: a slice
    uint64_t parameters = 0, weight_bytes = 0;
    std::string scaling;      // of a slice: the formula
    double busiest_tenth = 0; // share of the chosen experts that the busiest tenth of them took
};

struct Roof {
    std::string name, unit; // unit: "GB/s" or "Gop/s"
    Spread rate;            // at the beginning of the run
    double last = 0;        // median at its end; 0: not measured again
};
struct Overhead {     // of launches: microseconds = per_submit + per_dispatch * launches
    std::string name; // "plain", "barrier", "indirect"
    double per_submit = 0, per_dispatch = 0;
};
struct Overheads {
    double submit = 0, round_trip = 0, record = 0; // record: of one launch
    std::vector<Overhead> launches;
};
struct KernelRow {
    std::string step;                      // "decode" or "prefill"
    std::string op, kernel, format, shape; // op: its label in the model, without the layer
    uint32_t rows = 0, depth = 0;          // token rows; positions in the cache
    uint64_t bytes = 0;
    double flops = 0;
    Spread cold, hot;         // microseconds; n is 0 where it failed
    double gbs = 0, gops = 0; // cold
    double percent = 0;       // of the lower roof, cold
    std::string bound;        // "memory", "compute", or "launch" where a launch alone costs more
    double error = 0;         // of the result, relative to the largest value expected
    std::string failure;      // empty: right
};
struct ModelRow {
    std::string name;                          // "prefill 512", "decode @ 4096", "decode x 8"
    uint32_t prompt = 0, depth = 0, batch = 1; // prompt 0: decode
    Spread tokens_per_second;
    Spread seconds;     // of the prompt to its first token; of a step
    double percent = 0; // decode: of the read roof, by the bytes of weights that a token takes; 0: not known
    double whole = 0;   // of a slice: tokens/s of the whole model, by Subject::scaling
};
struct PipelineRow { // --offline: what a compiler says of a kernel
    std::string step, op, kernel, format;
    std::vector<uint32_t> constants;
    // What drivers call by different names: "registers" and "spills" of an invocation, "subgroup" (its size),
    // "shared" (bytes), "occupancy" (subgroups that share a SIMD or SM), "cycles" (static), "instructions";
    // those that are told.
    std::map<std::string, double> summary;
    std::map<std::string, double> statistics; // all of them, in the driver's words
    std::string failure;
};

struct Report {
    std::string schema = SCHEMA, kind = "run"; // kind: "run" or "offline"
    Method method;
    Tool tool;
    std::string time_utc, run_id;
    Host host;
    DeviceFacts device;
    Subject subject;
    std::vector<Roof> roofs;
    Overheads overheads;
    std::vector<KernelRow> kernels;
    std::vector<ModelRow> model;
    std::vector<PipelineRow> pipelines;
    uint64_t peak_bytes = 0;
    uint32_t dispatches_per_token = 0;
    std::vector<std::string> flags; // "noisy: ...", "throttled: ...", "software device", "interrupted"
    std::vector<std::string> skipped, errors;

    const Roof* roof(std::string_view name) const;
    bool flagged(std::string_view flag) const; // one that begins so
};

nlohmann::json to_json(const Report& report);
// Throws Error naming `where` for anything that is not a report of this schema.
Report report_from_json(std::string_view json, const std::string& where);
std::string_view report_schema_json(); // the file of this name

// The share of the lower roof that moving `bytes` and computing `flops` in `microseconds` is, in percent, and
// which roof that is.
struct Share {
    double percent = 0;
    std::string bound;
};
Share share_of_roof(const Report& report, double bytes, double flops, double microseconds);

} // namespace fathom::bench
