// The ops of the model: each appends one kernel launch to a Plan, with its grid, its specialisation
// constants, the memory it reads and writes, and its reference in C++ (beside it in the .cpp). Parameters and
// formulas: shaders/params.h and the shader of the same name. The sizes of tiles come from the plan's bucket
// of rows and the device's Caps; they never change a result's bits.
#pragma once

#include "checkpoint/weight_format.h"
#include "model/plan.h"

namespace fathom {

// Weights of a matrix in device memory, or of a bank of equal matrices (experts).
struct Matrix {
    View view;
    Format format = Format::f32;
    uint32_t rows = 0, cols = 0, row_bytes = 0;
    uint32_t count = 1;        // matrices in the bank
    uint64_t matrix_bytes = 0; // from one to the next
};

// A part of every row of the trace ring: from where it is in the first row to the ring's end; its rows are
// `stride` words apart. No bytes: nothing is told.
struct Trace {
    View view;
    uint32_t stride = 0;
    uint64_t address() const { return view.bytes ? view.address : 0; }
    uint32_t words() const { return view.bytes ? stride : 0; }
};

// Activations that an op reads; with `norm` (a weight for each column) it norms them as it reads them, to the
// bits of rms_norm.
struct Input {
    Rows rows;
    View norm; // no bytes: as they are
    float eps = 0;
    Trace trace; // where the norm is told
    Input(Rows plain) : rows(plain) {}
    Input(Rows raw, View weight, float epsilon, Trace told = {})
        : rows(raw), norm(weight), eps(epsilon), trace(told) {}
    bool normed() const { return norm.bytes != 0; }
    Input untold() const { return {rows, norm, eps}; } // another op has told the norm
    uint64_t norm_address() const { return normed() ? norm.address : 0; }
};

// A gated MLP, or a bank of them: gate and up (width, dim), down (dim, width).
struct Mlp {
    Matrix gate, up, down;
};

// The up-projection of the latent to the keys and values of every head: one matrix, head by head the rows of
// its keys and then of its values, or two (without rows in `whole`), keys transposed.
struct KvB {
    Matrix whole; // (n_heads * (nope + value), latent)
    Matrix k, v;  // (n_heads * latent, nope), (n_heads * value, latent)
    bool split() const { return whole.rows == 0; }
};

// What the ops of a step share.
struct StepMemory {
    View state; // StepHeader, StepRow[MAX_ROWS], the headers of blocks
    View pages; // page tables: (sequences, max_pages)
    View rope;  // (positions, rope_dim / 2) pairs of cos and sin
    uint32_t max_pages = 0;
    uint32_t page_bytes = 0; // of one page of one layer
    uint32_t row_floats = 0; // numbers of one cache row
    uint32_t row_bytes = 0, cache_format = CACHE_F32;
    uint32_t half_split = 0;
};

// Where a row of numbers has the key and the value of head h: at h * key_step, value_first + h * value_step.
struct HeadRanges {
    uint32_t key_step = 0, value_first = 0, value_step = 0;
};

struct AttentionShape { // plain attention: rope_dim is the whole head, nope_dim and latent_dim are 0
    uint32_t n_heads = 0, nope_dim = 0, rope_dim = 0, value_dim = 0, latent_dim = 0;
    float scale = 0;
    bool is_plain() const { return latent_dim == 0; }
    uint32_t row_floats() const; // of a cache row
    HeadRanges
    ranges() const; // of a cache row; a latent one is all heads' key, and its beginning their value
    uint32_t key_floats() const { return is_plain() ? ranges().key_step : row_floats(); }
    uint32_t query_floats() const; // of a head of rotate_queries: nope and rope, each padded to four
};

struct RoutingShape {
    uint32_t n_experts = 0, n_active = 0, n_shared = 0, n_groups = 1, n_active_groups = 1, flags = 0;
    float scale = 1;
    uint32_t n_slots() const { return n_active + n_shared; }
};

// The lists that expert_sort makes, for up to MAX_ROWS * slots pairs.
struct MoeLists {
    View pairs, items;
    uint32_t tile = 0, max_items = 0;
    MoeGrids grids{}; // but for the number of tiles, which expert_sort finds
};
// Pairs of a tile: few where lanes share a dot product, else by what an expert gets on average.
uint32_t moe_least_tile(uint32_t rows);
uint32_t moe_tile(const Plan& plan, const Mlp& mlp, uint32_t n_slots);
// Tiles there can be, at most.
uint32_t moe_max_items(uint32_t rows, uint32_t n_slots, uint32_t n_experts, uint32_t tile);
MoeLists moe_lists(const Plan& plan, const Mlp& mlp, uint32_t n_slots, View pairs, View items);
// Whether a step of this bucket sorts its pairs by expert, to read an expert's weights once for several
// tokens.
bool moe_grouped(const Plan& plan);

void embed(Plan&, const std::string& label, const StepMemory&, const Matrix& table, Rows y, View counts);
void rms_norm(Plan&, const std::string& label, const StepMemory&, Rows x, View weight, Rows y, float eps,
              Trace trace = {});
void matmul(Plan&, const std::string& label, const StepMemory&, const Matrix& weights, const Input& x, Rows y,
            bool add);

void latent_write(Plan&, const std::string& label, const StepMemory&, const AttentionShape&, Rows kv,
                  View weight, View cache, float eps);
void absorb(Plan&, const std::string& label, const StepMemory&, const AttentionShape&, const KvB&, Rows q,
            View y);
// Attention over the cache and its combination, in blocks of rows whose partial results fit `partial`.
void latent_attention(Plan&, const std::string& label, const StepMemory&, const AttentionShape&, const KvB&,
                      View q, View cache, View partial, Rows y);
uint64_t partial_row_bytes(const gpu::Caps&, const AttentionShape&); // of `partial` for one token row
// Cache rows of a block of positions, as many as its header in the step's state says, at most the plan's
// rows: as floats and unpaged into y (rows, row_floats).
void cache_read(Plan&, const std::string& label, const StepMemory&, View block, View cache, View y);
// Keys and values from latent rows, into kv (T, n_heads * (nope + value)): head by head, or all keys before
// all values where kv_b is split.
void expand_kv(Plan&, const std::string& label, const StepMemory&, const AttentionShape&, const KvB&,
               Rows latent, Rows kv);
HeadRanges expanded_ranges(const AttentionShape&, bool split); // of a row that expand_kv makes
// Blocks of `bucket` rows that hold the positions before a chunk, rounded up to two significant bits: so that
// there are few plans, for the price of some launches that find nothing.
uint32_t history_blocks(uint32_t bucket, uint32_t before);
// A block of positions with what it was expanded to, and its place among a chunk's blocks: EXPANDED_FIRST,
// EXPANDED_LAST, both or neither.
struct Expanded {
    View header, latent;
    Rows kv;
    HeadRanges heads; // of a row of kv
    uint32_t place = EXPANDED_FIRST | EXPANDED_LAST;
};
// A chunk's queries as expanded_attention takes them: y (T, n_heads, query_floats).
void rotate_queries(Plan&, const std::string& label, const StepMemory&, const AttentionShape&, Rows q,
                    View y);
// Between a chunk's blocks `running` (T, n_heads, 2) and y keep what has been summed.
void expanded_attention(Plan&, const std::string& label, const StepMemory&, const AttentionShape&, View q,
                        const Expanded& block, View running, Rows y);

// A ring that attention maps are written into: one row for each token, `stride` floats apart; of one layer,
// from where it is in the first row to the ring's end.
struct MapRing {
    View view;
    uint32_t stride = 0, rows = 0;
    uint32_t first_head = 0, n_heads = 0, width = 0; // heads watched, bins of each at most
};
// For those who watch; `q` (T, heads * key floats) as absorb or kv_write leaves them.
void attention_map(Plan&, const std::string& label, const StepMemory&, const AttentionShape&, Rows q,
                   View cache, const MapRing& ring);

// Plain multi-head attention: rotated keys and values into the cache, rotated queries into y (T, heads, key
// floats); and attention over the cache, as latent_attention.
void kv_write(Plan&, const std::string& label, const StepMemory&, const AttentionShape&, Rows q, Rows k,
              Rows v, View cache, View y);
void plain_attention(Plan&, const std::string& label, const StepMemory&, const AttentionShape&, View q,
                     View cache, View partial, Rows y);

// Where the workgroups of a launch meet; see shaders/arrival.glsl.
inline uint64_t arrival_bytes(uint32_t rows, uint32_t words) { return 4ull * (MAX_ROWS + rows * words); }
uint32_t sample_words(uint32_t vocab); // of a row of the sampler

struct RouterMemory {
    View bias, control, experts, expert_weights; // bias may be absent (no bytes)
    View arrivals;                               // arrival_bytes(T, n_experts), 0 before the first launch
    Trace trace;
    uint32_t scores_at = 0; // words from `trace` to where all scores and keys are told; 0: nowhere
};
void router(Plan&, const std::string& label, const StepMemory&, const RoutingShape&, const Matrix& gate,
            const Input& x, const RouterMemory& memory);
void expert_sort(Plan&, const std::string& label, const StepMemory&, uint32_t n_experts, uint32_t n_slots,
                 View experts, const MoeLists& lists);
// For a dense layer `experts` and `expert_weights` have no bytes, n_slots is 1 and the bank holds one matrix.
void moe_up(Plan&, const std::string& label, const StepMemory&, const Mlp& mlp, uint32_t n_slots,
            const Input& x, View experts, const MoeLists& lists, Rows act);
// y += the weighted sum over slots; `pairs_out` (T * slots, dim) is used when pairs are grouped.
void moe_down(Plan&, const std::string& label, const StepMemory&, const Matrix& down, uint32_t n_slots,
              Rows act, View experts, View expert_weights, const MoeLists& lists, Rows pairs_out, Rows y);

struct SampleMemory {
    View logits, adjusted, samplers, counts, bias, mask, sampled, arrivals;
    uint32_t vocab = 0, mask_words = 0;
};
void sample(Plan&, const std::string& label, const StepMemory&, const SampleMemory& memory);
void copy_rows(Plan&, const std::string& label, const StepMemory&, Rows x, uint32_t repeat, Rows y);
void random_rows(Plan&, const std::string& label, RandomRows params);

} // namespace fathom
