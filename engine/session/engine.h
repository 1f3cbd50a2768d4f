// The public boundary. An Engine is a loaded model on a device; a Session is one timeline of tokens over it.
// Apart from scores and named taps nothing tensor-shaped crosses it. The engine does its GPU work on a
// thread of its own: next() and score() hand it work and wait; step() is what that thread does.
//
// A lost device: the model is loaded again, once, and every session goes on from its tokens; when that fails
// or the device is lost again, calls throw gpu::DeviceLost, which names the last op.
//
// Determinism: the same device, tokens and seed give the same tokens, and a token's bits depend on its own
// session alone, never on what other sessions run beside it. How a prompt was split into feed() calls is
// part of the session.
#pragma once

#include "base/token.h"
#include "checkpoint/checkpoint.h"
#include "model/config.h"
#include "model/synthetic.h"
#include "trace/queue.h"
#include "trace/record.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace fathom {

struct LoadOptions {
    std::string device;     // "": the best one; an index, a part of a name, or "cpu"; see gpu::list_devices
    bool reference = false; // run on the CPU executor, the oracle of the tests: slow, in double precision
    uint32_t context = 0;   // longest session in tokens; 0: the model's limit, at most 4096
    uint32_t cache_tokens =
        0; // tokens the latent cache holds for all sessions together; 0: twice the context
    uint32_t spare_contexts = 0; // whole sessions that it has room for beyond that
    uint32_t chunk = 512; // prompt tokens processed at once, at most
    // Steps that generate which the device may have under way at once, at most 4: it goes from one to the
    // next by itself, and what turns out not to be wanted is thrown away. 0: two, on a software device one.
    uint32_t in_flight = 0;
    // Numbers in the latent cache: "f32", "f16" or "q8" (bytes with a scale for each 32). Only f32 for a
    // model without latent attention.
    std::string cache_format = "f32";
    bool keep_mtp = false; // load the weights of MTP layers too (nothing runs them yet)
    bool trace = true;     // kernels write what records tell of routing and norms
    // A weight format ("q8_0", "q4_k", "fp8", ...) that matrices stored as f32, f16, bf16 or FP8 are
    // quantised to while they are loaded, all but the router; "": as stored. Rows that its blocks do not fill
    // get a near relative of it (block_fallback in checkpoint/blocks.h).
    std::string quantize;
    // Which kernels make the matrix products: "auto", the fastest that are right on this device, found once
    // for its driver; "tune", found anew; or all of one tier ("base", "int8", "tiled", "half", "matrix")
    // where it can be.
    std::string tier = "auto";
    uint32_t lose_at_submit = 0;  // test hook: the device is lost at this submit
    bool experts_on_host = false; // routed experts stay in the host's memory, where kernels read them
    std::function<void(uint64_t done, uint64_t total)> progress; // bytes of weights uploaded
    std::function<void(uint64_t done, uint64_t total)> tuning;   // kernels tried on this device
    std::vector<std::string>
        taps; // names of intermediate tensors to keep, with * as wildcard; see Session::taps
};

// Applied in this order: repetition, presence and frequency penalty over the session's tokens; bias; allowed
// tokens; temperature; top_k; top_p; min_p. Every field may change between tokens.
struct SamplingParams {
    float temperature = 1; // 0: greedy (the lowest id among equals)
    uint32_t top_k = 0;    // 0: all
    float top_p = 1, min_p = 0;
    float repetition_penalty = 1; // divides positive and multiplies negative logits of tokens already present
    float presence_penalty = 0, frequency_penalty = 0;
    uint64_t seed = 0;
    std::vector<std::pair<Token, float>> bias; // added to the logits; at most 1024 entries
    std::vector<uint32_t> allowed;             // bit t % 32 of word t / 32 allows token t; empty: all allowed
    bool operator==(const SamplingParams&) const = default;
};

// One of the 20 most probable tokens of a step, after penalties, bias and mask, at temperature 1; best first.
struct Candidate {
    Token token;
    float logprob;
};

// Control over routing, per layer and expert (row-major, layers x routed experts): `key` is added to the
// selection key, `factor` multiplies the weight of a chosen expert. Empty: 0 and 1.
struct Steering {
    std::vector<float> key, factor;
};

struct MemoryReport {
    struct Item {
        std::string owner;     // "weights", "latent cache", "workspace", ...
        uint64_t bytes = 0;    // in use
        uint64_t reserved = 0; // allocated from the device
    };
    std::vector<Item> items;
    uint64_t total = 0;
    uint64_t device = 0; // bytes of the device's largest heap; 0: no device
};

