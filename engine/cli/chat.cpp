// `fathom chat`: a conversation with a model that knows a chat format. The session holds the whole
// conversation as tokens; a turn is appended to it, never encoded again, so that what was said stays exactly
// what the model saw. Answers go to stdout; with a terminal on both ends the prompts and notes do too,
// otherwise notes go to stderr.
#include "text/chat.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/files.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

#include <algorithm>
#include <fmt/format.h>
#include <memory>
#include <unistd.h>

namespace fathom::cli {

namespace {

struct Options {
    ModelOptions model;
    SamplingOptions sampling;
    std::optional<std::string> system;
    uint32_t max_tokens = 0;
};

constexpr const char* help =
    "  /undo         forget the last question and its answer\n"
    "  /reset        forget the whole conversation\n"
    "  /system TEXT  begin anew with this instruction\n"
    "  /temp N       how freely to choose words: 0 always the likeliest\n"
    "  /save FILE    keep the conversation; /load FILE takes it up again\n"
    "  /quit         leave; Ctrl-C stops an answer, and twice at the prompt leaves\n";

class Conversation {
  public:
    Conversation(const LoadedModel& model, const Options& options)
        : model_(model), session_(model.engine->open()), format_(ChatFormat::named("deepseek-v3")),
          stops_(format_.stop_tokens(model.tokenizer)), max_tokens_(options.max_tokens),
          system_(options.system.value_or("")) {
        session_.sampling() = with_known_tokens(options.sampling.resolve(), model);
        for (const Token token : model.config().eos)
            if (std::find(stops_.begin(), stops_.end(), token) == stops_.end()) stops_.push_back(token);
    }

    Generated ask(const std::string& question) {
        const uint32_t start = session_.position();
        const std::vector<Token> turn = encode_turn(question);
        turns_.push_back(start);
        try {
            const Generated answer = generate(session_, model_, turn,
                                              {.max_tokens = max_tokens_, .stops = stops_}, write_generated);
            if (session_.position() == start) turns_.pop_back(); // interrupted before anything was added
            return answer;
        } catch (const std::exception&) {
            turns_.pop_back();
            throw;
        }
    }

    bool undo() {
        if (turns_.empty()) return false;
        session_.rewind(turns_.back());
        turns_.pop_back();
        return true;
    }

    void reset() {
        session_.rewind(0);
        turns_.clear();
    }
    void reset(std::string system) {
        system_ = std::move(system);
        reset();
    }

    void save(const std::filesystem::path& path) const { session_.save(path); }

    // Takes up a saved conversation; its turns are found by the token that begins a question.
    void load(const std::filesystem::path& path) {
        const SamplingParams sampling = session_.sampling(); // what is set here stays set
        session_.load(path);
        session_.sampling() = sampling;
        turns_.clear();
        const std::vector<Token>& tokens = session_.tokens();
        const Token question = empty_turn().at(1);
        for (uint32_t i = 0; i < tokens.size(); ++i)
            if (tokens[i] == question) turns_.push_back(turns_.empty() ? 0 : i);
    }

    std::string last_answer() const {
        const std::vector<Token>& tokens = session_.tokens();
        const auto start = std::find(tokens.rbegin(), tokens.rend(), empty_turn().back()).base();
        const auto is_stop = [this](Token token) {
            return std::find(stops_.begin(), stops_.end(), token) != stops_.end();
        };
        const auto end = std::find_if(start, tokens.end(), is_stop);
        return start == tokens.begin() ? "" : model_.tokenizer.decode({start, end});
    }

    uint32_t position() const { return session_.position(); }
    size_t turns() const { return turns_.size(); }
    SamplingParams& sampling() { return session_.sampling(); }

  private:
    using Role = ChatMessage::Role;

    std::vector<Token> encode(std::vector<ChatMessage> messages) const {
        return format_.encode({.messages = std::move(messages), .generate = true}, model_.tokenizer);
    }

    // The tokens to append for `question`: with BOS and system text at the start of a conversation, later
    // with the end of an answer that was cut short.
    std::vector<Token> encode_turn(const std::string& question) const {
        if (session_.position() == 0) {
            std::vector<ChatMessage> messages;
            if (!system_.empty()) messages.push_back({.role = Role::system, .content = system_});
            messages.push_back({.role = Role::user, .content = question});
            return encode(std::move(messages));
        }
        std::vector<Token> tokens = encode({{.role = Role::user, .content = question}});
        tokens.front() = stops_.front(); // in the place of BOS
        if (std::find(stops_.begin(), stops_.end(), session_.tokens().back()) != stops_.end())
            tokens.erase(tokens.begin());
        return tokens;
    }

    // BOS, the token that begins a question, the one that begins an answer.
    std::vector<Token> empty_turn() const { return encode({{.role = Role::user, .content = ""}}); }

    const LoadedModel& model_;
    Session session_;
    const ChatFormat& format_;
    std::vector<Token> stops_;
    uint32_t max_tokens_;
    std::string system_;
    std::vector<uint32_t> turns_; // position where each begins
};

// The person (or the pipe) that talks.
class Desk {
  public:
    Desk(const LoadedModel& model, const Options& options)
        : model_(model), chat_(model, options), style_(Style::of(STDOUT_FILENO)) {}

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
        const Generated answer = chat_.ask(question);
        if (answer.text.empty() || answer.text.back() != '\n') write_out("\n");
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
    Conversation chat_;
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
    const LoadedModel model = load_model(options.model);
    return Desk(model, options).run();
}

} // namespace

Action prepare_chat(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_model(app, options->model);
    add_text(app, "--system", options->system, "TEXT", "An instruction that comes before the conversation");
    add_count(app, "-n,--max-tokens", options->max_tokens, "Longest answer in tokens; 0: until it ends");
    add_sampling(app, options->sampling);
    add_context(app, options->model);
    add_device(app, options->model);
    return [options] { return chat(*options); };
}

} // namespace fathom::cli
