#include "server/completion.h"

#include "base/error.h"
#include "text/reasoning.h"
#include "text/tool_calls.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <limits>
#include <random>

namespace fathom::server {

using Clock = std::chrono::steady_clock;

namespace {
double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}
} // namespace

void Stop::now() {
    stopped_ = true;
    const std::lock_guard lock(mutex_);
    for (Session* session : sessions_) session->cancel();
}

// One choice while it is written. Text goes through sieves, each of which holds back what it cannot tell yet:
// halves of characters, marks of reasoning, calls of tools, beginnings of stop strings.
struct Completions::Answer {
    Answer(size_t i, Session s, std::vector<Token> stops)
        : index(i), session(std::move(s)), ends(std::move(stops)) {}
    size_t index;
    Session session;
    std::vector<Token> ends;
    Utf8Stream characters;
    std::optional<ReasoningStream> reasoning; // none: a text that has no such marks
    std::optional<ToolCallStream> calls;      // none: no tools were given
    std::optional<GrammarState> grammar;      // none: the answer is free
    std::string held;                         // may be the beginning of a stop string
    std::vector<TokenLogprob> logprobs;       // of tokens whose text is held
    uint32_t tokens = 0;
    bool done = false;
    Clock::time_point last; // when its last token was there, or the request came

    void say(const std::string& text, bool is_reasoning, Choice& more) {
        if (is_reasoning)
            more.reasoning += text;
        else
            held += calls ? calls->push(text) : text;
    }
    void sift(const std::string& text, Choice& more) {
        if (!reasoning) return say(text, false, more);
        for (const ReasoningStream::Part& part : reasoning->push(text)) say(part.text, part.reasoning, more);
    }
};

namespace {

// How much of the end of `text` may be the beginning of one of the stops.
size_t may_begin(const std::string& text, const std::vector<std::string>& stops) {
    size_t most = 0;
    for (const std::string& stop : stops)
        for (size_t n = std::min(stop.size() - 1, text.size()); n > most; --n)
            if (text.compare(text.size() - n, n, stop, 0, n) == 0) most = n;
    return most;
}

size_t first_stop(const std::string& text, const std::vector<std::string>& stops) {
    size_t first = std::string::npos;
    for (const std::string& stop : stops) first = std::min(first, text.find(stop));
    return first;
}

TokenLogprob logprob_of(const Served& model, const Session& session, Token token, uint32_t top) {
    const auto text = [&](Token t) {
        return t < model.tokenizer.size() && model.tokenizer.contains(t)
                   ? std::string(model.tokenizer.bytes(t))
                   : "";
    };
    TokenLogprob out{text(token), -9999, {}}; // OpenAI's number for one that is not among the likeliest
    for (const Candidate& c : session.candidates()) {
        if (c.token == token) out.logprob = c.logprob;
        if (out.top.size() < top) out.top.emplace_back(text(c.token), c.logprob);
    }
    return out;
}

std::shared_ptr<const Grammar> grammar_of(const CompletionRequest& request, const ChatFormat& format) {
    if (!request.must_call) return request.grammar;
    try {
        return tool_call_grammar(format, request.conversation.tools, *request.must_call);
    } catch (const Error& error) {
        throw bad_request(error.what(), "tool_choice");
    }
}

// Cancels sessions when asked, for as long as it lives.
class Watched {
  public:
    Watched(std::mutex& mutex, std::set<Session*>& sessions, Session& session)
        : mutex_(mutex), sessions_(sessions), session_(&session) {
        const std::lock_guard lock(mutex_);
        sessions_.insert(session_);
    }
    ~Watched() {
        const std::lock_guard lock(mutex_);
        sessions_.erase(session_);
    }
    Watched(const Watched&) = delete;

  private:
    std::mutex& mutex_;
    std::set<Session*>& sessions_;
    Session* session_;
};

} // namespace

