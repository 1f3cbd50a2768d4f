// Tables; see text.h.
#include "bench/text.h"

#include "base/error.h"
#include "base/units.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace fathom::bench {

namespace {

std::string number(double value) { // three digits or more
    if (value == 0 || !std::isfinite(value)) return "-";
    const double size = std::abs(value);
    return size >= 1000  ? fmt::format("{:.0f}", value)
           : size >= 100 ? fmt::format("{:.0f}", value)
           : size >= 10  ? fmt::format("{:.1f}", value)
           : size >= 1   ? fmt::format("{:.2f}", value)
                         : fmt::format("{:.2g}", value);
}

std::string spread_text(const Spread& s) { return fmt::format("{} .. {}", number(s.p10), number(s.p90)); }

std::string bar(double share) { // ten columns
    const auto filled = static_cast<size_t>(std::lround(10 * std::clamp(share, 0.0, 1.0)));
    std::string out;
    for (size_t i = 0; i < 10; ++i) out += i < filled ? "\u2588" : "\u00b7";
    return out;
}

// A rate in the unit that suits its size: Gop/s become Top/s.
std::string rate_text(double rate, std::string_view unit) {
    if (rate >= 1000 && unit == "Gop/s") return number(rate / 1000) + " Top/s";
    return fmt::format("{} {}", number(rate), unit);
}

std::string subject_text(const Report& r) {
    const Subject& s = r.subject;
    std::string out = fmt::format("{} ({}), {}", printable(s.name), s.source, s.format);
    if (r.kind == "offline") return out + ", only compiled";
    if (s.source == "preset") out += fmt::format(", routing {}, seed {}", s.routing, s.seed);
    out += fmt::format(", {} parameters in {}", count_text(s.parameters), bytes_text(s.weight_bytes));
    if (s.layers != s.of_layers) out += fmt::format(", {} of {} layers", s.layers, s.of_layers);
    return out;
}

const ModelRow* row_named(const Report& report, std::string_view name) {
    const auto it = std::find_if(report.model.begin(), report.model.end(),
                                 [&](const ModelRow& row) { return row.name == name; });
    return it == report.model.end() ? nullptr : &*it;
}

} // namespace

Look plain_look() {
    const auto same = [](std::string_view text) { return std::string(text); };
    return {false, [](double, std::string_view text) { return std::string(text); }, same, same, same};
}

std::string Printer::head(const Report& r) {
    std::string features = fmt::format("{}", fmt::join(r.device.features, ", "));
    return look_.bold(printable(r.device.name)) +
           fmt::format("\n  {}, {}, Vulkan {}, {}, subgroups of {}, {} shared\n", r.device.type,
                       printable(r.device.driver), r.device.api_version, bytes_text(r.device.memory),
                       r.device.subgroup_size, bytes_text(r.device.shared_bytes)) +
           look_.dim(fmt::format("  {}\n  {}, {} cores, {}; {}\n  fathom {} ({}), glslang {}, method {}{}\n",
                                 features.empty() ? "no optional features" : features, r.host.cpu,
                                 r.host.cores, bytes_text(r.host.memory), r.host.os, r.tool.version,
                                 r.tool.commit, r.tool.glslang, r.method.version,
                                 r.method.clock.empty() ? "" : fmt::format(", {} clock", r.method.clock)));
}

std::string Printer::title(const char* text, const char* columns) {
    return "\n" + look_.bold(fmt::format("{:<14}", text)) + look_.dim(columns) + "\n";
}

std::string Printer::kernel(const KernelRow& k) {
    std::string out = fmt::format("  {:<8}{:<26}{:<8}{:<40}", k.step, k.op, k.format, k.shape);
    if (!k.failure.empty()) return out + look_.red("FAILED: " + k.failure) + "\n";
    out += fmt::format("{:>9}{:>9}{:>9}{:>9}", number(k.cold.median), number(k.hot.median), number(k.gbs),
                       number(k.gops));
    const std::string share = fmt::format("{:>7.1f} %", k.percent);
    out += look_.heat(k.percent / 100, share) + (look_.bars ? " " + bar(k.percent / 100) : "");
    return out +
           fmt::format("  {:<8}{:>9}\n", k.bound, k.error == 0 ? "exact" : fmt::format("{:.0e}", k.error));
}

std::string Printer::launches(const Overheads& o) {
    std::string out = title("launches", "microseconds of each, and of a submit with them");
    const auto line = [&](std::string_view name, double value, const std::string& more) {
        out += fmt::format("  {:<26}{:>10}{}\n", name, number(value), more);
    };
    for (const Overhead& launch : o.launches)
        line(launch.name, launch.per_dispatch, fmt::format("{:>10}", number(launch.per_submit)));
    line("recording one", o.record, "");
    line("submitting", o.submit, "");
    line("round trip", o.round_trip, "");
    return out;
}

std::string Printer::model(const ModelRow& m) {
    return fmt::format("  {:<22}{:>12}    {:<20}{:>12}{}{}\n", m.name, number(m.tokens_per_second.median),
                       spread_text(m.tokens_per_second), number(m.seconds.median * 1e3),
                       m.prompt ? " to the first token" : "",
                       m.percent > 0 ? fmt::format("  {:.1f} % of the read roof", m.percent) : "");
}

