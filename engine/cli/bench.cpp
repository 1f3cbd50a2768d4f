// `fathom bench`: how fast a model runs here. So far as llama.cpp's llama-bench measures it, so that both can
// be run on one file and device in turn.
//
// Its definitions: ppN processes N random tokens at once, tgN as many one after the other, each behind D
// tokens that are there already and are not timed; rates are means over repetitions, after one that is thrown
// away. Other than there, each of our steps samples, on the device, since nothing here makes logits without.
#include "base/error.h"
#include "base/log.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/figures.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/measure.h"
#include "cli/terminal.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <random>

namespace fathom::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
    ModelOptions model;
    bool like_llama_bench = false;
    std::vector<uint32_t> prompts = {512}, generated = {128}, depths = {0};
    uint32_t repetitions = 5;
    std::optional<std::string> json;
};

struct Test {
    uint32_t prompt = 0, generated = 0, depth = 0; // one of the first two is 0
    uint32_t tokens() const { return prompt + generated; }
};

// In llama-bench's order: for each depth all prompts, then all generations.
std::vector<Test> tests_of(const Options& options) {
    std::vector<Test> tests;
    for (const uint32_t depth : options.depths) {
        for (const uint32_t n : options.prompts)
            if (n != 0) tests.push_back({n, 0, depth});
        for (const uint32_t n : options.generated)
            if (n != 0) tests.push_back({0, n, depth});
    }
    if (tests.empty()) throw UsageError("nothing to measure: -p and -n are both 0");
    return tests;
}

class Bench {
  public:
    explicit Bench(Engine& engine) : engine_(engine), base_(engine.open()) {
        base_.sampling().temperature = 0;
    }

    // Seconds of one repetition. The base session holds the depth, and one token more that waits to be
    // processed; a fork of it goes on.
    double run(const Test& test) {
        prepare(test.depth);
        Session session = test.depth == 0 ? engine_.open() : base_.fork();
        session.sampling().temperature = 0;
        const uint32_t fed = test.prompt ? test.prompt : 1; // to be processed, with what waits already
        const std::vector<Token> tokens = random_tokens(test.depth == 0 ? fed : fed - 1);
        const InterruptScope scope([&session] { session.cancel(); });
        if (test.prompt == 0) session.feed(tokens); // one waits, nothing is processed
        const auto start = std::chrono::steady_clock::now();
        if (test.prompt != 0) session.feed(tokens);
        for (uint32_t i = 0; i < std::max(test.generated, 1u); ++i) session.next();
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        if (scope.interrupted()) throw Cancelled();
        return seconds.count();
    }

  private:
    void prepare(uint32_t depth) {
        if (depth == 0 || base_.position() == depth + 1) return;
        const InterruptScope scope([this] { base_.cancel(); });
        base_.rewind(0);
        base_.feed(random_tokens(depth));
        base_.next();
        if (scope.interrupted()) throw Cancelled();
    }
    std::vector<Token> random_tokens(size_t n) {
        std::uniform_int_distribution<Token> any(0, engine_.config().vocab_size - 1);
        std::vector<Token> tokens(n);
        for (Token& token : tokens) token = any(random_);
        return tokens;
    }

    Engine& engine_;
    Session base_;
    std::mt19937 random_{1};
};

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
    const std::string name =
        test.prompt ? fmt::format("pp{}", test.prompt) : fmt::format("tg{}", test.generated);
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
            {"avg_ns", nanoseconds(mean_of(row.seconds))},
            {"stddev_ns", nanoseconds(deviation_of(row.seconds))},
            {"avg_ts", mean_of(rates)},
            {"stddev_ts", deviation_of(rates)},
            {"samples_ns", samples},
            {"samples_ts", rates}};
}

// Rows are shown as they come; what was measured before a Ctrl-C counts.
int bench(Options options) {
    if (!options.like_llama_bench)
        throw UsageError("only --like-llama-bench is there yet: it measures as llama.cpp's llama-bench does");
    if (options.repetitions == 0) throw UsageError("-r is at least 1");
    const std::vector<Test> tests = tests_of(options);
    uint32_t longest = 0;
    for (const Test& test : tests) longest = std::max(longest, test.depth + test.tokens() + 2);
    if (options.model.context == 0) options.model.context = longest;
    const ModelFiles files = open_model(options.model.model); // without a tokenizer, which nothing needs
    const auto engine = load_engine(files, options.model.load());
    const Subject subject{files.name, engine->device_name(), files.checkpoint.bytes(),
                          parameter_figures(engine->config()).total};
    const bool to_stdout = options.json == "-";
    if (!to_stdout) write_out(table_head());
    Json rows = Json::array();
    bool interrupted = false;
    try {
        Bench bench(*engine);
        for (const Test& test : tests) {
            Row row{test, {}};
            bench.run(test); // makes the pipelines
            for (uint32_t i = 0; i < options.repetitions; ++i) row.seconds.push_back(bench.run(test));
            if (!to_stdout) write_out(table_row(subject, row));
            rows.push_back(json_row(subject, row));
        }
    } catch (const Cancelled&) {
        interrupted = true;
    }
    if (to_stdout)
        write_out(rows.dump(2) + "\n");
    else if (options.json)
        write_json(*options.json, rows);
    log::info("on {}", subject.device);
    return interrupted ? INTERRUPTED : OK;
}

} // namespace

Action prepare_bench(CLI::App& app) {
    auto options = std::make_shared<Options>();
    const auto list = [&app](const char* name, std::vector<uint32_t>& values, const char* about) {
        app.add_option(name, values, about)->delimiter(',')->type_name("N,...")->capture_default_str();
    };
    add_model(app, options->model);
    add_flag(app, "--like-llama-bench", options->like_llama_bench,
             "Measure, and print, as llama.cpp's llama-bench does");
    list("-p,--n-prompt", options->prompts, "Prompts of so many tokens; 0: none");
    list("-n,--n-gen", options->generated, "Generations of so many tokens; 0: none");
    list("-d,--n-depth", options->depths, "Behind so many tokens");
    add_count(app, "-r,--repetitions", options->repetitions, "How often each is measured");
    add_text(app, "--json", options->json, "FILE", "Write llama-bench's JSON array; - is standard output");
    add_loading(app, options->model);
    add_context(app, options->model);
    return [options] { return bench(*options); };
}

} // namespace fathom::cli
