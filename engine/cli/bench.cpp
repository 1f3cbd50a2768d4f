// `fathom bench`: options, and where its reports go. Measuring is in engine/bench.
#include "base/error.h"
#include "base/file.h"
#include "bench/compare.h"
#include "bench/html.h"
#include "bench/offline.h"
#include "bench/run.h"
#include "bench/text.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/llama_bench.h"
#include "cli/terminal.h"
#include "commit.h"
#include "gpu/modules.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <memory>
#include <unistd.h>

namespace fathom::cli {

namespace {

struct Options {
    LlamaBench llama; // has the model, the device and the file for JSON
    bool like_llama_bench = false, offline = false, markdown = false, schema = false;
    std::string preset, format = "q4_k", routing = "uniform";
    uint32_t seed = 1, samples = 10, seconds = 100;
    bool of_preset = false; // one of the three above was given
    std::vector<std::string> only, compare;
    std::optional<std::string> html;
};

bench::Look look_of(int fd) {
    const Style style = Style::of(fd);
    if (!style.colour()) return bench::plain_look();
    return {true, [style](double share, std::string_view text) { return style.heat(share, text); },
            [style](std::string_view text) { return style.bold(text); },
            [style](std::string_view text) { return style.dim(text); },
            [style](std::string_view text) { return style.red(text); }};
}

// What is being measured, on a terminal's last line.
class Status {
  public:
    void show(const std::string& what) const {
        if (terminal_) fmt::print(stderr, "\r\033[K{}", what.substr(0, 70));
    }

