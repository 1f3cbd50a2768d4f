// `fathom chat`: a conversation with a model that knows a chat format. Answers go to stdout; with a terminal
// on both ends the prompts, the notes and a model's reasoning do too, otherwise these go to stderr.
#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/files.h"
#include "cli/interrupt.h"
#include "cli/talk.h"
#include "cli/terminal.h"
#include "session/model_chat.h"

#include <algorithm>
#include <fmt/format.h>
#include <memory>
#include <unistd.h>

namespace fathom::cli {

namespace {

struct Options {
    ModelOptions model;
    SamplingOptions sampling;
    std::optional<std::string> system, format;
    uint32_t max_tokens = 0;
    bool think = false, no_think = false;
};

constexpr const char* help =
    "  /undo         forget the last question and its answer\n"
    "  /reset        forget the whole conversation\n"
    "  /system TEXT  begin anew with this instruction\n"
    "  /temp N       how freely to choose words: 0 always the likeliest\n"
    "  /save FILE    keep the conversation; /load FILE takes it up again\n"
    "  /quit         leave; Ctrl-C stops an answer, and twice at the prompt leaves\n";

// The person (or the pipe) that talks.
class Desk {
  public:
    Desk(const LoadedModel& model, const ChatFormat& format, TalkOptions options)
        : model_(model), chat_(model, format, std::move(options)), style_(Style::of(STDOUT_FILENO)) {}

    int run() {
        const InterruptScope stay; // a Ctrl-C between question and answer must not end the program
        note(fmt::format("{} on {}, {} tokens of context. /help lists what you can type.", model_.files.name,
                         model_.engine->device_name(), model_.engine->context()));
        for (bool warned = false;;) {
            const Line line = reader_.read(style_.bold("> "));
            if (line.kind == Line::Kind::end ||
                (line.kind == Line::Kind::interrupted && (warned || !interactive()))) {
                if (interactive()) write_out("\n");
                return line.kind == Line::Kind::interrupted ? INTERRUPTED : failed_ ? FAILED : OK;
            }
            warned = line.kind == Line::Kind::interrupted;
            if (warned) {
                write_out("\n");
                note("Ctrl-C again, or /quit, leaves.");
                continue;
            }
            if (line.text.empty()) continue;
            try {
                if (!obey(line.text)) return failed_ ? FAILED : OK;
            } catch (const Error& error) {
                complain(error.what());
            }
        }
    }

  private:
    bool interactive() const { return reader_.interactive(); }

    void note(const std::string& text) {
        if (interactive())
            write_out(style_.dim(text) + "\n");
        else
            log::info("{}", text);
    }
    // A script must learn that a command of its failed; a person has read it.
    void complain(std::string_view text) {
        failed_ = failed_ || !interactive();
        fmt::print(stderr, "{} {}\n", Style::of(STDERR_FILENO).red("error:"), text);
    }

    void show_reasoning(const std::string& text) {
        if (interactive())
            write_out(style_.dim(without_controls(text)));
        else if (log::enabled(log::Level::info))
            fmt::print(stderr, "{}", without_controls(text));
    }

    // False to leave.
    bool obey(const std::string& line) {
        if (!line.starts_with('/')) return answer(line);
        const size_t space = std::min(line.find(' '), line.size());
        const std::string command = line.substr(0, space);
        const std::string rest = line.substr(std::min(line.find_first_not_of(' ', space), line.size()));
        if (command == "/quit" || command == "/exit") return false;
        if (command == "/help")
            note(help);
        else if (command == "/undo")
            note(chat_.undo() ? "The last question and answer are forgotten." : "Nothing to undo.");
        else if (command == "/reset") {
            chat_.reset();
            note("The conversation is forgotten.");
        } else if (command == "/system") {
            chat_.reset(rest);
            note(rest.empty() ? "A new conversation, without instruction."
                              : "A new conversation, with this instruction.");
        } else if (command == "/temp")
            set_temperature(rest);
        else if (command == "/save" || command == "/load")
            file(command, rest);
        else
            throw Error(
                {.what = "there is no such command", .got = printable(command), .fix = "/help lists them"});
        return true;
    }

