// Runs what OpenAI's API asks for on an engine: sessions, stop strings, logprobs. Each request has a thread
// of its caller's; the engine steps all of them together.
#pragma once

#include "server/figures.h"
#include "server/openai.h"
#include "server/prefixes.h"
#include "server/served.h"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <span>

namespace fathom::server {

// Ends a request from another thread.
class Stop {
  public:
    void now();
    bool stopped() const { return stopped_; }

  private:
    friend class Completions;
    std::atomic<bool> stopped_ = false;
    std::mutex mutex_;
    std::set<Session*> sessions_;
};

class Completions {
  public:
    static constexpr uint32_t MOST_SESSIONS = 32, MOST_WAITING = 256;
    explicit Completions(Served model)
        : model_(std::move(model)), format_(model_.format()), load_(model_.engine.trace_shape()) {}

    // What choice `index` has more of; false: nobody wants more.
    using Sink = std::function<bool(size_t index, const Choice& more)>;
    // Writes all choices. Waits while too many sessions are open. Throws ApiError: 400 for a prompt that does
    // not fit, 503 where too many wait or the cache is full.
    Usage run(const CompletionRequest& request, Stop& stop, const Sink& sink);
    void forget_prefixes(); // the model is another one now: it is steered
    void stop_all();        // what runs and waits ends as soon as it can, and what comes is refused

    struct Counts {
        uint64_t requests = 0, prompt_tokens = 0, cached_tokens = 0, tokens = 0;
        uint32_t sessions = 0, waiting = 0, kept = 0;
        uint64_t kept_tokens = 0, reserved_tokens = 0; // of cache: by what is kept, for what is written
    };
    Counts counts() const;
    std::string metrics() const; // in Prometheus' text format

  private:
    struct Answer;
    class Place;
    std::vector<Answer> begin(const CompletionRequest& request, std::span<const Token> prompt, Stop& stop,
                              Usage& usage);
    std::vector<Token> tokens_of(const CompletionRequest& request) const;
    void step(const CompletionRequest& request, std::vector<Answer>& answers, const Sink& sink, Usage& usage);
    void take(const CompletionRequest& request, Answer& answer, Token token, const Sink& sink) const;
    void finish(Answer& answer, const char* reason, const Sink& sink) const;

    void constrain(Answer& answer, const Sink& sink) const;
    const SortedVocabulary& vocabulary() const; // made when it is first asked for

    Served model_;
    const ChatFormat& format_;
    mutable std::once_flag vocabulary_made_;
    mutable std::optional<SortedVocabulary> vocabulary_;
    Histogram queued_, first_token_, between_tokens_;
    ExpertLoad load_;
    mutable std::mutex mutex_;
    std::condition_variable room_;
    Counts counts_;
    uint64_t reserved_ = 0; // tokens of cache
    uint64_t epoch_ = 0;    // of the model
    Prefixes prefixes_;
    std::set<Stop*> running_;
    bool stopping_ = false;
};

} // namespace fathom::server
