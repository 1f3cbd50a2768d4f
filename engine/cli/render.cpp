// `fathom render`: a conversation as the exact prompt of a chat format.
#include "base/error.h"
#include "cli/command.h"
#include "cli/files.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "session/model_chat.h"

#include <CLI/CLI.hpp>
#include <memory>

namespace fathom::cli {

namespace {

struct Options {
    std::string model_or_format;
    std::filesystem::path file;
};

const ChatFormat& choose(const std::string& model_or_format) {
    if (const ChatFormat* format = ChatFormat::find(model_or_format)) return *format;
    return find_chat_format(open_model(model_named(model_or_format), true));
}

int render(const Options& options) {
    const ChatFormat& format = choose(options.model_or_format);
    const bool piped = options.file == "-";
    const std::string text = piped ? read_stdin() : read_text(options.file);
    const std::string where = piped ? "standard input" : printable(options.file.string(), 4096);
    write_out(format.render(parse_conversation(text, where)));
    return OK;
}

} // namespace

Action prepare_render(CLI::App& app) {
    auto options = std::make_shared<Options>();
    app.add_option("MODEL_OR_FORMAT", options->model_or_format,
                   "A model, whose chat template says the format, or one of " + ChatFormat::names())
        ->type_name("")
        ->required();
    app.add_option("FILE", options->file,
                   "The conversation: JSON like an OpenAI request, {\"messages\": [...]}, with \"tools\", "
                   "\"add_generation_prompt\" and \"thinking\" where wanted; - is standard input")
        ->type_name("")
        ->required();
    return [options] { return render(*options); };
}

} // namespace fathom::cli