    void set_temperature(std::string_view text) {
        const auto value = parse_number(text, 0, 100);
        if (!value)
            throw Error({.what = "/temp needs a number",
                         .expected = "0 to 100",
                         .got = printable(text),
                         .fix = "such as /temp 0.7"});
        chat_.sampling().temperature = static_cast<float>(*value);
        note(fmt::format("The temperature is {:g}.", *value));
    }

    void file(const std::string& command, const std::string& name) {
        if (name.empty())
            throw Error({.what = command + " needs a file", .fix = "such as " + command + " talk.session"});
        const auto path = expand_home(name);
        if (command == "/save") {
            chat_.save(path);
            note(fmt::format("Saved {} tokens to {}.", chat_.position(), path.string()));
        } else {
            chat_.load(path);
            note(fmt::format("Loaded {} questions, {} tokens. The last answer was:", chat_.turns(),
                             chat_.position()));
            note(without_controls(chat_.last_answer()));
        }
    }

    bool answer(const std::string& question) {
        bool reasoning = false;
        std::string last; // what was written last
        const Generated answer = chat_.ask(question, [&](const ReasoningStream::Part& part) {
            if (reasoning && !part.reasoning && interactive() && !last.ends_with('\n')) write_out("\n");
            reasoning = part.reasoning;
            part.reasoning ? show_reasoning(part.text) : write_generated(part.text);
            if (!part.reasoning || interactive()) last = part.text;
        });
        if (!last.ends_with('\n')) write_out("\n");
        if (answer.end == End::interrupted) {
            note("(stopped)");
            if (!interactive()) throw Cancelled{};
        }
        if (answer.end == End::context_full)
            note("(the context is full: /undo, /reset, or start with a larger --context)");
        if (interactive())
            note(fmt::format("{}, {} of {} in the context", speed_text(answer), chat_.position(),
                             model_.engine->context()));
        return true;
    }

    const LoadedModel& model_;
    Talk chat_;
    Style style_;
    LineReader reader_;
    bool failed_ = false;
};

int chat(const Options& options) {
    if (options.model.model.empty())
        throw Error({.what = "the embedded model cannot chat",
                     .got = "a small model that only continues text",
                     .fix = "run 'fathom' to write stories with it, or give the folder of a chat model: "
                            "fathom chat MODEL"});
    if (options.think && options.no_think) throw UsageError("--think and --no-think exclude each other");
    const ChatFormat* format = options.format ? &ChatFormat::named(*options.format) : nullptr;
    const LoadedModel model = load_model(options.model);
    if (!format) format = &find_chat_format(model.files);
    std::optional<bool> thinking;
    if (options.think || options.no_think) thinking = options.think;
    return Desk(model, *format,
                {.sampling = with_known_tokens(options.sampling.resolve(), model),
                 .max_tokens = options.max_tokens,
                 .system = options.system.value_or(""),
                 .thinking = thinking})
        .run();
}

} // namespace

Action prepare_chat(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_model(app, options->model);
    add_text(app, "--system", options->system, "TEXT", "An instruction that comes before the conversation");
    add_text(app, "--chat-format", options->format, "NAME",
             "How conversations are written; default: what the model's chat template says");
    add_flag(app, "--think", options->think, "Let the model reason before it answers");
    add_flag(app, "--no-think", options->no_think, "Let it answer at once");
    add_count(app, "-n,--max-tokens", options->max_tokens, "Longest answer in tokens; 0: until it ends");
    add_sampling(app, options->sampling);
    add_context(app, options->model);
    add_loading(app, options->model);
    return [options] { return chat(*options); };
}

} // namespace fathom::cli
