// `fathom trace`: what a recording holds: a summary for a person, or every token and layer for other
// programs.
#include "trace/compare.h"
#include "trace/file.h"
#include "trace/stages.h"

#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/routing_summary.h"
#include "cli/terminal.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <memory>
#include <unistd.h>

namespace fathom::cli {

namespace {

struct Options {
    std::filesystem::path file, against;
    bool csv = false, json = false;
};

double average(std::span<const float> values) {
    double sum = 0;
    size_t n = 0;
    for (const float value : values)
        if (std::isfinite(value)) sum += value, ++n;
    return n == 0 ? 0 : sum / static_cast<double>(n);
}

// Tokens a second over the steps that generated, of one session without the pauses before its first.
std::string speed(const trace::Recording& recording) {
    uint64_t nanoseconds = 0, steps = 0;
    const trace::TokenRecord* last = nullptr;
    for (const trace::TokenRecord& record : recording.tokens) {
        if (last && last->session == record.session && last->next != trace::NO_TOKEN &&
            record.next != trace::NO_TOKEN && record.time > last->time)
            nanoseconds += record.time - last->time, ++steps;
        last = &record;
    }
    if (steps == 0) return "";
    return fmt::format(", {:.1f} tokens/s",
                       1e9 * static_cast<double>(steps) / static_cast<double>(nanoseconds));
}

// Layers where the router was nearly undecided, and what a bias changed.
std::string choices_text(const trace::Recording& recording) {
    const trace::Shape& shape = recording.identity.shape;
    std::vector<double> margins;
    uint64_t swapped = 0, choices = 0;
    double entropy = 0;
    for (const trace::TokenRecord& record : recording.tokens) {
        margins.insert(margins.end(), record.margin.begin(), record.margin.end());
        for (const uint32_t bits : record.swapped) swapped += static_cast<uint64_t>(__builtin_popcount(bits));
        choices += record.experts.size();
        entropy += average(record.entropy);
    }
    if (margins.empty()) return "";
    std::sort(margins.begin(), margins.end());
    const double tokens = static_cast<double>(recording.tokens.size());
    return fmt::format("router: margin {:.2g} in the middle, {:.2g} in the closest hundredth; entropy of its "
                       "scores {:.2f} of {:.2f} nats; {:.1f} % of choices only by bias\n",
                       margins[margins.size() / 2], margins[margins.size() / 100], entropy / tokens,
                       std::log(shape.n_experts),
                       100.0 * static_cast<double>(swapped) / static_cast<double>(choices));
}

// Where the time of the tokens that were timed went.
std::string stages_text(const trace::Recording& recording) {
    const size_t n = trace::STAGES.size();
    trace::StageSums sums{};
    double all = 0;
    size_t timed = 0;
    for (const trace::TokenRecord& record : recording.tokens) {
        timed += !record.times.empty();
        const trace::StageSums more = trace::stage_sums(recording.identity.shape, record.times);
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += more[i], all += more[i];
    }
    if (timed == 0 || all <= 0) return "";
    std::string text = fmt::format("time: {:.2f} ms a token, launch by launch ({} timed):",
                                   1e3 * all / static_cast<double>(timed), timed);
    for (size_t i = 0; i < sums.size(); ++i)
        if (sums[i] > 0)
            text += fmt::format("{} {} {:.0f} %", text.back() == ':' ? "" : ",",
                                i < n ? trace::STAGES[i] : trace::ENDS[i - n], 100 * sums[i] / all);
    return text + "\n";
}

std::string attention_text(const trace::Recording& recording) {
    std::string layers;
    size_t records = 0;
    for (const trace::TokenRecord& record : recording.tokens) {
        if (record.attention.empty()) continue;
        if (records++ != 0) continue;
        for (const trace::AttentionRows& rows : record.attention)
            layers += fmt::format("{}{} (heads {} to {})", layers.empty() ? "" : ", ", rows.layer,
                                  rows.first_head, rows.first_head + rows.n_heads - 1);
    }
    return records == 0
               ? ""
               : fmt::format("attention: of layer {}, in {} records; in the window, or with --json\n", layers,
                             records);
}

void print_summary(const trace::Recording& recording) {
    const Style style = Style::of(STDOUT_FILENO);
    const nlohmann::json& facts = recording.identity.facts;
    const auto fact = [&](const nlohmann::json& from, const char* key) {
        const auto it = from.find(key);
        return it == from.end() || !it->is_string() ? std::string("?")
                                                    : without_controls(it->get<std::string>());
    };
    const auto model = facts.find("model");
    write_out(style.bold(fmt::format("{} on {}", model == facts.end() ? "?" : fact(*model, "name"),
                                     fact(facts, "device"))) +
              fmt::format(", recorded {}\n", fact(facts, "created")));
    size_t generated = 0;
    std::string text;
    for (const trace::TokenRecord& record : recording.tokens) {
        generated += record.next != trace::NO_TOKEN;
        if (record.next != trace::NO_TOKEN) text += recording.text(record.next);
    }
    write_out(fmt::format("{} records, after {} of them a token was generated{}\n", recording.tokens.size(),
                          generated, speed(recording)));
    uint64_t bytes = 0;
    std::string owners;
    for (const trace::Entry& entry : recording.events) {
        if (entry.event.kind == trace::Event::Kind::gap)
            write_out(style.red(
                fmt::format("{} records were lost after record {}\n", entry.event.count, entry.token)));
        if (entry.event.kind != trace::Event::Kind::memory) continue;
        bytes += entry.event.count;
        owners += fmt::format("{}{} {:.1f}", owners.empty() ? "" : ", ", without_controls(entry.event.text),
                              static_cast<double>(entry.event.count) / (1 << 20));
    }
    if (bytes != 0)
        write_out(fmt::format("memory: {:.1f} MiB ({})\n", static_cast<double>(bytes) / (1 << 20), owners));
    write_out(choices_text(recording));
    write_out(stages_text(recording));
    write_out(attention_text(recording));
    RoutingSummary routing(recording.identity.shape);
    routing.add(recording.tokens);
    write_out("\n" + routing.table(style, terminal_width(STDOUT_FILENO)));
    if (!text.empty()) write_out("\n" + style.dim("What was generated:\n") + without_controls(text) + "\n");
}

std::string csv_text(std::string_view text) { // for CSV; what is no UTF-8 or no character as \xNN
    std::string out = "\"";
    for (const char c : printable(text, 200)) out += c == '"' ? "\"\"" : std::string(1, c);
    return out + "\"";
}

// One line for each token, MoE layer and choice.
void print_csv(const trace::Recording& recording) {
    const trace::Shape& shape = recording.identity.shape;
    write_out("record,session,position,token,text,next,layer,choice,expert,weight,by_bias,margin,entropy\n");
    for (size_t i = 0; i < recording.tokens.size(); ++i) {
        const trace::TokenRecord& r = recording.tokens[i];
        const std::string head = fmt::format("{},{},{},{},{},{}", i, r.session, r.position, r.token,
                                             csv_text(recording.text(r.token)),
                                             r.next == trace::NO_TOKEN ? "" : fmt::format("{}", r.next));
        for (size_t c = 0; c < r.experts.size(); ++c) {
            const size_t layer = c / shape.n_active, choice = c % shape.n_active;
            write_out(fmt::format("{},{},{},{},{},{},{},{}\n", head, shape.moe_layers[layer], choice,
                                  r.experts[c], r.weights[c], r.swapped[layer] >> choice & 1, r.margin[layer],
                                  r.entropy[layer]));
        }
    }
}

nlohmann::json numbers(std::span<const float> values) { // null where there is none, or it is infinite
    nlohmann::json out = nlohmann::json::array();
    for (const float value : values)
        out.push_back(std::isfinite(value) ? nlohmann::json(value) : nlohmann::json());
    return out;
}

void print_json(const trace::Recording& recording) {
    const trace::Shape& shape = recording.identity.shape;
    nlohmann::json head{{"facts", recording.identity.facts},
                        {"moe_layers", shape.moe_layers},
                        {"n_active", shape.n_active},
                        {"n_experts", shape.n_experts},
                        {"n_layers", shape.n_layers},
                        {"stages", trace::STAGES},
                        {"ends", trace::ENDS},
                        {"incomplete", recording.incomplete}};
    write_out(head.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    for (const trace::TokenRecord& r : recording.tokens) {
        nlohmann::json candidates = nlohmann::json::array();
        for (const trace::Candidate& c : r.candidates) candidates.push_back({c.token, c.logprob});
        nlohmann::json line{{"session", r.session},
                            {"position", r.position},
                            {"time", r.time},
                            {"token", r.token},
                            {"text", recording.text(r.token)},
                            {"experts", r.experts},
                            {"weights", numbers(r.weights)},
                            {"margin", numbers(r.margin)},
                            {"entropy", numbers(r.entropy)},
                            {"swapped", r.swapped},
                            {"groups", r.groups},
                            {"norms", numbers(r.norms)},
                            {"cache_bytes", r.cache_bytes},
                            {"shared_bytes", r.shared_bytes},
                            {"candidates", candidates}};
        if (r.next != trace::NO_TOKEN) line["next"] = r.next;
        if (!r.times.empty()) line["times"] = numbers(r.times);
        for (const trace::RouterScores& router : r.scores)
            line["scores"].push_back({{"layer", router.layer},
                                      {"scores", numbers(router.scores)},
                                      {"keys", numbers(router.keys)}});
        for (const trace::AttentionRows& rows : r.attention)
            line["attention"].push_back({{"layer", rows.layer},
                                         {"first_head", rows.first_head},
                                         {"n_heads", rows.n_heads},
                                         {"pool", rows.pool},
                                         {"weights", numbers(rows.weights)}});
        write_out(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    }
}

// Where two recordings part. 0 when nowhere, 1 when somewhere.
int print_difference(const trace::Recording& a, const trace::Recording& b) {
    const trace::Difference d = trace::compare(a, b);
    const auto device = [](const trace::Recording& r) {
        const auto it = r.identity.facts.find("device");
        return it != r.identity.facts.end() && it->is_string() ? without_controls(it->get<std::string>())
                                                               : "?";
    };
    write_out(fmt::format("A: {}\nB: {}\n{} tokens compared\n", device(a), device(b), d.compared));
    if (d.token) write_out(fmt::format("the first token that differs is number {}\n", *d.token));
    if (!d.flips.empty())
        write_out(fmt::format(
            "the first choice that differs: token {}, layer {}: A took expert {}, B took {}; margins {:.3g} "
            "and {:.3g}\n",
            d.flips[0].position, d.flips[0].layer, fmt::join(d.flips[0].only_a, ", "),
            fmt::join(d.flips[0].only_b, ", "), d.flips[0].margin_a, d.flips[0].margin_b));
    write_out(fmt::format("choices that differ: {} of {}\n", d.flips.size(), d.choices));
    write_out(fmt::format("{}: weights at most {:.2g} apart, norms {:.2g} of their size\n",
                          !d.flips.empty() ? "up to there" : "everywhere", d.weights, d.norms));
    return d.token || !d.flips.empty() ? FAILED : OK;
}

int show(const Options& options) {
    if (options.csv && options.json) throw UsageError("--csv and --json exclude each other");
    const trace::Recording recording = trace::read_recording(options.file);
    if (!recording.incomplete.empty()) log::warning("the recording is not whole: {}", recording.incomplete);
    if (!options.against.empty()) return print_difference(recording, trace::read_recording(options.against));
    if (options.csv)
        print_csv(recording);
    else if (options.json)
        print_json(recording);
    else
        print_summary(recording);
    return OK;
}

} // namespace

Action prepare_trace(CLI::App& app) {
    auto options = std::make_shared<Options>();
    app.add_option("FILE", options->file, "A recording, as 'fathom run --trace FILE' writes it")->required();
    add_path(
        app, "--against", options->against, "OTHER",
        "Where another recording parts from this one: the first token and the first choice of experts; exit "
        "code 1 when they part");
    add_flag(app, "--csv", options->csv, "One line for each token, layer and choice");
    add_flag(app, "--json", options->json,
             "One JSON object a line: what the recording is of, then every token");
    return [options] { return show(*options); };
}

} // namespace fathom::cli
