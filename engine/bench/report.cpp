// Reports as JSON; see report.h.
#include "bench/report.h"

#include "base/error.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom::bench {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Spread, median, p10, p90, n)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Method, version, clock, samples, flush_bytes)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Tool, name, version, commit, glslang)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Host, os, kernel, cpu, cores, memory)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(DeviceFacts, name, driver, type, api_version, vendor_id, device_id, memory,
                                   subgroup_size, shared_bytes, features, quirks)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Subject, name, source, format, routing, seed, layers, of_layers,
                                   parameters, weight_bytes, scaling, busiest_tenth)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Roof, name, unit, rate, last)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Overhead, name, per_submit, per_dispatch)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Overheads, submit, round_trip, record, launches)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(KernelRow, step, op, kernel, format, shape, rows, depth, bytes, flops,
                                   cold, hot, gbs, gops, percent, bound, error, failure)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ModelRow, name, prompt, depth, batch, tokens_per_second, seconds, percent,
                                   whole)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(PipelineRow, step, op, kernel, format, constants, summary, statistics,
                                   failure)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Report, schema, kind, method, tool, time_utc, run_id, host, device,
                                   subject, roofs, overheads, kernels, model, pipelines, peak_bytes,
                                   dispatches_per_token, flags, skipped, errors)

const Roof* Report::roof(std::string_view name) const {
    const auto it = std::find_if(roofs.begin(), roofs.end(), [&](const Roof& r) { return r.name == name; });
    return it == roofs.end() ? nullptr : &*it;
}

bool Report::flagged(std::string_view flag) const {
    return std::any_of(flags.begin(), flags.end(), [&](const auto& f) { return f.starts_with(flag); });
}

nlohmann::json to_json(const Report& report) {
    nlohmann::json json;
    to_json(json, report);
    return json;
}

Report report_from_json(std::string_view text, const std::string& where) {
    const auto refuse = [&](std::string got) {
        return Error({.what = "not a benchmark report",
                      .where = where,
                      .expected = fmt::format("JSON of schema {}", SCHEMA),
                      .got = std::move(got),
                      .fix = "compare files that `fathom bench --json FILE` wrote"});
    };
    Report report;
    try {
        const auto json = nlohmann::json::parse(text);
        if (!json.is_object() || !json.contains("schema")) throw refuse("JSON without \"schema\"");
        if (json["schema"] != SCHEMA) throw refuse("schema " + printable(json["schema"].dump()));
        from_json(json, report);
    } catch (const nlohmann::json::exception& error) {
        throw refuse(printable(error.what(), 300));
    }
    return report;
}

Share share_of_roof(const Report& report, double bytes, double flops, double microseconds) {
    double memory = 0;
    for (const char* name : {"copy", "read", "triad"})
        if (const Roof* roof = report.roof(name)) memory = std::max(memory, roof->rate.median);
    const Roof* compute = report.roof("fma_f32");
    if (memory == 0 || !compute || microseconds <= 0) return {};
    const double by_memory = bytes / memory * 1e-3, by_compute = flops / compute->rate.median * 1e-3;
    const double least = std::max(by_memory, by_compute);
    double launch = 0;
    for (const Overhead& o : report.overheads.launches)
        if (o.name == "barrier") launch = o.per_dispatch;
    return {100 * least / microseconds, least < launch            ? "launch"
                                        : by_memory >= by_compute ? "memory"
                                                                  : "compute"};
}

} // namespace fathom::bench