namespace {
constexpr const char* COMPILED[] = {"registers", "spills", "subgroup",    "shared",
                                    "occupancy", "cycles", "instructions"};
}

std::string Printer::pipeline(const PipelineRow& p) {
    std::string out = fmt::format("  {:<8}{:<26}{:<6}", p.step, p.op, p.format);
    if (!p.failure.empty()) return out + look_.red("FAILED: " + p.failure) + "\n";
    for (const std::string_view column : COMPILED) {
        const auto found = p.summary.find(std::string(column));
        const bool told = found != p.summary.end();
        const std::string cell = fmt::format("{:>13}", told ? fmt::format("{:.0f}", found->second) : "");
        out += column == "spills" && told && found->second > 0 ? look_.red(cell) : cell;
    }
    return out + "\n";
}

std::string Printer::news(const Report& r) {
    std::string out;
    if (!head_ && !r.device.name.empty()) out += head(r);
    head_ |= !r.device.name.empty();
    if (!overheads_ && !r.overheads.launches.empty()) out += launches(r.overheads);
    overheads_ |= !r.overheads.launches.empty();
    if (roofs_ == 0 && !r.roofs.empty()) out += title("roofs", "                  median    10 % .. 90 %");
    for (; roofs_ < r.roofs.size(); ++roofs_) {
        const Roof& roof = r.roofs[roofs_];
        out += fmt::format("  {:<26}{:>14}    {}\n", roof.name, rate_text(roof.rate.median, roof.unit),
                           spread_text(roof.rate));
    }
    if (!subject_ && !r.subject.name.empty()) out += "\n" + look_.bold(subject_text(r)) + "\n";
    subject_ |= !r.subject.name.empty();
    if (kernels_ == 0 && !r.kernels.empty())
        out += "\n" + look_.bold("kernels") +
               look_.dim(fmt::format("{:<75}{:>9}{:>9}{:>9}{:>9}{:>9}{}  {:<8}{:>9}\n", "", "cold us",
                                     "hot us", "GB/s", "Gop/s", "of roof", look_.bars ? "           " : "",
                                     "bound", "error"));
    for (; kernels_ < r.kernels.size(); ++kernels_) out += kernel(r.kernels[kernels_]);
    if (model_ == 0 && !r.model.empty())
        out += "\n" + look_.bold("model") +
               look_.dim(fmt::format("{:<19}{:>12}    {:<20}{:>12}\n", "", "tokens/s", "10 % .. 90 %", "ms"));
    for (; model_ < r.model.size(); ++model_) out += model(r.model[model_]);
    if (pipelines_ == 0 && !r.pipelines.empty()) {
        out += "\n" + look_.bold("kernels") + fmt::format("{:<35}", "");
        for (const char* column : COMPILED) out += look_.dim(fmt::format("{:>13}", column));
        out += "\n";
    }
    for (; pipelines_ < r.pipelines.size(); ++pipelines_) out += pipeline(r.pipelines[pipelines_]);
    return out;
}

std::string Printer::end(const Report& r) {
    std::string out;
    if (r.peak_bytes != 0)
        out += fmt::format("  {:<22}{:>12}\n  {:<22}{:>12}\n", "memory", bytes_text(r.peak_bytes),
                           "launches per token", r.dispatches_per_token);
    for (const ModelRow& m : r.model)
        if (m.whole != 0)
            out += fmt::format("  {:<22}{:>12}    tokens/s of all {} layers, by {}\n", m.name,
                               number(m.whole), r.subject.of_layers, r.subject.scaling);
    if (r.subject.busiest_tenth != 0)
        out += look_.dim(fmt::format("  the busiest tenth of the experts took {:.0f} % of the tokens\n",
                                     100 * r.subject.busiest_tenth));
    for (const std::string& text : r.skipped) out += look_.dim("  left out: " + text) + "\n";
    for (const std::string& text : r.flags) out += "  " + look_.bold(text) + "\n";
    for (const std::string& text : r.errors) out += look_.red("  error: " + text) + "\n";
    return out.empty() ? out : "\n" + out;
}

std::string markdown(const Report& r) {
    const auto rate = [&](const char* name) {
        const ModelRow* row = row_named(r, name);
        return row ? number(row->tokens_per_second.median) : std::string("-");
    };
    const ModelRow* decode = row_named(r, "decode");
    double launch = 0;
    for (const Overhead& o : r.overheads.launches)
        if (o.name == "barrier") launch = o.per_dispatch;
    std::string flags = fmt::format("{}", fmt::join(r.flags, "; "));
    std::replace(flags.begin(), flags.end(), '|', '/');
    return fmt::format(
        "| device | driver | model | format | prefill 512 | decode | decode @ 4096 | of read roof | "
        "launch us | method | flags |\n"
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        printable(r.device.name), printable(r.device.driver), printable(r.subject.name), r.subject.format,
        rate("prefill 512"), rate("decode"), rate("decode @ 4096"),
        decode && decode->percent > 0 ? fmt::format("{:.1f} %", decode->percent) : "-", number(launch),
        r.method.version, flags);
}

} // namespace fathom::bench
