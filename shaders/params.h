// The parameters of every kernel, and the small structures that kernels and the engine share in memory.
// Included as it is by C++ and GLSL: pointers first, then 32-bit numbers, at most 128 bytes, so that std430
// and C++ agree (asserted below). A kernel, its struct, its wrapper, its debug label and its test bear one
// name.
//
// Shapes are (rows, cols) in row-major order; a `_stride` is the distance between rows in floats. T is the
// number of token rows of a step, read by kernels from StepHeader::n_rows: a plan is recorded for at most a
// bucket of rows.
#ifndef FATHOM_PARAMS_H
#define FATHOM_PARAMS_H

#ifdef __cplusplus
#include <concepts>
#include <cstdint>
namespace fathom {
using uint = uint32_t;
using ADDRESS = uint64_t;       // a device address; a host pointer on the CPU executor
enum class BYTES : uint64_t {}; // a size, no address
#else
#define BYTES uvec2
#define ADDRESS uvec2 // low and high half: base-tier modules have no 64-bit integers
#endif

// Tokens in a page of the latent cache, and in one tile of the attention kernels.
#define PAGE_TOKENS 64
#define MAX_ROWS 1024     // token rows of one step
#define MAX_CANDIDATES 20 // most probable tokens kept by the sampler
#define SAMPLE_TILE 4096  // tokens of a workgroup of the sampler
#define SAMPLE_WORDS (2u + 2u * MAX_CANDIDATES) // that it leaves: see sample.comp
#define SAMPLED_RING 4    // steps of a sequence whose sampled tokens are kept
#define MAX_BIAS 1024     // entries of a session's bias list
#define MAX_PARTS 64      // of what attention over the cache leaves of a row and head
#define MAX_ACTIVE 32     // experts chosen for one token, at most
#define TRACE_ROWS 1024   // rows of the trace ring

// A token's row of the trace ring, 32-bit words: for each MoE layer TRACE_LAYER_WORDS (n_active experts in
// order of selection, their n_active weights as floats, and what TRACE_MARGIN and the others name), then the
// norm of the residual stream before each layer and after the last, sqrt(mean(x^2) + eps), as floats; then
// room for all scores of TRACE_SCORES layers, n_experts of them and as many keys each.
#define TRACE_LAYER_WORDS(n_active) (2u * (n_active) + 4u)
#define TRACE_SCORES 4u
#define TRACE_MARGIN 0u  // key of the last chosen less that of the best not chosen; infinite if there is none
#define TRACE_ENTROPY 1u // of the scores divided by their sum, in nats
#define TRACE_SWAPPED 2u // bit i: choice i is not among the n_active best scores of the kept groups
#define TRACE_GROUPS 3u  // bit g: group g of experts was kept

// A row of an attention map has at most `width` bins, each the sum of so many neighbouring positions: the
// least power of two that lets `length` positions fit.
#ifdef __cplusplus
constexpr
#endif
uint attention_pool(uint length, uint width) {
    uint pool = 1u;
    while ((length + pool - 1u) / pool > width) pool *= 2u;
    return pool;
}

// Numbers of a latent cache row: f32; f16; or bytes, then, behind CACHE_SCALES_AT, an f32 scale for each 32.
#define CACHE_F32 0
#define CACHE_F16 1
#define CACHE_Q8 2
#define CACHE_SCALES_AT(row_floats) ((row_floats + 15u) / 16u * 16u)

// What changes from step to step. It lies in memory that the host can write, at StepState: header, then rows.
struct StepHeader {
    uint n_rows;     // T of this step
    uint n_samples;  // the first n_samples rows are sampled (decode plans)
    uint trace_slot; // row of the trace ring for this step's row 0, modulo the ring
    uint first;      // position of row 0 (prefill)
};
struct StepRow {
    uint token;
    uint position; // of the token in its sequence, from 0
    uint sequence; // selects page table, sampler and counts
};
// Behind MAX_ROWS rows: a StepHeader for each block of cached positions that a prefill chunk expands, n_rows
// of them from `first`. What works on a block takes its header for the step's.
#ifdef __cplusplus
constexpr
#endif
uint block_header_at(uint block) { return 16u + MAX_ROWS * 12u + 16u * block; }

// What one sequence's sampler needs; written by the host when it changes.
struct SamplerState {
    float inv_temperature; // 0: greedy
    float top_p, min_p;
    float repetition_penalty, presence_penalty, frequency_penalty;
    uint top_k; // 0: all
    uint n_bias;
    uint use_mask; // 1: only tokens whose bit is set
    uint seed_low, seed_high;
    uint use_penalties;
};
// What one sequence's sampler tells; that of the token at position p is the sequence's number p %
// SAMPLED_RING.
struct Sampled {
    uint token;
    uint position; // of the sampled token
    float log_sum; // log of the sum of exp(logit - largest), after penalties, bias and mask, at temperature 1
    float largest;
    uint candidate[MAX_CANDIDATES];
    float logit[MAX_CANDIDATES];
};

struct Embed {                       // y[t] = table[token of t]; counts[sequence of t, token of t] += 1
    ADDRESS state, table, y, counts; // table (vocab, dim) in FORMAT; y (T, dim); counts (sequences, vocab)
    uint dim, vocab, row_bytes, y_stride;
};

struct RmsNorm {                 // y = x * weight / sqrt(mean(x^2) + eps)
    ADDRESS state, x, weight, y; // x (T, n), weight (n), y (T, n)
    ADDRESS trace;               // of this norm in the first row of the trace ring, or 0
    uint n, x_stride, y_stride, trace_stride;
    float eps;
};

struct MatMul { // y = x weights^T (+ y when add is 1), of x normed where there is a norm
    // weights (n_out, n_in) in FORMAT; x (T, n_in); norm (n_in) or 0; y (T, n_out)
    ADDRESS state, weights, x, norm, y;
    ADDRESS trace; // as of RmsNorm
    uint n_out, n_in, row_bytes, x_stride, y_stride, add, trace_stride;
    float eps;
};

// Latent norm, rotation of the shared key and cache write. A cache row is (latent, pad, k_pe, pad): each
// part padded to 4 floats with zeros.
struct LatentWrite {
    ADDRESS state, kv, weight, rope, pages, cache; // kv (T, kv_lora_rank + rope_dim); weight (kv_lora_rank)
    uint kv_stride, latent_dim, rope_dim, half_split, max_pages, page_bytes, row_floats;
    uint row_bytes, cache_format; // of a cache row; the format is the shader's constant CACHE
    float eps;
};

// y[i] = the cache row of position first + i of row 0's sequence, for the header `block`'s first and n_rows.
struct CacheRead {
    ADDRESS block, state, pages, cache, y; // y (n_rows, row_floats)
    uint max_pages, page_bytes, row_floats, row_bytes, cache_format;
};

// Queries moved into the latent space: y[t, h] = (q_nope[t, h] W_UK[h], rotated q_pe[t, h]), in cache-row
// layout.
struct Absorb {
    ADDRESS state, q, weights, rope, y; // q (T, heads, nope + rope); weights: kv_b; y (T, heads, row_floats)
    uint n_heads, nope_dim, rope_dim, value_dim, latent_dim, q_stride, row_bytes, row_floats, half_split;
};

// The same with W_UK apart and transposed, as GGUF has it.
struct AbsorbSplit {
    // q (T, heads, nope + rope); weights: k_b (heads, latent, nope) in FORMAT; y (T, heads, row_floats)
    ADDRESS state, q, weights, rope, y;
    uint n_heads, nope_dim, rope_dim, latent_dim, q_stride, row_bytes, row_floats, half_split;
};

struct ExpandKeys { // y[t, h] = latent[t] k_b[h]
    // latent (T, latent), weights: k_b (heads, latent, nope) in FORMAT; y (T, heads * nope)
    ADDRESS state, latent, weights, y;
    uint n_heads, nope_dim, latent_dim, latent_stride, row_bytes, y_stride;
};

// Softmax attention over the cache. Of latent attention all heads of a group share one read of a row, which
// is their key, and its latent prefix their value (key_step, value_first and value_step are 0); of plain
// attention head h has its own key at h * key_step of a row and its own value at value_first + h *
// value_step, multiples of 4. Positions are cut into n_parts contiguous ranges of whole pages.
struct CachedAttention {
    // q (T, heads, key_floats); partial (T, heads, parts, row): value (padded to 4), max, sum, 2 pad
    ADDRESS state, q, pages, cache, partial;
    uint n_heads, key_floats, key_step, value_dim, value_first, value_step;
    uint row_floats, row_bytes, cache_format, max_pages, page_bytes, n_parts;
    uint first_row, last_row; // the rows that this dispatch covers
    float scale;
};

// Joins the parts and raises the result to the value space: y[t, h] = W_UV[h] ctx[t, h].
struct AttentionCombine {
    // weights (heads, skipped + value, latent) in FORMAT: kv_b with its keys' rows skipped, or v_b;
    // y (T, heads * value)
    ADDRESS state, partial, weights, y;
    uint n_heads, skipped_rows, value_dim, latent_dim, n_parts, row_bytes, y_stride;
    uint first_row, last_row; // as of CachedAttention
};

struct AttentionJoin { // the same without raising: y[t, h] = ctx[t, h]
    ADDRESS state, partial, y; // y (T, heads * value)
    uint n_heads, value_dim, n_parts, y_stride, first_row, last_row;
};

// Attention of a prefill chunk to a block of positions, with keys and values expanded from the latent;
// causal. Blocks follow each other: until the last one y is not divided by the sum.
// Queries of a prompt, rotated and padded as expanded_attention takes them.
struct RotateQueries {
    ADDRESS state, q, rope, y; // q (T, heads * (nope + rope)); y (T, heads, nope and rope each padded to 4)
    uint n_heads, nope_dim, rope_dim, q_stride, half_split;
};
#define QUERY_SLICE 512 // numbers of a workgroup

struct ExpandedAttention {
    // block: a header; q as RotateQueries leaves it; kv (n_rows, heads * (nope + value)): keys of head h at
    // h * k_stride, values at v_first + h * v_stride; latent (n_rows, row_floats); running (T, heads) pairs
    // of the largest score so far and the sum of exp(score - largest); y (T, heads * value)
    ADDRESS state, block, q, kv, latent, running, y;
    uint n_heads, nope_dim, rope_dim, value_dim, latent_dim, kv_stride, y_stride;
    uint row_floats, k_stride, v_first, v_stride;
    uint place; // EXPANDED_FIRST and EXPANDED_LAST of the chunk's blocks
    float scale;
};
#define EXPANDED_FIRST 1u
#define EXPANDED_LAST 2u

// Plain multi-head attention: a cache row is (rotated keys of all heads, values of all heads), those of each
// head padded to 4 numbers with zeros. Rotates the queries too, padded likewise.
struct KvWrite {
    // q, k (T, heads * head), v (T, heads * value); y (T, heads, head padded to 4)
    ADDRESS state, q, k, v, rope, pages, cache, y;
    uint n_heads, head_dim, value_dim, q_stride, k_stride, v_stride, half_split, max_pages, page_bytes;
    uint row_floats, row_bytes, cache_format; // as of LatentWrite
};
#define KV_SLICE 512 // numbers of a workgroup: a multiple of 32

// What heads pay to the positions up to and with a token's own, for those who watch: the logarithms of the
// sums of exp(score) over each bin. A key of head h is key_floats numbers of a cache row, from h * key_step.
struct AttentionMap {
    // q (T, heads * key_floats); map: a ring of map_rows rows, that of the step's row t being
    // (trace_slot + t) % map_rows, with `width` bins for each head watched
    ADDRESS state, q, pages, cache, map;
    uint first_head, n_heads, key_floats, key_step, q_stride, max_pages, page_bytes, row_floats, row_bytes;
    uint cache_format, width, map_stride, map_rows;
    float scale;
};

// Scores, selection and weights of a token's experts; see router.comp.
struct Router {
    // weights (E, dim) in FORMAT; bias (E) or 0; norm (dim) or 0, by which x is normed; arrivals: see
    // arrival.glsl, E words of a token
    ADDRESS state, weights, bias, control, x, norm, experts, expert_weights, trace, arrivals;
    uint n_experts, dim, row_bytes, x_stride, n_active, n_groups, n_active_groups, flags;
    uint n_slots;      // columns of experts and expert_weights: active, then shared
    uint trace_stride; // 32-bit words between tokens in the trace ring; 0: no trace
    float scale, eps;
};
#define ROUTER_SIGMOID 1u    // score: sigmoid; else softmax over all experts
#define ROUTER_GROUP_MAX 2u  // groups ranked by their best key
#define ROUTER_GROUP_TOP2 4u // groups ranked by the sum of their two best keys
#define ROUTER_SCORES_AT 8u  // flags from this bit on: words from the layer's trace to its scores, or 0
#define ROUTER_NORMALISE 8u  // weights divided by their sum + 1e-20

// Sorts the (token, slot) pairs of a step by expert and cuts each expert's pairs into tiles.
struct ExpertSort {
    // experts (T, slots); pairs (T * slots); items: MoeGrids, then MoeItem
    ADDRESS state, experts, pairs, items;
    uint n_experts, n_slots, tile, max_items;
    uint up_blocks, up_parts, down_blocks, down_parts; // of MoeGrids
};
// The grids of the two halves as an indirect dispatch reads them: blocks of rows, tiles, parts of a tile.
struct MoeGrids {
    uint up_blocks, n_items, up_parts;
    uint down_blocks, n_items_again, down_parts;
    uint reserved0, reserved1;
};
struct MoeItem {
    uint expert, first, count, reserved;
};

struct MoeUp { // act[pair] = silu(gate x) * (up x), of x normed where there is a norm
    // gate, up (experts, width, dim) in FORMAT; norm (dim) or 0; act (T * slots, width)
    ADDRESS state, gate, up, x, norm, experts, pairs, items, act;
    BYTES expert_bytes; // from one expert to the next
    uint dim, width, row_bytes, n_slots, x_stride, act_stride, grouped;
    uint part; // MOE_UP_BOTH; or, where gate and up differ in format, one after the other
    float eps;
};
#define MOE_UP_BOTH 0u
#define MOE_UP_GATE 1u // act[pair] = silu(gate x)
#define MOE_UP_UP 2u   // act[pair] = act[pair] * (up x)

// Grouped: y[pair] = down act[pair]; else y[t] += sum over slots of weight * (down act[pair]).
struct MoeDown {
    ADDRESS state, weights, act, experts, expert_weights, pairs, items, y; // weights (experts, dim, width)
    BYTES expert_bytes;
    uint dim, width, row_bytes, n_slots, act_stride, y_stride, grouped;
};

struct MoeReduce {                       // y[t] += sum over slots of weight * x[pair]
    ADDRESS state, x, expert_weights, y; // x (T * slots, dim)
    uint dim, n_slots, x_stride, y_stride;
};

struct Sample {
    // logits, adjusted (rows, vocab); sampled (sequences, SAMPLED_RING); arrivals: see arrival.glsl,
    // SAMPLE_WORDS of a row and SAMPLE_TILE tokens
    ADDRESS state, logits, adjusted, samplers, counts, bias, mask, sampled, arrivals;
    uint vocab, logits_stride, mask_words, reserved;
};

struct CopyRows { // y[t] = x[t]; how taps are kept
    ADDRESS state, x, y;
    uint n, x_stride, y_stride, row_repeat; // row_repeat rows of x for each token row
};

// Words of one plane of a matrix's rows, out of a seed; see random_rows.comp.
struct RandomRows {
    ADDRESS y;
    uint rows, row_bytes;
    uint first_word, words, used; // of the plane in a row; words from `used` on are 0
    uint seed, period;            // period: 1 to 4
    uint mask[4], set[4];
};

// What the kernels that measure a device's roofs work on; see shaders/roof_*.comp.
struct RoofProbe {
    ADDRESS x, y, z; // n 16-byte words each, of kernels that move memory
    uint n;          // of them; rounds of kernels that compute
    uint seed;
};
#define ROOF_STEPS 16 // 16-byte words of an invocation; chained operations of a round

#ifdef __cplusplus
// The addresses that a struct of parameters begins with, counted by what it can be made of.
struct AnyAddress {
    template <std::same_as<ADDRESS> T> operator T() const;
};
template <class Params, class... Found> consteval uint count_addresses() {
    if constexpr (requires { Params{Found{}..., AnyAddress{}}; })
        return count_addresses<Params, Found..., AnyAddress>();
    else
        return sizeof...(Found);
}
template <class Params> constexpr bool fits_push_constants = sizeof(Params) <= 128 && alignof(Params) == 8;
static_assert(fits_push_constants<Embed> && fits_push_constants<RmsNorm> && fits_push_constants<MatMul> &&
              fits_push_constants<LatentWrite> && fits_push_constants<CacheRead> &&
              fits_push_constants<Absorb> &&
              fits_push_constants<AbsorbSplit> && fits_push_constants<ExpandKeys> &&
              fits_push_constants<KvWrite> && fits_push_constants<CachedAttention> &&
              fits_push_constants<AttentionCombine> && fits_push_constants<AttentionJoin> &&
              fits_push_constants<RotateQueries> && fits_push_constants<ExpandedAttention> &&
              fits_push_constants<AttentionMap> &&
              fits_push_constants<Router> &&
              fits_push_constants<ExpertSort> && fits_push_constants<MoeUp> && fits_push_constants<MoeDown> &&
              fits_push_constants<MoeReduce> && fits_push_constants<Sample> &&
              fits_push_constants<CopyRows> && fits_push_constants<RandomRows> &&
              fits_push_constants<RoofProbe>);
static_assert(count_addresses<MatMul>() == 6 && count_addresses<MoeUp>() == 9 &&
              count_addresses<LatentWrite>() == 6);
static_assert(sizeof(StepHeader) == 16 && sizeof(StepRow) == 12 && sizeof(SamplerState) == 48 &&
              sizeof(MoeItem) == 16 && sizeof(MoeGrids) == 32);
} // namespace fathom
#endif
#endif