  private:
    const bool terminal_ = is_terminal(STDERR_FILENO);
};

std::set<bench::Section> sections_of(const std::vector<std::string>& only) {
    using bench::Section;
    std::set<Section> sections;
    for (const std::string& name : only)
        sections.insert(name == "roofs"       ? Section::roofs
                        : name == "overheads" ? Section::overheads
                        : name == "kernels"   ? Section::kernels
                                              : Section::model);
    return sections;
}

void write_text(const std::string& path, std::string_view text) {
    AtomicFile file(path);
    file.write(std::as_bytes(std::span(text)));
    file.commit();
}

// The files and formats that were asked for. What is not asked for was printed while it ran.
void give(const bench::Report& report, const Options& options) {
    const std::string json = bench::to_json(report).dump(2) + "\n";
    if (options.llama.json == "-")
        write_out(json);
    else if (options.llama.json)
        write_text(*options.llama.json, json);
    if (options.markdown) write_out(bench::markdown(report));
    if (options.html) write_text(*options.html, bench::html({report}));
}

bench::Tool tool() {
    return {
        .version = FATHOM_VERSION, .commit = FATHOM_COMMIT, .glslang = std::string(gpu::glslang_version())};
}

void check(const Options& options) {
    if (options.samples < 10) throw UsageError("--samples is at least 10");
    const bool checkpoint = !options.llama.model.model.empty();
    if (checkpoint && !options.preset.empty()) throw UsageError("MODEL or --preset, not both");
    if (checkpoint && options.of_preset)
        throw UsageError("--format, --routing and --seed are for presets: a MODEL has its own");
    if (!checkpoint && !options.llama.model.quantize.empty())
        throw UsageError("--quantize is for a MODEL; --format is that of a preset's weights");
    if (checkpoint && options.offline) throw UsageError("--offline takes a --preset: no weights are read");
    if (options.markdown && options.llama.json == "-")
        throw UsageError("--markdown and --json - both want standard output");
}

int run_bench(const Options& options) {
    check(options);
    bench::RunOptions run{.load = options.llama.model.load(),
                          .preset = options.preset,
                          .format = format_named(options.format),
                          .skewed = options.routing == "skewed",
                          .seed = options.seed,
                          .samples = options.samples,
                          .seconds = double(options.seconds),
                          .tool = tool()};
    if (!options.only.empty()) run.sections = sections_of(options.only);
    std::optional<ModelFiles> files;
    if (!options.llama.model.model.empty()) {
        files.emplace(open_model(options.llama.model.model));
        run.files = &*files;
    }
    bench::Printer printer(look_of(STDOUT_FILENO));
    const bool table = options.llama.json != "-" && !options.markdown;
    const Status status;
    if (table)
        run.on_change = [&](const bench::Report& report) {
            const std::string news = printer.news(report);
            if (news.empty()) return;
            status.show("");
            write_out(news);
        };
    run.on_progress = [&](const std::string& what) { status.show(what); };
    bench::Stop stop;
    const InterruptScope scope([&stop] { stop.request(); });
    const bench::Report report = options.offline ? bench::offline(run) : bench::run(run, stop);
    status.show("");
    if (table) write_out(printer.end(report));
    give(report, options);
    if (stop.requested()) return INTERRUPTED;
    const bool failed = std::any_of(report.kernels.begin(), report.kernels.end(),
                                    [](const bench::KernelRow& row) { return !row.failure.empty(); });
    return failed || !report.errors.empty() ? FAILED : OK;
}

int compare_reports(const Options& options) {
    std::vector<bench::Report> reports;
    for (const std::string& path : options.compare)
        reports.push_back(bench::report_from_json(read_file(path, 64u << 20), printable(path)));
    const bench::Comparison comparison = bench::compare(reports);
    write_out(bench::text_of(comparison, look_of(STDOUT_FILENO)));
    if (options.html) write_text(*options.html, bench::html(reports));
    return comparison.judged ? (comparison.regressions == 0 ? OK : FAILED) : UNJUDGED;
}

int bench_command(const Options& options) {
    if (options.schema) {
        write_out(bench::report_schema_json());
        return OK;
    }
    if (options.like_llama_bench) return like_llama_bench(options.llama);
    if (!options.compare.empty()) return compare_reports(options);
    return run_bench(options);
}

void add_llama_bench(CLI::App& app, Options& options) {
    const auto list = [&app](const char* name, std::vector<uint32_t>& values, const char* about) {
        app.add_option(name, values, about)->delimiter(',')->type_name("N,...")->capture_default_str();
    };
    add_flag(app, "--like-llama-bench", options.like_llama_bench,
             "Measure, and print, as llama.cpp's llama-bench does; the next five are for it");
    list("-p,--n-prompt", options.llama.prompts, "Prompts of so many tokens; 0: none");
    list("-n,--n-gen", options.llama.generated, "Generations of so many tokens; 0: none");
    list("-d,--n-depth", options.llama.depths, "Behind so many tokens");
    list("--parallel", options.llama.parallel, "Generations by so many sessions side by side");
    add_count(app, "-r,--repetitions", options.llama.repetitions, "How often each is measured");
}

} // namespace

Action prepare_bench(CLI::App& app) {
    auto options = std::make_shared<Options>();
    app.add_option("MODEL", options->llama.model.model,
                   "A model to measure, instead of a preset with weights out of a seed");
    app.add_option("--preset", options->preset,
                   "Shapes to measure (`fathom inspect --presets`, or v3-slice); else what suits the device")
        ->type_name("NAME");
    add_format(app, "--format", options->format, "Format of a preset's weights");
    app.add_option("--routing", options->routing, "Whether experts are chosen alike, or some far more often")
        ->check(CLI::IsMember({"uniform", "skewed"}))
        ->capture_default_str();
    add_count(app, "--seed", options->seed, "Of a preset's weights");
    add_loading(app, options->llama.model);
    app.add_option("--only", options->only, "Parts of the run")
        ->delimiter(',')
        ->check(CLI::IsMember({"roofs", "overheads", "kernels", "model"}));
    add_count(app, "--samples", options->samples, "Of everything that is timed; at least 10");
    add_count(app, "--seconds", options->seconds,
              "About how long a run may take; what would not fit is left out");
    add_text(app, "--json", options->llama.json, "FILE", "Write the report as JSON; - is standard output");
    add_text(app, "--html", options->html, "FILE", "Write the report, or the comparison, as a page");
    add_flag(app, "--markdown", options->markdown, "Print a line to paste, instead of tables");
    app.add_option("--compare", options->compare, "Compare reports with the first of them")
        ->type_name("FILE...");
    add_flag(app, "--offline", options->offline, "Only compile the kernels, and say what the compiler says");
    add_flag(app, "--schema", options->schema, "Print the JSON Schema of reports");
    add_llama_bench(app, *options);
    add_context(app, options->llama.model);
    return [options, &app] {
        for (const char* name : {"--format", "--routing", "--seed"})
            options->of_preset |= app.count(name) != 0;
        return bench_command(*options);
    };
}

} // namespace fathom::cli
