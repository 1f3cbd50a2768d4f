// What the viewer knows: every record that a source has brought, by session and position, and pure functions
// over it. Panels read it and nothing else. It sees the trace format alone, so that a live engine, a file and
// a socket look alike. Bounded: above LIMIT bytes the oldest records lose their tables, and say so.
#pragma once

#include "trace/compare.h"
#include "trace/file.h"
#include "trace/stages.h"

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::viewer {

// One session's tokens. A fork shares its past with its parent; the records are copied.
struct Timeline {
    uint32_t session = 0;
    std::optional<uint32_t> parent;
    uint32_t forked_at = 0; // tokens it shares with its parent
    bool closed = false;
    struct Slot {
        enum class State : uint8_t { missing, bare, whole }; // lost; without tables; with all of them
        State state = State::missing;
        trace::TokenRecord record;
    };
    std::vector<Slot> slots;     // by position
    uint64_t tables = 0;         // bytes
    float largest = 1e-9f;       // weight of an expert so far
    std::vector<uint32_t> timed; // positions whose records have times, as they came

    // Tokens there are: those that went through the model, and the last one's successor.
    uint32_t size() const;
    trace::TokenRecord const* record(uint32_t position) const; // null: missing
    Token token(uint32_t position) const;                      // NO_TOKEN: missing
    bool generated(uint32_t position) const;                   // sampled, not fed
};

// How even a load is. Beside each figure stands what pure chance would give.
struct Balance {
    double cv = 0, chance_cv = 0;     // standard deviation over mean
    double entropy = 1;               // of log(experts), 0 to 1
    double effective = 0;             // exp(entropy): as many equally busy experts
    double max_violation = 0;         // largest load over the mean, less 1
    double idle = 0, chance_idle = 0; // share of experts never chosen
};

// Where an expert was chosen.
struct Use {
    uint32_t position = 0, choice = 0;
    float weight = 0;
};

class Store {
  public:
    static constexpr bool SMALL = sizeof(void*) == 4;                      // a browser's address space
    static constexpr uint64_t LIMIT = SMALL ? 256ull << 20 : 512ull << 20; // bytes of tables
    // positions of all timelines: sessions that were closed go first, and what is still beyond counts as lost
    static constexpr size_t MOST_SLOTS = SMALL ? 1u << 20 : 1u << 21;
    Store(trace::Identity identity, trace::TextOf text_of, uint64_t limit = LIMIT,
          size_t most_slots = MOST_SLOTS);
    void begin_anew(trace::Identity identity); // forgets all that was brought

    void ingest(const trace::Packet& packet);

    const trace::Identity& identity() const { return identity_; }
    const trace::Shape& shape() const { return identity_.shape; }
    // What the source says of its model ("n_heads", "name", ...) and device; 0, "" and false where it does
    // not.
    double model_number(const char* key) const;
    bool model_says(const char* key) const;
    std::vector<double> model_numbers(const char* key) const; // of a list; those that are none are left out
    std::string model_name() const;
    std::string device() const;
    const std::vector<Timeline>& timelines() const { return timelines_; }
    const Timeline* timeline(uint32_t session) const; // null: there is none
    std::string text(Token token) const { return text_of_ ? text_of_(token) : std::string(); }
    const std::vector<trace::Event>& memory() const { return memory_; } // an event for each owner
    uint64_t revision() const { return revision_; }                     // grows with every change
    uint64_t lost() const { return lost_; }                             // records that the source dropped
    uint64_t thinned() const { return thinned_; }                       // records whose tables were let go
    uint64_t bytes() const { return bytes_; }

    // Choices of each expert by the tokens [begin, end): (MoE layers, n_experts).
    std::vector<uint32_t> load(const Timeline& timeline, uint32_t begin, uint32_t end) const;
    Balance balance(std::span<const uint32_t> load, uint32_t tokens) const; // of one layer
    std::vector<Use> uses(const Timeline& timeline, uint32_t layer,
                          uint32_t expert) const; // largest weight first
    // Experts chosen together with this one, most often first, at most `n`: (expert, times).
    std::vector<std::pair<uint32_t, uint32_t>> partners(const Timeline& timeline, uint32_t layer,
                                                        uint32_t expert, size_t n) const;
    // Attention of a layer in a token's step; null: it was not watched then, or is not known any more.
    static const trace::AttentionRows* attention(const Timeline& timeline, uint32_t position, uint32_t layer);
    const std::vector<uint32_t>& watched() const { return watched_; } // layers that any record tells of
    // Of the newest record with times at or before `position`; null: there is none.
    static const trace::TokenRecord* timed(const Timeline& timeline, uint32_t position);
    // Where two timelines part; see trace::compare.
    trace::Difference difference(const Timeline& a, const Timeline& b) const;
    // Positions of tokens whose text contains `text`, at most `most`.
    std::vector<uint32_t> find(const Timeline& timeline, std::string_view text, size_t most) const;
    // Of each MoE layer the expert whose tokens are most often of a kind, beside how often the others' are;
    // of those that `at_least` tokens chose. Empty where none did.
    std::vector<std::optional<uint32_t>> specialists(const Timeline& timeline,
                                                     const std::function<bool(Token)>& is_of_kind,
                                                     uint32_t at_least) const;
    // Tokens a second, over the last `window` generated ones; 0 while there are fewer than two.
    double speed(const Timeline& timeline, uint32_t window) const;
    // The q-quantile of the time between generated tokens, seconds.
    double token_seconds(const Timeline& timeline, double q) const;
    double first_token_seconds(const Timeline& timeline) const; // from the first prompt token seen

  private:
    Timeline& timeline_of(uint32_t session);
    void put(const trace::TokenRecord& record);
    void take_event(const trace::Event& event);
    void make_slots(uint32_t session, size_t more);
    void cut(Timeline& timeline, uint32_t position);
    void thin();

    trace::Identity identity_;
    trace::TextOf text_of_;
    uint64_t limit_;
    std::vector<Timeline> timelines_;
    std::vector<trace::Event> memory_;
    std::vector<uint32_t> watched_; // in order
    size_t most_slots_, slots_ = 0;
    uint64_t revision_ = 0, lost_ = 0, thinned_ = 0, bytes_ = 0;
};

// What one head does in one step: the share of its attention that goes to the first position (a sink), to the
// last LOCAL ones, its entropy in bits, and the position of the bin that gets most.
struct Focus {
    static constexpr uint32_t LOCAL = 8;
    double sink = 0, local = 0, entropy = 0;
    uint32_t most = 0; // number of the bin
};
Focus focus(const trace::AttentionRows& rows, uint32_t head, uint32_t position); // head: from the first told
// The weights of one head, or their mean over all.
std::vector<float> attention_of(const trace::AttentionRows& rows, std::optional<uint32_t> head);

// What kind of text a token is, by its bytes.
enum class TokenClass : uint8_t { begins_word, within_word, number, punctuation, space, special, other };
constexpr std::array<std::string_view, 7> CLASS_NAMES = {
    "begins a word", "goes on in one", "number", "punctuation", "space", "special", "other script"};
TokenClass class_of(std::string_view text);

// The probability that a token had when it was chosen, or NaN: from the candidates before it.
double probability(const Timeline& timeline, uint32_t position);
// What is said for certain about the choice of a token: entropy of its candidates and of the rest as one,
// bits.
double uncertainty(const Timeline& timeline, uint32_t position);

} // namespace fathom::viewer
