// What the engine tells about its work: plain structs, versioned, shared by the engine, the file format and
// the viewer. A leaf: it includes nothing of ours but tokens.
//
// A TokenRecord is written by the kernels themselves into a ring that the host can read (TRACE_LAYER_WORDS in
// shaders/params.h); an Event says what else happened to a session or to the trace itself. Row l of every
// table belongs to the l-th MoE layer; values that were not computed are NaN, never 0.
#pragma once

#include "base/token.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace fathom::trace {

constexpr uint32_t VERSION = 3;
constexpr uint32_t CANDIDATES = 10; // most probable tokens of a record
constexpr Token NO_TOKEN = 0xFFFFFFFF;

// What gives the tables of a record their sizes, and their rows a meaning.
struct Shape {
    uint32_t n_layers = 0, n_experts = 0, n_active = 0, n_groups = 1, n_active_groups = 1;
    std::vector<uint32_t> moe_layers; // numbers of the layers that route
    uint32_t choices() const { return static_cast<uint32_t>(moe_layers.size()) * n_active; }
    uint32_t times() const; // of one record
    bool operator==(const Shape&) const = default;
};

// Layers of which more is told: what their heads look at, of these heads and in at most so many bins; and of
// up to four that route, all scores. For `layers` none: of none.
struct LayerWatch {
    std::vector<uint32_t> layers;
    uint32_t first_head = 0, n_heads = 0; // 0: all from the first on
    uint32_t width = 256;                 // 0: a bin for each position
    bool operator==(const LayerWatch&) const = default;
};

// What heads of one layer paid to the positions up to and with a token's own.
struct AttentionRows {
    uint32_t layer = 0, first_head = 0, n_heads = 0;
    uint32_t pool = 1;          // neighbouring positions of a bin
    std::vector<float> weights; // (n_heads, bins), each row of the sum 1
    uint32_t bins() const { return n_heads == 0 ? 0 : static_cast<uint32_t>(weights.size() / n_heads); }
    bool operator==(const AttentionRows&) const = default;
};

// What the router of one layer thought of each expert: its score, from which weights are made, and the key
// that it was ranked by, which is the score with bias and steering.
struct RouterScores {
    uint32_t layer = 0;
    std::vector<float> scores, keys; // (n_experts)
    bool operator==(const RouterScores&) const = default;
};

// Where a token's time goes: the stages of each layer, then what is there once.
constexpr std::array<std::string_view, 6> STAGES = {"project", "attend",  "output",
                                                    "route",   "experts", "watch"};
constexpr std::array<std::string_view, 3> ENDS = {"embed", "logits", "sample"};

inline uint32_t Shape::times() const { return n_layers * STAGES.size() + ENDS.size(); }

struct Candidate {
    Token token = NO_TOKEN; // none: a masked one, or the vocabulary is smaller
    float logprob = 0;      // after penalties, bias and mask, at temperature 1
    bool operator==(const Candidate&) const = default;
};

// One token's way through the model, and what it was followed by.
struct TokenRecord {
    Token token = 0;
    uint32_t position = 0;
    uint32_t session = 0;          // number of its session, unique in an engine
    uint64_t time = 0;             // when the host saw its step finished: ns since the engine began
    std::vector<uint16_t> experts; // (MoE layers, n_active), in order of selection
    std::vector<float> weights;    // the same shape: the factors on the experts' outputs
    std::vector<float> margin;  // (MoE layers): key of the last chosen less the best rejected's; or infinite
    std::vector<float> entropy; // (MoE layers): of the scores divided by their sum, nats
    std::vector<uint32_t> swapped; // (MoE layers): bit i: choice i is not among the n_active best scores
    std::vector<uint32_t> groups;  // (MoE layers): bit g: group g was kept
    std::vector<float> norms; // (layers + 1): of the residual stream before each layer and after the last
    std::vector<AttentionRows> attention; // of the layers that are watched
    std::vector<RouterScores> scores;     // the same, of those that route
    // Of some tokens: seconds on the device, launch by launch with waits between: (layers, STAGES), then
    // ENDS.
    std::vector<float> times;
    uint64_t cache_bytes = 0;  // of pages of the latent cache in use after this token, by all sessions
    uint64_t shared_bytes = 0; // of these, of pages that several sessions hold
    Token next = NO_TOKEN;     // sampled after it; none: the token was part of a prompt
    std::vector<Candidate> candidates; // for `next`, best first; CANDIDATES or none
};

uint64_t bytes_of(const TokenRecord& record); // that its tables take in memory

struct Event {
    enum class Kind : uint32_t { opened = 1, forked, rewound, closed, gap, memory, note };
    Kind kind = Kind::note;
    uint32_t session = 0;
    uint32_t other = 0;    // forked: the session it came from
    uint32_t position = 0; // forked, rewound: tokens that stay; note: where
    uint64_t time = 0;     // ns, as of TokenRecord
    uint64_t count = 0;    // gap: records lost before the next one; memory: bytes
    std::string text;      // memory: the owner; note: what somebody wrote
    bool operator==(const Event&) const = default;
};

using Packet = std::variant<TokenRecord, Event>;

} // namespace fathom::trace