std::vector<Token> Completions::tokens_of(const CompletionRequest& request) const {
    std::vector<Token> tokens = request.prompt_tokens;
    try {
        if (request.chat) {
            tokens = format_.encode(request.conversation, model_.tokenizer);
        } else if (tokens.empty()) {
            if (model_.bos) tokens.push_back(*model_.bos);
            const std::vector<Token> text = model_.tokenizer.encode(request.prompt);
            tokens.insert(tokens.end(), text.begin(), text.end());
        }
    } catch (const Error& error) {
        throw bad_request(error.what(), request.chat ? "messages" : "prompt");
    }
    if (tokens.empty()) throw bad_request("the prompt is empty", "prompt");
    for (const Token token : tokens)
        if (token >= model_.engine.config().vocab_size)
            throw bad_request(fmt::format("token {} is not in the vocabulary", token), "prompt");
    if (tokens.size() >= model_.engine.context())
        throw ApiError(400, "exceed_context_size_error",
                       fmt::format("the prompt has {} tokens; the context is {} (fathom serve --context)",
                                   tokens.size(), model_.engine.context()),
                       request.chat ? "messages" : "prompt");
    return tokens;
}

// The sessions and the cache that a request may come to hold, so that nothing that was begun lacks room.
class Completions::Place {
  public:
    Place(Completions& all, const CompletionRequest& request, size_t prompt, Stop& stop)
        : all_(all), stop_(stop), sessions_(request.n) {
        const uint32_t rest = all_.model_.engine.context() - static_cast<uint32_t>(prompt);
        const uint64_t longest =
            prompt + (request.max_tokens == 0 ? rest : std::min(rest, request.max_tokens));
        tokens_ = sessions_ * in_pages(longest + 1);
        if (tokens_ > all_.model_.cache_tokens)
            throw bad_request(
                fmt::format("{} answers of up to {} tokens need {} tokens of cache, and there are {} "
                            "(fathom serve --cache-tokens)",
                            sessions_, longest, tokens_, all_.model_.cache_tokens),
                "n");
        std::unique_lock lock(all_.mutex_);
        Counts& counts = all_.counts_;
        ++counts.requests;
        if (all_.stopping_) throw ApiError(503, "unavailable_error", "the server is going down");
        if (counts.waiting >= MOST_WAITING)
            throw ApiError(503, "unavailable_error", "too many requests wait");
        ++counts.waiting;
        all_.running_.insert(&stop_);
        all_.room_.wait(lock, [&] {
            const bool room = counts.sessions + sessions_ <= MOST_SESSIONS &&
                              all_.reserved_ + tokens_ <= all_.model_.cache_tokens;
            return room || all_.stopping_ || stop_.stopped();
        });
        while (all_.reserved_ + tokens_ + all_.prefixes_.tokens() > all_.model_.cache_tokens &&
               all_.prefixes_.forget_oldest()) {
        }
        --counts.waiting;
        counts.sessions += sessions_;
        all_.reserved_ += tokens_;
    }
    ~Place() {
        const std::lock_guard lock(all_.mutex_);
        all_.running_.erase(&stop_);
        all_.counts_.sessions -= sessions_;
        all_.reserved_ -= tokens_;
        all_.counts_.prompt_tokens += usage.prompt;
        all_.counts_.cached_tokens += usage.cached;
        all_.counts_.tokens += usage.completion;
        all_.room_.notify_all();
    }
    Place(const Place&) = delete;
    Usage usage; // counted when it leaves

  private:
    Completions& all_;
    Stop& stop_;
    uint32_t sessions_;
    uint64_t tokens_ = 0;
};

// The sessions of all choices behind the prompt, which is read once: as far as it is not known.
std::vector<Completions::Answer> Completions::begin(const CompletionRequest& request,
                                                    std::span<const Token> prompt, Stop& stop, Usage& usage) {
    std::vector<Token> ends = model_.engine.config().eos;
    if (request.chat)
        for (const Token end : format_.stop_tokens(model_.tokenizer)) ends.push_back(end);
    const std::shared_ptr<const Grammar> grammar = grammar_of(request, format_);
    std::optional<Session> known;
    if (request.cache_prompt && model_.keep_prefixes) {
        const std::lock_guard lock(mutex_); // until it is forked, nobody may forget it
        if (const Prefixes::Found found = prefixes_.find(prompt); found.session) {
            known.emplace(found.session->fork());
            usage.cached = found.tokens;
        }
    }
    std::vector<Answer> answers;
    answers.reserve(request.n);
    if (known) known->rewind(usage.cached, false);
    answers.emplace_back(0, known ? std::move(*known) : model_.engine.open(), ends);
    Session& first = answers[0].session;
    {
        const Watched watched(stop.mutex_, stop.sessions_, first);
        if (!stop.stopped()) first.feed(prompt.subspan(usage.cached));
    }
    for (size_t i = 1; i < request.n; ++i) answers.emplace_back(i, answers[0].session.fork(), ends);
    std::random_device dice;
    const bool any_seed = request.sampling.seed == std::numeric_limits<uint64_t>::max();
    const uint64_t seed = any_seed ? dice() : request.sampling.seed;
    for (Answer& answer : answers) {
        SamplingParams& sampling = answer.session.sampling();
        sampling = request.sampling;
        sampling.allowed = model_.allowed;
        sampling.seed = seed + answer.index;
        if (request.chat && format_.thinking != ChatFormat::Thinking::never)
            answer.reasoning.emplace(format_.thinks(request.conversation.thinking));
        if (request.calls) answer.calls.emplace(format_, request.conversation.tools);
        if (grammar) answer.grammar.emplace(grammar);
    }
    return answers;
}

