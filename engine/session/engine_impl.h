// The inside of Engine and Session, shared by the sources of this folder.
//
// Threads: a session's owner puts a request into it and waits; the engine's thread serves requests in step().
// While a request is pending only that thread touches the session, otherwise only the owner does. Whatever
// uses the device or the page pool holds device_mutex; requests and their completion are guarded by
// request_mutex.
#pragma once

#include "model/forward.h"
#include "session/engine.h"
#include "session/fit.h"
#include "session/pages.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace fathom {

constexpr uint64_t FNV1A_START = 0xCBF29CE484222325ull;
uint64_t fnv1a(uint64_t hash,
               std::span<const std::byte> bytes); // FNV-1a: against accidents, not against malice

// What `options` ask of a model of this configuration. Throws Error for what it cannot do.
ModelOptions model_options(const ModelConfig& config, const LoadOptions& options);
std::unique_ptr<Executor> make_executor(const LoadOptions& options);

struct Session::Impl {
    // A run of tokens that went through the model in one prefill. Rewinding into an expanded run repeats it,
    // so that what remains has the bits of a fresh run.
    struct Segment {
        uint32_t begin, end;
        bool expanded;
    };
    enum class Request : uint8_t { none, prefill, next, logits };

    Engine::Impl* engine = nullptr;
    uint32_t sequence = 0; // slot: page table, sampler, counts
    std::vector<Token> tokens;
    uint32_t cached = 0; // tokens whose rows are in the cache; always fewer than all (unless there are none)
    std::vector<Segment> segments; // cover [0, cached)
    std::vector<uint32_t> pages;
    SamplingParams sampling, sampling_in_force;
    bool sampler_written = false, counts_valid = true;
    std::vector<Candidate> candidates;
    std::vector<trace::Routing> routing;
    std::vector<Tap> taps;

    Request request = Request::none;
    uint32_t prefill_end = 0, segment_begin = 0; // of a prefill request
    bool expanded = false;
    std::function<void(uint32_t position, std::span<const float> logits)> on_logits;
    std::exception_ptr error;
    std::atomic<bool> cancelled = false;

    ~Impl();
    void serve(Request wanted);    // hands the request to the engine's thread and waits for it
    void prefill_to(uint32_t end); // the cache holds [0, end) afterwards
    void append(std::span<const Token> added);
    struct Mark {
        uint32_t size, cached;
        size_t segments;
    };
    Mark mark() const { return {static_cast<uint32_t>(tokens.size()), cached, segments.size()}; }
    void undo_to(const Mark& before); // what a call did that threw
    void release_pages();             // those past the cached rows
    void check_next() const;          // throws Error where there is nothing to continue, or no room
    void run_logits(std::span<const Token> added, std::function<void(uint32_t, std::span<const float>)> sink);
};

struct Engine::Impl {
    Impl(const FitQuestion& question, std::string fingerprint);
    ~Impl();

    std::unique_ptr<Executor> executor;
    std::unique_ptr<Model> model;
    std::string fingerprint; // of config and weights; a saved session names it
    uint32_t context = 0, chunk = 0;
    PagePool pages;
    std::vector<bool> sequence_used;
    std::mutex device_mutex;

    std::mutex request_mutex;
    std::condition_variable request_added, request_done;
    std::vector<Session::Impl*> requests;
    bool stopping = false;
    std::thread thread;

    uint32_t steps = 0, trace_slot = 0;

    // Hands requests to the thread and waits for all; errors are left in the sessions.
    void serve(std::span<Session::Impl* const> sessions, Session::Impl::Request wanted);
    void next(std::span<Session::Impl* const> sessions);
    void run(); // the thread's loop
    bool step();
    void finish(Session::Impl& s, std::exception_ptr error);
    void prefill_chunk(Session::Impl& s);
    void logits_chunk(Session::Impl& s);
    void decode(std::vector<Session::Impl*>& sessions);

    // One step of the model: rows go in, the plan runs, routing and taps come out to the sessions of the
    // rows.
    struct RowOf {
        Session::Impl* session;
        uint32_t position;
    };
    void write_step(StepKind::Mode mode, const std::vector<StepRow>& rows);
    void run_rows(StepKind kind, std::span<const RowOf> rows, uint32_t history);
    void collect(const Plan& plan, std::span<const RowOf> rows);
    void make_room(Session::Impl& s, uint32_t begin,
                   uint32_t end); // pages for these positions, none of them shared
    void write_sampler(Session::Impl& s);
    void rebuild_counts(Session::Impl& s);
    bool worth_expanding(uint32_t tokens, uint32_t before) const;
    View page_view(uint32_t layer, uint32_t page) const;
};

} // namespace fathom
