// The program: the command table, the options that come before a command, and the one place where errors
// become text on stderr and an exit code.
#include "base/error.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "session/engine.h"

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <map>
#include <memory>
#include <new>
#include <sstream>
#include <unistd.h>

namespace fathom::cli {

namespace {

constexpr Command commands[] = {
    {"run", "Continue one text",
     "Examples:\n"
     "  fathom run -p 'Once upon a time'\n"
     "  fathom run ~/models/DeepSeek-V2-Lite -p 'The capital of France is' --greedy -n 20\n"
     "  fathom run -f chapter1.txt -n 0 --seed 7 > chapter2.txt\n"
     "  echo 'def fibonacci(n):' | fathom run --routing --stats stats.json\n",
     prepare_run},
    {"chat", "Talk with a chat model",
     "Examples:\n"
     "  fathom chat ~/models/Moonlight-16B-A3B-Instruct\n"
     "  fathom chat MODEL --system 'Answer in one sentence.' --temp 0.3\n"
     "  fathom chat MODEL --chat-format deepseek-v3.1 --think\n"
     "  printf 'What is a latent?\\nAnd an expert?\\n' | fathom chat MODEL > answers.txt\n"
     "While it runs, /help lists what you can type; Ctrl-C stops an answer.\n",
     prepare_chat},
    {"render", "Show the exact prompt of a conversation",
     "Examples:\n"
     "  fathom render deepseek-v3.1 talk.json\n"
     "  fathom render ~/models/Kimi-K2-Instruct talk.json | fathom tokenize MODEL --special\n"
     "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' | fathom render deepseek-r1 -\n",
     prepare_render},
    {"devices", "List the Vulkan devices",
     "Examples:\n"
     "  fathom devices\n"
     "  fathom devices -v                   with what was found of each one's kernels\n"
     "  fathom run --device 1 -p 'Once'     the second device of the list\n"
     "  fathom run --device radeon -p 'Once' the first whose name contains it\n"
     "  fathom run --device cpu -p 'Once'   a software driver such as lavapipe\n",
     prepare_devices},
    {"inspect", "Say what a model consists of, without loading it",
     "Examples:\n"
     "  fathom inspect\n"
     "  fathom inspect ~/models/DeepSeek-V2-Lite\n"
     "  fathom inspect model.gguf\n"
     "  fathom inspect tokenizer.json       any one file of a model\n"
     "  fathom inspect v3\n"
     "  fathom inspect v3 --format q4_k --context 8192 --experts host\n"
     "  fathom inspect --presets\n"
     "With --device, --context, --quantize, --experts or --format it also says what loading would take\n"
     "of the device's memory, whether it fits, and what else would.\n",
     prepare_inspect},
    {"logits", "Write the logits of a token sequence to a file",
     "Examples:\n"
     "  fathom logits MODEL --tokens 0,671,6102 -o logits.safetensors\n"
     "  fathom logits MODEL --tokens 0,671,6102 --tap 'layers.0.*' -o all.safetensors\n",
     prepare_logits},
    {"convert", "Write a model as a GGUF file",
     "Examples:\n"
     "  fathom convert ~/models/DeepSeek-V2-Lite v2-lite.gguf\n"
     "  fathom convert FOLDER small.gguf --format f16\n"
     "MTP layers are left out. FP8 weights become what --format says.\n",
     prepare_convert},
    {"quantize", "Write a model as a GGUF file with fewer bits for each weight",
     "Examples:\n"
     "  fathom quantize ~/models/DeepSeek-V2-Lite v2-lite-q4_k.gguf --format q4_k\n"
     "  fathom quantize big.gguf small.gguf --format iq4_xs\n"
     "Norms, biases and routers stay f32; the output matrix has at least q6_k; rows that a format's\n"
     "blocks do not fill get the next wider format. mxfp4 is for experts, with q8_0 for the rest.\n",
     prepare_quantize},
    {"tokenize", "Show the tokens of a text",
     "Examples:\n"
     "  fathom tokenize fathom-tiny 'Once upon a time'\n"
     "  fathom tokenize ~/models/Kimi-K2-Instruct --special < prompt.txt\n"
     "  fathom tokenize model.gguf --bos --ids 'The capital of France is'\n"
     "  fathom tokenize tokenizer.json --jsonl < texts.jsonl > ids.jsonl\n",
     prepare_tokenize},
    {"detokenize", "Turn token ids back into text",
     "Examples:\n"
     "  fathom detokenize fathom-tiny 0,671,6102\n"
     "  fathom tokenize MODEL --ids < a.txt | fathom detokenize MODEL | cmp - a.txt\n"
     "  fathom detokenize tokenizer.json --jsonl < ids.jsonl > texts.jsonl\n",
     prepare_detokenize},
    {"perplexity", "Measure how well a model predicts a text",
     "Examples:\n"
     "  fathom perplexity ~/models/DeepSeek-V2-Lite wiki.test.raw\n"
     "  fathom perplexity fathom-tiny story.txt --window 256 --json figures.json\n",
     prepare_perplexity},
    {"compare", "Compare the predictions and the routing of two models",
     "Examples:\n"
     "  fathom compare ~/models/DeepSeek-V2-Lite v2-lite-q4_k.gguf wiki.test.raw --windows 20\n"
     "  fathom compare fathom-tiny other/ story.txt --json figures.json\n",
     prepare_compare},
    {"bench", "Measure a GPU on MoE and MLA: roofs, kernels, a model",
     "Examples:\n"
     "  fathom bench                             two minutes, without a download\n"
     "  fathom bench --preset v2-lite --format q8_0 --json run.json --html run.html\n"
     "  fathom bench --compare before.json after.json\n"
     "  fathom bench model.gguf --only kernels,model\n"
     "  fathom bench model.gguf --like-llama-bench -p 64,512 -n 64 -d 0,4096 -r 5\n"
     "  fathom bench --like-llama-bench -p 256 -n 32 --json - | jq '.[].avg_ts'\n"
     "A slice (v3-slice) runs as many layers as fit, and says what all would do. Comparisons end with 1 "
     "when\n"
     "something became slower, 3 when runs cannot be judged: noisy, throttled, or not of one device.\n"
     "As llama-bench does: each token that is generated is sampled too, which llama-bench leaves out.\n",
     prepare_bench},
    {"trace", "Show what a recording holds",
     "Examples:\n"
     "  fathom run -p 'Once upon a time' --trace once.ftrace\n"
     "  fathom trace once.ftrace\n"
     "  fathom trace once.ftrace --csv > choices.csv\n"
     "  fathom trace amd.ftrace --against nvidia.ftrace\n"
     "  fathom trace once.ftrace --json | jq -c '[.position, .margin]'\n",
     prepare_trace},
    {"view", "Watch a model think, in a window",
     "Examples:\n"
     "  fathom view                              write with the embedded model, and watch\n"
     "  fathom view ~/models/DeepSeek-V2-Lite\n"
     "  fathom view once.ftrace                  a recording of 'fathom run --trace'\n",
     prepare_view},
    {"serve", "The viewer in a browser, and OpenAI's API for the tools that people have",
     "Examples:\n"
     "  fathom serve ~/models/DeepSeek-V2-Lite-Chat\n"
     "  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": [{\"role\": \"user\", \"content\": "
     "\"Hi\"}]}'\n",
     prepare_serve},
};

constexpr const char* main_examples =
    "Examples:\n"
    "  fathom                     a story, and how its experts were used\n"
    "  fathom run -p 'Once upon'  continue a text\n"
    "  fathom run --help          what a command can do\n"
    "A MODEL is a folder as on Hugging Face, a GGUF file, or a name in its cache. Exit codes: 0 done,\n"
    "1 error, 2 wrong usage, 130 interrupted.\n";

int say_error(std::string_view text, int code) {
    fmt::print(stderr, "{} {}\n", Style::of(STDERR_FILENO).red("error:"), text);
    return code;
}

int usage_error(const CLI::App& app, const std::string& text) {
    const auto chosen = app.get_subcommands();
    const std::string command = chosen.empty() ? "" : " " + chosen.front()->get_name();
    return say_error(fmt::format("{}\n  fix: see fathom{} --help", text, command), USAGE);
}

// Runs `action` and turns whatever it throws into a message and an exit code.
int guarded(const CLI::App& app, const Action& action) {
    try {
        return action();
    } catch (const OutputClosed&) {
        return OK;
    } catch (const Cancelled&) {
        return say_error("interrupted", INTERRUPTED);
    } catch (const CLI::Error& error) {
        return usage_error(app, error.what());
    } catch (const UsageError& error) {
        return usage_error(app, error.what());
    } catch (const std::bad_alloc&) {
        return say_error("out of memory", FAILED);
    } catch (const std::logic_error& error) {
        return say_error(fmt::format("a bug in Fathom, please report it: {}", error.what()), FAILED);
    } catch (const std::exception& error) {
        return say_error(error.what(), FAILED);
    }
}

// Help without "Excludes: ..." behind the names: who breaks that rule is told.
class HelpText : public CLI::Formatter {
    std::string make_option_opts(const CLI::Option* option) const override {
        std::string out = option->get_type_name().empty() ? "" : " " + option->get_type_name();
        if (!option->get_default_str().empty()) out += "=" + option->get_default_str();
        return out;
    }
};

// Options before a command belong to the story; with a command they would be silently lost.
void refuse_stray_options(const CLI::App& app) {
    if (app.get_subcommands().empty()) return;
    for (const CLI::Option* option : app.get_options())
        if (option->count() > 0 && option->get_name() != "--quiet" && option->get_name() != "--verbose")
            throw UsageError(option->get_name() + ": options of a command come after its name");
}

int parse_and_run(int argc, char** argv) {
    CLI::App app("Fathom runs DeepSeek-family language models on any Vulkan device, and shows what they do.\n"
                 "Without a command it writes a story with the embedded model.",
                 "fathom");
    app.footer(main_examples);
    app.formatter(std::make_shared<HelpText>()); // before the commands are added: they inherit it
    app.require_subcommand(0, 1);
    add_verbosity(app);
    app.set_version_flag("--version", version_text);
    std::map<const CLI::App*, Action> actions;
    actions[&app] = prepare_story(app);
    for (const Command& command : commands) {
        CLI::App* sub = app.add_subcommand(command.name, command.about);
        sub->footer(command.examples);
        add_verbosity(*sub);
        actions[sub] = command.prepare(*sub);
    }
    return guarded(app, [&] {
        try {
            app.parse(argc, argv);
            refuse_stray_options(app);
        } catch (const CLI::Success& success) { // --help, --version
            std::ostringstream text;
            app.exit(success, text, text);
            write_out(text.str());
            return OK;
        }
        const auto chosen = app.get_subcommands();
        return actions.at(chosen.empty() ? &app : chosen.front())();
    });
}

// A closed standard stream would let the next opened file, a driver's perhaps, take its number and be written
// into.
void open_standard_streams() {
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY) != fd)
            std::abort();
}

} // namespace

} // namespace fathom::cli

int main(int argc, char** argv) {
    using namespace fathom::cli;
    open_standard_streams();
    std::signal(SIGPIPE, SIG_IGN); // a closed pipe and a file over the size limit are errors of the write
    std::signal(SIGXFSZ, SIG_IGN);
    install_interrupts();
    return parse_and_run(argc, argv);
}