Usage Completions::run(const CompletionRequest& request, Stop& stop, const Sink& sink) try {
    const std::vector<Token> prompt = tokens_of(request);
    const Clock::time_point came = Clock::now();
    Place place(*this, request, prompt.size(), stop);
    queued_.add(seconds_since(came));
    const uint64_t epoch = [this] {
        const std::lock_guard lock(mutex_);
        return epoch_;
    }();
    place.usage.prompt = static_cast<uint32_t>(prompt.size());
    std::vector<Answer> answers = begin(request, prompt, stop, place.usage);
    for (Answer& answer : answers) answer.last = came;
    const auto is_done = [](const Answer& a) { return a.done; };
    try {
        while (!stop.stopped() && !std::all_of(answers.begin(), answers.end(), is_done))
            step(request, answers, sink, place.usage);
    } catch (const Cancelled&) { // as stopped
    }
    for (Answer& answer : answers)
        if (!answer.done) finish(answer, "length", sink); // the server goes down, or nobody listens
    if (request.cache_prompt && model_.keep_prefixes && !stop.stopped()) {
        const std::lock_guard lock(mutex_);
        if (epoch == epoch_)
            prefixes_.keep(std::move(answers[0].session)); // its place is given back after that
    }
    return place.usage;
} catch (const Cancelled&) { // while the prompt was read: by the client, or by the server that goes down
    throw ApiError(503, "unavailable_error", "the request was ended before its answer began");
} catch (const Error& error) {
    throw ApiError(503, "unavailable_error", error.what());
}

void Completions::step(const CompletionRequest& request, std::vector<Answer>& answers, const Sink& sink,
                       Usage& usage) {
    std::vector<Session*> sessions;
    std::vector<Answer*> going;
    for (Answer& answer : answers) {
        if (answer.done) continue;
        if (answer.session.position() >= model_.engine.context() ||
            (request.max_tokens != 0 && answer.tokens >= request.max_tokens)) {
            finish(answer, "length", sink);
            continue;
        }
        if (answer.grammar) constrain(answer, sink);
        if (answer.done) continue;
        sessions.push_back(&answer.session);
        going.push_back(&answer);
    }
    if (sessions.empty()) return;
    model_.engine.next(sessions);
    for (Answer* answer : going) {
        (answer->tokens == 0 ? first_token_ : between_tokens_).add(seconds_since(answer->last));
        answer->last = Clock::now();
        ++answer->tokens, ++usage.completion;
        load_.add(answer->session.take_records());
        take(request, *answer, answer->session.tokens().back(), sink);
    }
}

const SortedVocabulary& Completions::vocabulary() const {
    std::call_once(vocabulary_made_, [this] { vocabulary_.emplace(model_.tokenizer); });
    return *vocabulary_;
}

// What may come next by the answer's grammar, once it has done with reasoning.
void Completions::constrain(Answer& answer, const Sink& sink) const {
    if (answer.reasoning && answer.reasoning->inside()) return;
    if (answer.grammar->must_end()) return finish(answer, "stop", sink);
    std::vector<uint32_t> mask = answer.grammar->mask(vocabulary());
    mask.resize((model_.engine.config().vocab_size + 31) / 32);
    for (size_t i = 0; i < std::min(mask.size(), model_.allowed.size()); ++i) mask[i] &= model_.allowed[i];
    if (answer.grammar->may_end())
        for (const Token end : answer.ends) mask[end / 32] |= 1u << end % 32;
    answer.session.sampling().allowed = std::move(mask);
}

