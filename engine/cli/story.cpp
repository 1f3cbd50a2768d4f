// `fathom` without a command: the embedded model writes. In a terminal a person begins a text and steers it;
// otherwise a sample story goes to stdout, and after it how its experts were used. The embedded model only
// continues text. Where there is no display, a browser can watch and write, too.
#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/page_files.h"
#include "cli/serving.h"
#include "cli/terminal.h"

#include <array>
#include <cstdlib>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <thread>
#include <unistd.h>

namespace fathom::cli {

namespace {

struct Options {
    ModelOptions model;
    SamplingOptions sampling{.params = {.temperature = 0.5f, .top_p = 0.95f}}; // it rambles above
    uint32_t max_tokens = 200;
};

// What the embedded model knows: stories, then the other things it has read.
constexpr std::array<std::string_view, 5> beginnings = {
    "Once upon a time, there was a little girl named Lily. She loved to",
    "One day, a brave dog found a shiny key in the garden.",
    "The old man looked at the sea and",
    "def is_even(n):",
    "Il était une fois",
};
constexpr uint64_t sample_seed = 1; // the sample is the same story each time, on one device

constexpr const char* help =
    "  a line of text   is added to the story, and the model goes on from there\n"
    "  Enter, /more     go on\n"
    "  /undo            take back the last piece (going on again then writes another one)\n"
    "  /temp N          how freely to choose words: 0 always the likeliest, 1 as learnt\n"
    "  /experts         how the experts were used in this story\n"
    "  /new             begin another story\n"
    "  /quit            leave; Ctrl-C stops a piece, and leaves when pressed at the prompt\n";

class Story {
  public:
    Story(const LoadedModel& model, const Options& options)
        : model_(model), session_(model.engine->open()), routing_(model.engine->trace_shape()),
          max_tokens_(options.max_tokens) {
        session_.sampling() = with_known_tokens(options.sampling.resolve(), model);
        restart();
    }

    void restart() {
        session_.rewind(0);
        (void)session_.take_records();
        routing_.clear();
        pieces_.clear();
        ended_ = false;
    }

    // Adds `text` and lets the model go on. Both are shown when `echo`, else only what the model writes.
    Generated go_on(std::string text, bool echo) {
        const uint32_t start = session_.position();
        pieces_.push_back({start, "", routing_});
        std::vector<Token> prompt;
        if (session_.position() == 0 && model_.bos()) prompt.push_back(*model_.bos());
        const std::vector<Token> tokens = model_.tokenizer.encode(text, Added::none);
        prompt.insert(prompt.end(), tokens.begin(), tokens.end());
        if (echo) write_out(Style::of(STDOUT_FILENO).bold(text));
        Generated generated;
        try {
            generated =
                generate(session_, model_, prompt,
                         {.max_tokens = max_tokens_, .stops = model_.config().eos, .routing = &routing_},
                         write_generated);
        } catch (const std::exception&) {
            pieces_.pop_back();
            throw;
        }
        if (session_.position() == start)
            pieces_.pop_back(); // interrupted before anything was added
        else
            pieces_.back().text = text + generated.text;
        ended_ = generated.end == End::stop_token;
        return generated;
    }

    // Takes the last piece back; false when there is none.
    bool undo() {
        if (pieces_.empty()) return false;
        session_.rewind(pieces_.back().start);
        routing_ = std::move(pieces_.back().routing);
        pieces_.pop_back();
        ++session_.sampling().seed; // or going on would write the same words again
        ended_ = false;
        return true;
    }

    std::string text() const {
        std::string out;
        for (const Piece& piece : pieces_) out += piece.text;
        return out;
    }
    bool ended() const { return ended_; }
    bool empty() const { return pieces_.empty(); }
    RoutingSummary& routing() { return routing_; }
    SamplingParams& sampling() { return session_.sampling(); }

  private:
    struct Piece {
        uint32_t start; // tokens before it
        std::string text;
        RoutingSummary routing; // before it
    };
    const LoadedModel& model_;
    Session session_;
    RoutingSummary routing_;
    uint32_t max_tokens_;
    std::vector<Piece> pieces_;
    bool ended_ = false;
};

std::string table(RoutingSummary& routing) {
    return routing.table(Style::of(STDOUT_FILENO), terminal_width(STDOUT_FILENO));
}

int sample(const LoadedModel& model, const Options& options) {
    Story story(model, options);
    const bool quiet = !log::enabled(log::Level::info);
    const Generated generated = story.go_on(std::string(beginnings[0]), true);
    write_out("\n");
    if (generated.end == End::interrupted) {
        fmt::print(stderr, "interrupted\n");
        return INTERRUPTED;
    }
    if (!quiet) {
        write_out("\n" + table(story.routing()));
        log::info("{} on {}; 'fathom run -p TEXT' continues your own text, 'fathom --help' lists the rest",
                  speed_text(generated), model.engine->device_name());
    }
    return OK;
}

// The conversation with the person at the terminal.
class Desk {
  public:
    Desk(const LoadedModel& model, const Options& options)
        : model_(model), story_(model, options), style_(Style::of(STDOUT_FILENO)) {}

