// `fathom convert` and `fathom quantize`: a model as one GGUF file. The two differ in the number formats they
// offer. Needs no GPU.
#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "model/gguf_export.h"

#include <CLI/CLI.hpp>
#include <cctype>
#include <fmt/format.h>
#include <memory>

namespace fathom::cli {

namespace {

constexpr DType PLAIN[] = {DType::bf16, DType::f16, DType::f32};
constexpr DType QUANTISED[] = {DType::q8_0,   DType::q4_0,   DType::q4_1, DType::q5_0, DType::q5_1,
                               DType::q2_k,   DType::q3_k,   DType::q4_k, DType::q5_k, DType::q6_k,
                               DType::iq4_nl, DType::iq4_xs, DType::mxfp4};

struct Options {
    std::filesystem::path model, output;
    std::string format;
};

std::string lower_name(DType dtype) {
    std::string name(name_of(dtype));
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return name;
}

DType find_format(std::span<const DType> offered, const std::string& name) {
    std::string names;
    for (const DType dtype : offered) {
        if (lower_name(dtype) == name) return dtype;
        names += (names.empty() ? "" : ", ") + lower_name(dtype);
    }
    throw UsageError(fmt::format("--format: '{}' is none of {}", name, names));
}

int write_model(const Options& options, std::span<const DType> offered) {
    const DType format = find_format(offered, options.format);
    const ModelFiles files = open_model(options.model);
    ProgressBar bar("Writing " + printable(options.output.filename().string()),
                    log::enabled(log::Level::info));
    const InterruptScope scope; // the file is written whole or not at all
    export_gguf(files, options.output, format, [&](uint64_t done, uint64_t total) {
        if (scope.interrupted()) throw Cancelled();
        bar.update(done, total);
    });
    return OK;
}

Action prepare(CLI::App& app, const char* input, std::string format, std::span<const DType> offered) {
    auto options = std::make_shared<Options>();
    options->format = std::move(format);
    app.add_option_function<std::string>(
           "MODEL", [options](const std::string& text) { options->model = text; }, input)
        ->type_name("")
        ->required();
    app.add_option("OUT", options->output, "The GGUF file to write")->type_name("")->required();
    std::string names;
    for (const DType dtype : offered) names += (names.empty() ? "" : ", ") + lower_name(dtype);
    auto* option = app.add_option("--format", options->format, "Of the matrices: " + names)->type_name("F");
    if (options->format.empty())
        option->required();
    else
        option->capture_default_str();
    return [options, offered] { return write_model(*options, offered); };
}

} // namespace

Action prepare_convert(CLI::App& app) {
    return prepare(app, "Folder with config.json, safetensors and tokenizer.json, or a GGUF file", "bf16",
                   PLAIN);
}

Action prepare_quantize(CLI::App& app) {
    return prepare(app, "A folder as on Hugging Face, or a GGUF file", "", QUANTISED);
}

} // namespace fathom::cli
