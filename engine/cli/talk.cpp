// See talk.h. A turn to append is cut from the prompt of a longer conversation: what comes after the stop
// that ends an answer before it.
#include "cli/talk.h"

#include "base/error.h"

#include <algorithm>
#include <utility>

namespace fathom::cli {

namespace {

using Role = ChatMessage::Role;

void add(std::vector<ChatMessage>& messages, Role role, std::string text) {
    messages.push_back({.role = role, .content = std::move(text)});
}

void add_exchange(std::vector<ChatMessage>& messages, const std::string& question,
                  const std::string& answer) {
    add(messages, Role::user, question);
    add(messages, Role::assistant, answer);
}

} // namespace

Talk::Talk(const LoadedModel& model, const ChatFormat& format, TalkOptions options)
    : model_(model), session_(model.engine->open()), format_(format), options_(std::move(options)),
      stops_(format.stop_tokens(model.tokenizer)) {
    session_.sampling() = options_.sampling;
    for (const Token token : model.config().eos)
        if (!is_stop(token)) stops_.push_back(token);
    plan(""); // its errors should not wait for a question
}

Generated Talk::ask(const std::string& question,
                    const std::function<void(const ReasoningStream::Part&)>& sink) {
    const Plan plan = this->plan(question);
    const std::vector<Token>& held = session_.tokens();
    const auto end = plan.tokens.end() - 1; // at least one token must be fed
    const auto [fresh, differs] =
        std::mismatch(plan.tokens.begin(), end, held.begin() + plan.from, held.end());
    std::optional<Session> before;
    if (differs != held.end()) {
        before = session_.fork();
        session_.rewind(static_cast<uint32_t>(differs - held.begin()));
    }
    const uint32_t start = session_.position();
    const auto restore = [&] {
        if (before)
            session_ = std::move(*before);
        else
            session_.rewind(start);
    };
    Exchange exchange{.question = question, .answer = ""};
    try {
        const Generated answer = generate_answer({fresh, plan.tokens.end()}, exchange, sink);
        if (session_.position() == start) { // interrupted before anything was added
            restore();
            return answer;
        }
        turns_.push_back(plan.turn);
        last_ = std::move(exchange);
        return answer;
    } catch (const Error&) {
        restore();
        throw;
    }
}

Generated Talk::generate_answer(std::span<const Token> tokens, Exchange& exchange,
                                const std::function<void(const ReasoningStream::Part&)>& sink) {
    ReasoningStream stream(opens_reasoning());
    exchange.thought = opens_reasoning();
    const auto take = [&](const std::vector<ReasoningStream::Part>& parts) {
        for (const ReasoningStream::Part& part : parts) {
            exchange.thought |= part.reasoning;
            if (!part.reasoning) exchange.answer += part.text;
            sink(part);
        }
    };
    const bool whole = format_.thinking == ChatFormat::Thinking::never;
    const Generated answer = generate(
        session_, model_, tokens, {.max_tokens = options_.max_tokens, .stops = stops_},
        [&](std::string_view text) {
            take(whole ? std::vector<ReasoningStream::Part>{{false, std::string(text)}} : stream.push(text));
        });
    take(stream.finish());
    return answer;
}

bool Talk::undo() {
    if (turns_.empty()) return false;
    session_.rewind(turns_.back());
    turns_.pop_back();
    last_ = {};
    return true;
}

void Talk::reset() {
    session_.rewind(0);
    turns_.clear();
    last_ = {};
}

void Talk::reset(std::string system) {
    options_.system = std::move(system);
    reset();
}

// Turns are found by the mark that begins a question or, in a format whose marks are text, by the stop that
// ends the answer before.
void Talk::load(const std::filesystem::path& path) {
    const SamplingParams sampling = session_.sampling();
    session_.load(path);
    session_.sampling() = sampling;
    turns_.clear();
    last_ = {};
    const std::vector<Token>& tokens = session_.tokens();
    std::vector<ChatMessage> messages;
    add_exchange(messages, "", "");
    const size_t past = stops_in(messages);
    add(messages, Role::user, "");
    const std::vector<Token> longer = encode(messages, true);
    const Token question = longer[after_stops(longer, past)];
    const bool marked = !format_.stop_is_next && model_.tokenizer.is_added(question);
    size_t passed = 0; // stops; the first question's own mark may be one
    if (!marked && !tokens.empty()) turns_.push_back(0);
    for (uint32_t i = 0; i < tokens.size(); ++i)
        if (marked && tokens[i] == question)
            turns_.push_back(turns_.empty() ? 0 : i);
        else if (!marked && tokens[i] == stops_.front() && i + 1 < tokens.size() &&
                 passed++ >= size_t{format_.stop_is_next})
            turns_.push_back(i + 1);
}

std::string Talk::last_answer() const {
    const std::vector<Token> one = encode({{.role = Role::user, .content = "a"}}, true),
                             other = encode({{.role = Role::user, .content = "b"}}, true);
    const auto differs = std::mismatch(one.rbegin(), one.rend(), other.rbegin(), other.rend()).first;
    const std::vector<Token> opening(differs.base(), one.end()); // of an answer
    const std::vector<Token>& tokens = session_.tokens();
    const auto found = std::find_end(tokens.begin(), tokens.end(), opening.begin(), opening.end());
    if (found == tokens.end()) return "";
    const auto start = found + static_cast<std::ptrdiff_t>(opening.size());
    const auto end = std::find_if(start, tokens.end(), [this](Token token) { return is_stop(token); });
    const std::string text = model_.tokenizer.decode({start, end});
    if (format_.thinking == ChatFormat::Thinking::never) return text;
    ReasoningStream stream(opens_reasoning());
    std::string answer;
    for (const auto& parts : {stream.push(text), stream.finish()})
        for (const ReasoningStream::Part& part : parts)
            if (!part.reasoning) answer += part.text;
    return answer;
}

Talk::Plan Talk::plan(const std::string& question) const {
    const bool anew = last_.thought && !turns_.empty();
    uint32_t from = anew ? turns_.back() : session_.position();
    std::vector<ChatMessage> messages = opening();
    size_t past = 0, answered = 0; // stops before `from`, and before the question
    if (from > 0) {
        add_exchange(messages, "", "");
        past = answered = stops_in(messages);
    }
    if (anew) {
        add_exchange(messages, last_.question, last_.answer);
        answered = stops_in(messages);
    }
    add(messages, Role::user, question);
    const std::vector<Token> whole = encode(messages, true);
    size_t begin = after_stops(whole, past);
    const auto turn = static_cast<uint32_t>(anew ? from + after_stops(whole, answered) - begin : from);
    // An answer that was cut short gets its stop, and one that another stop ended gets that of the format
    // where the next question begins with it.
    const Token end = from > 0 ? session_.tokens()[from - 1] : stops_.front();
    const bool other = is_stop(end) && format_.stop_is_next && end != stops_.front();
    const bool unended = !is_stop(end) || other;
    if (unended) --begin;
    if (other) --from;
    return {.from = from,
            .turn = turn + (anew && unended),
            .tokens = {whole.begin() + static_cast<std::ptrdiff_t>(begin), whole.end()}};
}

std::vector<ChatMessage> Talk::opening() const {
    std::vector<ChatMessage> messages;
    if (!options_.system.empty()) add(messages, Role::system, options_.system);
    return messages;
}

std::vector<Token> Talk::encode(const std::vector<ChatMessage>& messages, bool generate) const {
    return format_.encode({.messages = messages, .generate = generate, .thinking = options_.thinking},
                          model_.tokenizer);
}

size_t Talk::stops_in(const std::vector<ChatMessage>& messages) const {
    const std::vector<Token> tokens = encode(messages, false);
    const auto count = static_cast<size_t>(std::count(tokens.begin(), tokens.end(), stops_.front()));
    return count + format_.stop_is_next;
}

// The index after the stop number `count` of `tokens`.
size_t Talk::after_stops(const std::vector<Token>& tokens, size_t count) const {
    size_t index = 0;
    for (; count > 0; ++index) count -= tokens[index] == stops_.front();
    return index;
}

bool Talk::is_stop(Token token) const {
    return std::find(stops_.begin(), stops_.end(), token) != stops_.end();
}

bool Talk::opens_reasoning() const { return format_.thinks(options_.thinking); }

} // namespace fathom::cli
