// The inside of Engine and Session, shared by the sources of this folder.
//
// Threads: a session's owner puts a request into it and waits; the engine's thread serves requests in step().
// While a request is pending only that thread touches the session, otherwise only the owner does. Whatever
// uses the device or the page pool holds device_mutex; requests and their completion are guarded by
// request_mutex.
#pragma once

#include "model/attention_costs.h"
#include "model/forward.h"
#include "session/engine.h"
#include "session/fit.h"
#include "session/pages.h"
#include "trace/queue.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
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
    // A run of tokens that went through the model in one step, or in any where it was not expanded. Rewinding
    // into an expanded run repeats it, so that what remains has the bits of a fresh run.
    struct Segment {
        uint32_t begin, end;
        bool expanded;
    };
    enum class Request : uint8_t { none, prefill, next, logits };

    Engine::Impl* engine = nullptr;
    uint32_t sequence = 0;                         // slot: page table, sampler, counts
    static constexpr uint32_t UNTOLD = 0xFFFFFFFF; // number of a session that nobody is told of
    uint32_t number = 0;                           // in records and events
    std::vector<Token> tokens;
    uint32_t cached = 0; // tokens whose rows are in the cache; always fewer than all (unless there are none)
    std::vector<Segment> segments; // cover [0, cached)
    std::vector<uint32_t> pages;
    SamplingParams sampling, sampling_in_force;
    bool sampler_written = false, counts_valid = true;
    uint64_t device_epoch = 0; // of the engine when its pages were made
    uint64_t changes = 0;      // counts what its owner did to its tokens, other than to generate
    std::vector<Candidate> candidates;
    std::vector<trace::TokenRecord> records;
    std::vector<Tap> taps;

    Request request = Request::none;
    uint32_t prefill_end = 0; // of a prefill request
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
    // Runs that are not expanded sum alike however they are cut: neighbours become one.
    void add_segment(Segment added) {
        if (segments.empty() || added.expanded || segments.back().expanded)
            segments.push_back(added);
        else
            segments.back().end = added.end;
    }
    Mark mark() const { return {static_cast<uint32_t>(tokens.size()), cached, segments.size()}; }
    void undo_to(const Mark& before); // what a call did that threw
    void release_pages();             // those past the cached rows
    void check_next() const;          // throws Error where there is nothing to continue, or no room
    void run_logits(std::span<const Token> added, std::function<void(uint32_t, std::span<const float>)> sink);
};

struct Engine::Impl {
    // Calls its argument with the model to load, as often as it is called.
    using Source = std::function<void(const std::function<void(const FitQuestion&)>&)>;
    Impl(const FitQuestion& question, std::string fingerprint, Source again);
    ~Impl();

    std::unique_ptr<Executor> executor;
    std::unique_ptr<Model> model;
    std::string device_name;
    std::string fingerprint; // of config and weights; a saved session names it
    uint32_t context = 0, chunk = 0;
    PagePool pages;
    AttentionCosts attention_costs;
    std::vector<bool> sequence_used;
    std::mutex device_mutex;

    std::mutex request_mutex;
    std::condition_variable request_added, request_done;
    std::vector<Session::Impl*> requests; // in the order in which they are served
    bool stopping = false;
    std::atomic<size_t> served_together = 0; // sessions of the last step that generated
    std::thread thread;

    uint32_t trace_slot = 0, in_flight = 1;
    uint32_t untimed = 56; // steps that generated since one was timed; the first is one soon
    uint32_t next_session = 0;
    const std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();
    std::mutex listeners_mutex;
    std::vector<trace::Queue*> listeners;