    int run() {
        const ModelConfig& config = model_.config();
        say(fmt::format(
            "{} on {}: {} layers, {} experts in each but the first, {} of them for each token.\n"
            "It continues text: stories best, a little Python, French, arithmetic and drama. /help lists "
            "what you can type.\n",
            model_.files.name, model_.engine->device_name(), config.n_layers, config.n_routed_experts,
            config.n_active_experts));
        for (;;) {
            const Line line = reader_.read(prompt());
            if (line.kind != Line::Kind::text) {
                write_out("\n");
                return OK;
            }
            try {
                if (!obey(line.text)) return OK;
            } catch (const Error& error) {
                write_out(fmt::format("{} {}\n", style_.red("error:"), error.what()));
            }
        }
    }

  private:
    void say(std::string_view text) { write_out(style_.dim(text)); }

    std::string prompt() const {
        if (!story_.empty()) return style_.bold(story_.ended() ? "new> " : "more> ");
        return fmt::format("\nHow does it begin? {}\n{}",
                           style_.dim(fmt::format("(Enter: \"{}\")", sample_text())), style_.bold("begin> "));
    }
    std::string_view sample_text() const { return beginnings[next_sample_ % beginnings.size()]; }

    // False to leave.
    bool obey(const std::string& line) {
        if (line == "/quit" || line == "/exit") return false;
        if (line == "/help")
            say(help);
        else if (line == "/new")
            story_.restart();
        else if (line == "/undo")
            undo();
        else if (line == "/experts")
            write_out(story_.empty() ? "Nothing is written yet.\n" : table(story_.routing()));
        else if (line.starts_with("/temp"))
            set_temperature(line.substr(5));
        else if (line.starts_with("/") && line != "/more")
            say("There is no such command; /help lists them.\n");
        else
            go_on(line == "/more" ? "" : line);
        return true;
    }

    void undo() {
        if (!story_.undo()) return say("There is nothing to take back.\n");
        if (!story_.empty()) write_out(without_controls(story_.text()) + "\n");
    }

    void set_temperature(std::string_view text) {
        const size_t start = text.find_first_not_of(' ');
        const auto value = parse_number(start == text.npos ? "" : text.substr(start), 0, 100);
        if (value) story_.sampling().temperature = static_cast<float>(*value);
        say(fmt::format("{}The temperature is {:g}.\n",
                        value ? "" : "Write /temp and a number, such as /temp 0.8. ",
                        story_.sampling().temperature));
    }

    void go_on(std::string text) {
        if (story_.ended()) story_.restart();
        const bool first = story_.empty();
        if (first && text.empty()) {
            text = sample_text();
            ++next_sample_;
        }
        if (!first && !text.empty() && !story_.text().ends_with('\n')) text.insert(0, " ");
        const Generated generated = story_.go_on(text, true);
        write_out("\n");
        if (generated.end == End::context_full)
            say("The model's context is full: /undo, or /new for another story.\n");
        if (story_.ended()) say("The end. Type a beginning for another one, or press Enter.\n");
        if (log::enabled(log::Level::info)) {
            say(fmt::format("{}; {}{}\n", speed_text(generated), story_.routing().line(),
                            shown_ ? " (/experts)" : ""));
            if (!shown_) write_out("\n" + table(story_.routing()));
        }
        shown_ = true;
    }

    const LoadedModel& model_;
    Story story_;
    Style style_;
    LineReader reader_;
    size_t next_sample_ = 0;
    bool shown_ = false; // the table, once; later it has to be asked for
};

bool has_display() {
    const auto is_set = [](const char* name) {
        const char* value = std::getenv(name);
        return value && *value;
    };
    return is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
}

// The model for browsers too, where no window can be opened: on the usual port, or on any that is free.
class Beside {
  public:
    explicit Beside(const LoadedModel& model) {
        options_.cache_tokens = model.engine->context();
        options_.server.http.signals = false; // Ctrl-C is the story's
        options_.server.http.grace_seconds = 0;
        try {
            server_ = make_server(model, options_);
        } catch (const Error&) {
            options_.server.http.port = 0;
            server_ = make_server(model, options_);
        }
        thread_ = std::thread([this] { server_->run(); });
    }
    ~Beside() {
        server_->stop();
        thread_.join();
    }
    Beside(const Beside&) = delete;
    std::string url() const { return url_of(*server_, options_); }

  private:
    ServeOptions options_;
    std::unique_ptr<server::Server> server_;
    std::thread thread_;
};

int story(Options options) {
    const bool interactive = is_terminal(STDIN_FILENO) && is_terminal(STDOUT_FILENO);
    if (!interactive && !options.sampling.seed) options.sampling.seed = sample_seed;
    const bool serves = interactive && !has_display();
    options.model.spare_contexts = serves ? 1 : 0;
    const LoadedModel model = load_model(options.model);
    if (!interactive) return sample(model, options);
    std::optional<Beside> beside;
    if (serves) {
        beside.emplace(model);
        fmt::print("In a browser: {}{}\n", beside->url(),
                   packed_page().empty() ? " (the API alone: ./fathom serve builds the viewer's page)" : "");
    }
    return Desk(model, options).run();
}

} // namespace

Action prepare_story(CLI::App& app) {
    auto options = std::make_shared<Options>();
    add_count(app, "-n,--max-tokens", options->max_tokens,
              "Write at most N tokens at once; 0: to the end of the text");
    add_sampling(app, options->sampling);
    add_context(app, options->model);
    add_loading(app, options->model);
    return [options] { return story(*options); };
}

} // namespace fathom::cli