// A decode step of one session, launch by launch: each alone, at its fastest of several times.
struct StepProfile {
    struct Launch {
        std::string label, kernel; // "layers.3.router", "router"
        double seconds = 0;
        uint64_t bytes = 0; // that it reads and writes at the least
        double flops = 0;
    };
    std::vector<Launch> launches; // none: the device has no clock for them
    double read_rate = 0;         // bytes a second that the device reads from its memory; 0: not known
};

// A tensor kept by name during the last feed, next or score: (rows, cols) in row-major order, one row for
// each token.
struct Tap {
    std::string name;
    uint32_t rows = 0, cols = 0;
    std::vector<float> values;
};

// A model of any shape with weights out of a seed: it runs like any other, and says nothing.
struct SyntheticModel {
    std::string name;
    ModelConfig config;
    SyntheticWeights weights;
};

class Executor;
class Model;
class Session;

class Engine {
  public:
    // Loads the model onto the device. Throws Error for whatever is wrong with the files, the device or the
    // options; a missing, extra or misshapen tensor is named.
    Engine(const ModelFiles& files, const LoadOptions& options);
    Engine(const SyntheticModel& model, const LoadOptions& options);
    ~Engine();
    Engine(const Engine&) = delete;

    const ModelConfig& config() const;
    const std::string& device_name() const; // as the driver says it
    uint32_t context() const;               // longest session, tokens
    // A new, empty session; the engine must outlive it. Of one that is not `told`, listeners hear nothing.
    Session open(bool told = true);
    bool step(); // advances every runnable session once; false when none was runnable
    // One token of each of several sessions of this engine, as their own next() gives it, in one step. Throws
    // the error of the first session that failed, which is as before; the others have their token.
    void next(std::span<Session* const> sessions);
    MemoryReport memory() const;
    StepProfile profile();                       // where one token's time goes
    uint32_t dispatches_per_token() const;       // of the decode plan for one session
    void set_steering(const Steering& steering); // in force from the next step
    // From now on `queue` gets a record of each token of every session, and events, beginning with the memory
    // of each owner. It must stay until ignore() has returned.
    void listen(trace::Queue& queue);
    void ignore(trace::Queue& queue);
    // From the next step on records tell what the heads of some layers look at; it costs an op in each of
    // them. Throws Error for layers or heads that are not there, and for more than is kept at once.
    void watch_layers(const trace::LayerWatch& watch);
    trace::LayerWatch watched_layers() const; // with heads and width as they are
    trace::Shape trace_shape() const;
    // For measurements: the model as it lies on the device, the sequence that `session` has there, and where
    // it runs. Nothing else runs meanwhile; what is changed is changed.
    void examine(const Session& session,
                 const std::function<void(Model&, Executor&, uint32_t sequence)>& work);

    struct Impl;

  private:
    std::unique_ptr<Impl> impl_;
};

class Session {
  public:
    Session(Session&&) noexcept;
    Session& operator=(Session&&) noexcept;
    ~Session();

    void
    feed(std::span<const Token> tokens); // appends; throws Error for an id out of range or a full context
    Token next();                        // samples one token, appends it and returns it
    // Appends `tokens` and returns log p(token | everything before it) for each (the first of an empty
    // session has no predecessor and gets 0).
    std::vector<float> score(std::span<const Token> tokens);
    // Appends `tokens` and returns the logits after each of them: tokens x vocab_size, row-major.
    std::vector<float> logits(std::span<const Token> tokens);
    void cancel();                  // from any thread: a feed, next or score in progress throws Cancelled
    // Forgets everything from `position` on. `exact`: what remains has the bits of a session that was never
    // longer, for which a run of a prompt may have to be read once more; else nothing is.
    void rewind(uint32_t position, bool exact = true);
    Session fork() const;           // a second timeline with the same past; cache pages are shared
    void save(const std::filesystem::path& path) const; // tokens, cache and sampling state; atomic
    void load(const std::filesystem::path& path);       // replaces this session; refuses another model's file

    uint32_t position() const; // number of tokens
    const std::vector<Token>& tokens() const;
    SamplingParams& sampling();                     // in force from the next token
    std::span<const Candidate> candidates() const;  // of the last next()
    uint32_t number() const;                        // in records and events
    std::vector<trace::TokenRecord> take_records(); // one for each token processed since the last call
    std::span<const Tap> taps() const;              // of the last feed, next, score or logits

    struct Impl;

  private:
    friend class Engine;
    explicit Session(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// Thrown out of feed, next, score or logits by cancel(). The session is as before the call.
struct Cancelled : std::exception {
    const char* what() const noexcept override { return "cancelled"; }
};

} // namespace fathom