    // Steps that generate for one set of sessions: `rows` says what the oldest step not yet taken runs. The
    // device advances its state itself, so that steps follow each other without the host; see decode.cpp.
    struct Flight {
        struct Row {
            Session::Impl* session;
            Token token;
            uint32_t position;
            uint64_t changes; // of the session, when the flight began
        };
        const Plan* plan = nullptr;
        std::vector<Row> rows; // none: the device's state is of something else
        struct Step {
            uint64_t ticket;
            bool timed;
        };
        std::deque<Step> steps;  // under way, oldest first
        uint32_t trace_slot = 0; // of the oldest step's first row
    };
    Flight flight;
    // A token that a step gave to a session, before it asks for it where other work came between.
    struct Kept {
        Sampled sampled;
        trace::TokenRecord record;
        uint64_t epoch, changes; // of the engine and of the session when the step was started
    };
    std::map<const Session::Impl*, std::deque<Kept>> kept;
    uint64_t epoch = 0; // counts what changes the tokens of all sessions
    // Waits for all that is under way and keeps its tokens. Whoever is about to change what steps read, or
    // what they write into, does this first.
    void land();
    // Holds the device, with nothing under way.
    class Quiet {
      public:
        explicit Quiet(Impl& engine) : lock_(engine.device_mutex) {
            if (engine.gone) std::rethrow_exception(engine.gone);
            engine.land();
        }
        // The same for work on the cache of a session, which is there afterwards.
        Quiet(Impl& engine, Session::Impl& s) : Quiet(engine) { engine.refresh(s); }

      private:
        std::lock_guard<std::mutex> lock_;
    };

    // After a lost device: loads the model anew; false where that was done before, or fails.
    bool recover(const gpu::DeviceLost& loss);
    // A session that was there before: its cache rows anew, from its tokens.
    void refresh(Session::Impl& s);
    uint64_t device_epoch = 0; // counts devices
    std::exception_ptr gone;   // why there is no device any more
    Source source;
    LoadOptions options;
    std::vector<float> steering; // in force; empty: none
    trace::LayerWatch watch;     // as it was asked for

    // Hands requests to the thread and waits for all; errors are left in the sessions.
    void serve(std::span<Session::Impl* const> sessions, Session::Impl::Request wanted);
    void next(std::span<Session::Impl* const> sessions);
    void load(const FitQuestion& question);
    void choose_kernels();
    void upload_steering();
    void run(); // the thread's loop
    bool step();
    bool step_once();
    void finish(Session::Impl& s, std::exception_ptr error);
    void read_chunk(Session::Impl& s); // the next of a prompt, or of tokens whose logits are wanted
    void prefill_chunk(Session::Impl& s);
    void logits_chunk(Session::Impl& s);
    void decode(std::vector<Session::Impl*>& sessions); // takes out what it has finished
    void begin_flight(std::span<Session::Impl* const> sessions);
    bool continues_flight(std::span<Session::Impl* const> sessions) const;
    bool has_room_ahead() const;
    void launch_step();
    std::vector<Kept> take_step();
    void deliver(Session::Impl& s, Kept& result);
    bool deliver_kept(Session::Impl& s);

    // One step over tokens [begin, end) of a session; its routing and taps come out.
    void run_rows(StepKind kind, Session::Impl& s, uint32_t begin, uint32_t end);
    // What the kernels left in the ring for one token; without a trace, only what the host knows.
    trace::TokenRecord record_of(StepKind::Mode mode, uint32_t slot, Token token, uint32_t position) const;
    std::vector<float> stage_times(const Plan& plan) const; // of its last timed step, as in a record
    void keep_record(Session::Impl& s, trace::TokenRecord record);
    void publish(trace::Event event); // with the time
    uint64_t now() const;             // ns since the engine began
    bool is_time_to_time();           // somebody listens, and the last timed step is long ago
    void collect_taps(const Plan& plan, std::span<Session::Impl* const> rows) const;
    void make_room(Session::Impl& s, uint32_t begin,
                   uint32_t end); // pages for these positions, none of them shared
    bool sampler_changed(const Session::Impl& s) const;
    void write_sampler(Session::Impl& s);
    void rebuild_counts(Session::Impl& s);
    StepKind prefill_kind(uint32_t begin, uint32_t end, bool expanded) const;
    View page_view(uint32_t layer, uint32_t page) const;
};

} // namespace fathom
