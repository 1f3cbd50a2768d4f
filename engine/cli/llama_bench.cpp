// `fathom bench --like-llama-bench`: what llama.cpp's llama-bench measures, so that both can be run on one
// file and device in turn.
//
// Its definitions: ppN processes N random tokens at once, tgN as many one after the other, each behind D
// tokens that are there already and are not timed; rates are means over repetitions, after one that is thrown
// away. `x P`, ours: P sessions generate side by side, and the rate is of all their tokens. Other than there,
// each of our steps samples, on the device, since nothing here makes logits without.
#include "cli/llama_bench.h"

#include "base/error.h"
#include "base/log.h"
#include "base/numbers.h"
#include "base/units.h"
#include "bench/models.h"
#include "cli/command.h"
#include "cli/figures.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/measure.h"
#include "cli/terminal.h"
#include "model/model_memory.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numeric>

namespace fathom::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Test {
    uint32_t prompt = 0, generated = 0, depth = 0; // one of the first two is 0
    uint32_t parallel = 1;                         // sessions that generate side by side
    uint32_t tokens() const { return prompt + generated * parallel; }
};

// In llama-bench's order: for each depth all prompts, then all generations.
std::vector<Test> tests_of(const LlamaBench& options) {
    std::vector<Test> tests;
    for (const uint32_t depth : options.depths) {
        for (const uint32_t n : options.prompts)
            if (n != 0) tests.push_back({n, 0, depth});
        for (const uint32_t n : options.generated)
            for (const uint32_t parallel : options.parallel)
                if (n != 0) tests.push_back({0, n, depth, parallel});
    }
    if (tests.empty()) throw UsageError("nothing to measure: -p and -n are both 0");
    return tests;
}

// Seconds of one repetition.
double run(bench::ModelBench& bench, const Test& test) {
    if (test.prompt != 0) return bench.prompt(test.prompt, test.depth);
    const std::vector<double> tokens = bench.decode(test.generated, test.depth, test.parallel);
    return std::accumulate(tokens.begin(), tokens.end(), 0.0);
}

// What is measured.
struct Subject {
    std::string model, device;
    uint64_t bytes, parameters;
};

double mean_of(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
}

double deviation_of(const std::vector<double>& values) { // of a sample; 0 of one
    const double mean = mean_of(values);
    double sum = 0;
    for (const double value : values) sum += std::pow(value - mean, 2);
    return values.size() < 2 ? 0 : std::sqrt(sum / static_cast<double>(values.size() - 1));
}

struct Row {
    Test test;
    std::vector<double> seconds;

    std::vector<double> rates() const {
        std::vector<double> out;
        for (const double s : seconds) out.push_back(test.tokens() / s);
        return out;
    }
};

std::string test_name(const Test& test) {
    std::string name = test.prompt ? fmt::format("pp{}", test.prompt) : fmt::format("tg{}", test.generated);
    if (test.parallel > 1) name += fmt::format(" x {}", test.parallel);
    return test.depth ? fmt::format("{} @ d{}", name, test.depth) : name;
}

// llama-bench's table, whose columns are as wide as their widest cell would be there.
std::string table_row(const Subject& subject, const Row& row) {
    const std::vector<double> rates = row.rates();
    return fmt::format("| {:<30} | {:>10} | {:>10} | {:<10} | {:>15} | {:>20} |\n", printable(subject.model),
                       fmt::format("{:.2f} GiB", double(subject.bytes) / (1 << 30)),
                       count_text(subject.parameters), "Fathom", test_name(row.test),
                       fmt::format("{:.2f} ± {:.2f}", mean_of(rates), deviation_of(rates)));
}

std::string table_head() {
    return fmt::format("| {:<30} | {:>10} | {:>10} | {:<10} | {:>15} | {:>20} |\n", "model", "size", "params",
                       "backend", "test", "t/s") +
           "| ------------------------------ | ---------: | ---------: | ---------- | --------------: | "
           "-------------------: |\n";
}

// An element of llama-bench's array, as far as it applies here.
Json json_row(const Subject& subject, const Row& row) {
    const auto nanoseconds = [](double seconds) { return std::llround(seconds * 1e9); };
    std::vector<int64_t> samples;
    for (const double s : row.seconds) samples.push_back(nanoseconds(s));
    const std::vector<double> rates = row.rates();
    return {{"backends", "Fathom"},
            {"gpu_info", subject.device},
            {"model_type", subject.model},
            {"model_size", subject.bytes},
            {"model_n_params", subject.parameters},
            {"n_prompt", row.test.prompt},
            {"n_gen", row.test.generated},
            {"n_depth", row.test.depth},
            {"n_parallel", row.test.parallel},
            {"avg_ns", nanoseconds(mean_of(row.seconds))},
            {"stddev_ns", nanoseconds(deviation_of(row.seconds))},
            {"avg_ts", mean_of(rates)},
            {"stddev_ts", deviation_of(rates)},
            {"samples_ns", samples},
            {"samples_ts", rates}};
}

} // namespace

// Rows are shown as they come; what was measured before a Ctrl-C counts.
int like_llama_bench(LlamaBench options) {
    if (options.repetitions == 0) throw UsageError("-r is at least 1");
    const std::vector<Test> tests = tests_of(options);
    for (const uint32_t n : options.parallel)
        if (n == 0 || n > MAX_DECODE_ROWS)
            throw UsageError(fmt::format("--parallel is 1 to {}, not {}", MAX_DECODE_ROWS, n));
    uint32_t longest = 0, sessions = 2;
    for (const Test& test : tests) {
        longest = std::max(longest, test.depth + test.prompt + test.generated + 2);
        sessions = std::max(sessions, test.parallel + 1);
    }
    if (options.model.context == 0) options.model.context = longest;
    const ModelFiles files = open_model(options.model.model); // without a tokenizer, which nothing needs
    LoadOptions load = options.model.load();
    load.cache_tokens = sessions * static_cast<uint32_t>(round_up(options.model.context, PAGE_TOKENS));
    const auto engine = load_engine(files, load);
    const Subject subject{files.name, engine->device_name(), files.checkpoint.bytes(),
                          parameter_figures(engine->config()).total};
    const bool to_stdout = options.json == "-";
    if (!to_stdout) write_out(table_head());
    Json rows = Json::array();
    bench::Stop stop;
    const InterruptScope scope([&stop] { stop.request(); });
    try {
        bench::ModelBench bench(*engine, stop);
        for (const Test& test : tests) {
            Row row{test, {}};
            run(bench, test); // makes the pipelines
            for (uint32_t i = 0; i < options.repetitions; ++i) row.seconds.push_back(run(bench, test));
            if (!to_stdout) write_out(table_row(subject, row));
            rows.push_back(json_row(subject, row));
        }
    } catch (const Cancelled&) {
    } catch (const bench::Stopped&) {
    }
    if (to_stdout)
        write_out(rows.dump(2) + "\n");
    else if (options.json)
        write_json(*options.json, rows);
    log::info("on {}", subject.device);
    return stop.requested() ? INTERRUPTED : OK;
}

} // namespace fathom::cli