void Completions::take(const CompletionRequest& request, Answer& answer, Token token,
                       const Sink& sink) const {
    if (std::find(answer.ends.begin(), answer.ends.end(), token) != answer.ends.end())
        return finish(answer, "stop", sink);
    if (request.logprobs)
        answer.logprobs.push_back(logprob_of(model_, answer.session, token, request.top_logprobs));
    // the marks of calls are special tokens of some tokenizers
    const bool has_text =
        model_.tokenizer.contains(token) && (answer.calls || !model_.tokenizer.is_special(token));
    const std::string_view bytes = has_text ? model_.tokenizer.bytes(token) : std::string_view();
    if (answer.grammar && !(answer.reasoning && answer.reasoning->inside())) answer.grammar->accept(bytes);
    const std::string text = has_text ? answer.characters.push(bytes) : "";
    Choice more;
    answer.sift(text, more);
    if (const size_t at = first_stop(answer.held, request.stop); at != std::string::npos) {
        answer.held.resize(at);
        sink(answer.index, more);
        return finish(answer, "stop", sink);
    }
    const size_t ready = answer.held.size() - may_begin(answer.held, request.stop);
    more.text = answer.held.substr(0, ready);
    answer.held.erase(0, ready);
    if (more.text.empty() && more.reasoning.empty()) return;
    more.logprobs.swap(answer.logprobs);
    if (!sink(answer.index, more)) answer.done = true;
}

void Completions::finish(Answer& answer, const char* reason, const Sink& sink) const {
    Choice last{.logprobs = std::move(answer.logprobs), .finish_reason = reason};
    answer.sift(answer.characters.finish(), last);
    if (answer.reasoning)
        for (const auto& part : answer.reasoning->finish()) answer.say(part.text, part.reasoning, last);
    if (answer.calls) {
        ToolCallStream::End end = answer.calls->finish();
        answer.held += end.text;
        last.calls = std::move(end.calls);
        if (!last.calls.empty() && last.finish_reason == "stop") last.finish_reason = "tool_calls";
    }
    last.text = std::move(answer.held);
    answer.done = true;
    sink(answer.index, last);
}

void Completions::forget_prefixes() {
    const std::lock_guard lock(mutex_);
    prefixes_.clear();
    ++epoch_;
}

void Completions::stop_all() {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (Stop* stop : running_) stop->now();
    room_.notify_all();
}

Completions::Counts Completions::counts() const {
    const std::lock_guard lock(mutex_);
    Counts counts = counts_;
    counts.kept = static_cast<uint32_t>(prefixes_.size());
    counts.kept_tokens = prefixes_.tokens();
    counts.reserved_tokens = reserved_;
    return counts;
}

std::string Completions::metrics() const {
    const Counts now = counts();
    const auto pages = [](uint64_t tokens) { return double(tokens / CACHE_PAGE); };
    return metric_text("completions_total", "counter", "Completions that were begun", double(now.requests)) +
           metric_text("prompt_tokens_total", "counter", "Tokens of prompts", double(now.prompt_tokens)) +
           metric_text("cached_tokens_total", "counter", "Tokens of prompts that were not read again",
                       double(now.cached_tokens)) +
           metric_text("generated_tokens_total", "counter", "Tokens generated", double(now.tokens)) +
           metric_text("sessions", "gauge", "Answers that are being written", now.sessions) +
           metric_text("waiting", "gauge", "Requests that wait for a session", now.waiting) +
           metric_text("kept_sessions", "gauge", "Sessions kept for prompts that begin alike", now.kept) +
           metric_text("cache_pages", "gauge", "Pages of the latent cache for answers",
                       pages(now.reserved_tokens), "{state=\"reserved\"}") +
           metric_text("cache_pages", "", "", pages(now.kept_tokens), "{state=\"kept\"}") +
           metric_text("cache_pages", "", "", pages(model_.cache_tokens), "{state=\"all\"}") +
           metric_text("expert_load_variation", "gauge",
                       "Standard deviation over mean of the experts' loads, mean of all layers",
                       load_.variation()) +
           queued_.text("queue_seconds", "From a request to its session") +
           first_token_.text("first_token_seconds", "From a request to its first token") +
           between_tokens_.text("inter_token_seconds", "From one token of an answer to the next");
}

} // namespace fathom::server
