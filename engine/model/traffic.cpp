// One function for each kernel; see traffic.h. Shapes: shaders/params.h.
#include "model/traffic.h"

#include "base/error.h"
#include "base/numbers.h"
#include "checkpoint/weight_format.h"
#include "model/ops/reference.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <set>

namespace fathom {

namespace {

using reference::pad4;

// The traffic of one op while it is put together.
class Builder {
  public:
    explicit Builder(const StepFacts& facts) : facts_(facts) {}

  private:
    const StepFacts& facts_;

  public:
    uint32_t n = 0; // rows
    Traffic out;

    const StepRow& row(uint32_t t) const { return facts_.rows[t]; }
    void read(ADDRESS at, uint64_t bytes) {
        if (at != 0 && bytes != 0) out.reads.push_back({at, bytes});
    }
    void write(ADDRESS at, uint64_t bytes, bool exact = false) {
        if (at != 0 && bytes != 0) out.writes.push_back({{at, bytes}, exact});
    }
    // `rows` rows of `cols` floats, `stride` apart.
    void read_rows(ADDRESS at, uint64_t rows, uint32_t cols, uint32_t stride) {
        for (uint64_t r = 0; r < rows; ++r) read(at + r * stride * 4, 4ull * cols);
    }
    void write_rows(ADDRESS at, uint64_t rows, uint32_t cols, uint32_t stride, bool add = false) {
        for (uint64_t r = 0; r < rows; ++r) write(at + r * stride * 4, 4ull * cols);
        if (add) read_rows(at, rows, cols, stride);
    }
    // The header of a step or of a block, and with it how many rows there are; and a step's rows.
    void header(ADDRESS at) {
        n = std::min(rows_of(at), facts_.most);
        read(at, sizeof(StepHeader));
    }
    void state(ADDRESS at) {
        header(at);
        read(at + sizeof(StepHeader), n * sizeof(StepRow));
    }
    uint32_t rows_of(ADDRESS header) const { return words(header, 1).front(); }
    void matrix(ADDRESS at, uint64_t rows, uint32_t row_bytes) { read(at, rows * row_bytes); }
    void products(double rows, double cols, double tokens) { out.flops += 2 * rows * cols * tokens; }
    std::vector<uint32_t> words(ADDRESS at, uint64_t count) const {
        std::vector<uint32_t> values(count);
        if (count != 0) facts_.read({at, 4 * count}, values);
        return values;
    }

    // The cache rows [0, end) of a sequence.
    void cached(ADDRESS cache, ADDRESS pages, uint32_t sequence, uint32_t end, uint32_t max_pages,
                uint32_t page_bytes, uint32_t row_bytes) {
        const ADDRESS table = pages + 4ull * sequence * max_pages;
        const std::vector<uint32_t> page = words(table, div_up(end, PAGE_TOKENS));
        read(table, 4 * page.size());
        for (uint32_t i = 0; i < page.size(); ++i)
            read(cache + uint64_t{page[i]} * page_bytes,
                 uint64_t{std::min<uint32_t>(PAGE_TOKENS, end - i * PAGE_TOKENS)} * row_bytes);
    }
    ADDRESS cache_row(ADDRESS cache, ADDRESS pages, const StepRow& r, uint32_t max_pages, uint32_t page_bytes,
                      uint32_t row_bytes) const {
        const ADDRESS entry = pages + 4ull * (r.sequence * max_pages + r.position / PAGE_TOKENS);
        return cache + uint64_t{words(entry, 1).front()} * page_bytes +
               uint64_t{r.position % PAGE_TOKENS} * row_bytes;
    }
    // For each sequence of rows [first, last) the farthest end that `end` gives, and the sum of all ends.
    template <class End>
    double sequences(uint32_t first, uint32_t last, const End& end,
                     std::map<uint32_t, uint32_t>& ends) const {
        double total = 0;
        for (uint32_t t = first; t < std::min(last, n); ++t) {
            ends[row(t).sequence] = std::max(ends[row(t).sequence], end(row(t)));
            total += end(row(t));
        }
        return total;
    }

    // The distinct experts of the step's pairs, and what the lists take.
    std::set<uint32_t> experts(ADDRESS at, uint32_t n_slots) {
        if (at == 0) return {0};
        const std::vector<uint32_t> chosen = words(at, uint64_t{n} * n_slots);
        read(at, 4 * chosen.size());
        return {chosen.begin(), chosen.end()};
    }
};

using B = Builder&;

void traffic(B b, const Embed& p) {
    b.state(p.state);
    std::set<uint32_t> tokens;
    for (uint32_t t = 0; t < b.n; ++t) tokens.insert(b.row(t).token);
    for (const uint32_t token : tokens) b.matrix(p.table + uint64_t{token} * p.row_bytes, 1, p.row_bytes);
    for (uint32_t t = 0; t < b.n; ++t) {
        const ADDRESS count = p.counts + 4 * (uint64_t{b.row(t).sequence} * p.vocab + b.row(t).token);
        b.read(count, 4);
        b.write(count, 4, true);
    }
    b.write_rows(p.y, b.n, p.dim, p.y_stride);
    b.out.shape = fmt::format("{} of {} rows of {}", tokens.size(), p.vocab, p.dim);
}

void traffic(B b, const RmsNorm& p) {
    b.header(p.state);
    b.read_rows(p.x, b.n, p.n, p.x_stride);
    b.read(p.weight, 4ull * p.n);
    b.write_rows(p.y, b.n, p.n, p.y_stride);
    b.out.flops = 4.0 * p.n * b.n;
    b.out.shape = fmt::format("{}", p.n);
}

void traffic(B b, const MatMul& p) {
    b.header(p.state);
    b.matrix(p.weights, p.n_out, p.row_bytes);
    b.read_rows(p.x, b.n, p.n_in, p.x_stride);
    b.read(p.norm, 4ull * p.n_in);
    b.write_rows(p.y, b.n, p.n_out, p.y_stride, p.add);
    b.products(p.n_out, p.n_in, b.n);
    b.out.shape = fmt::format("{} x {}", p.n_out, p.n_in);
}

// The cache row of each token, written with its rotation.
template <class Params> void write_cache(B b, const Params& p, uint32_t rope_dim) {
    for (uint32_t t = 0; t < b.n; ++t) {
        const StepRow& r = b.row(t);
        b.read(p.rope + 4ull * r.position * rope_dim, 4ull * rope_dim);
        b.read(p.pages + 4ull * (r.sequence * p.max_pages + r.position / PAGE_TOKENS), 4);
        b.write(b.cache_row(p.cache, p.pages, r, p.max_pages, p.page_bytes, p.row_bytes), p.row_bytes);
        b.out.writes.back().packed = p.row_bytes != 4 * p.row_floats;
    }
}

void traffic(B b, const LatentWrite& p) {
    b.state(p.state);
    b.read_rows(p.kv, b.n, p.latent_dim + p.rope_dim, p.kv_stride);
    b.read(p.weight, 4ull * p.latent_dim);
    write_cache(b, p, p.rope_dim);
    b.out.flops = b.n * (4.0 * p.latent_dim + 3.0 * p.rope_dim);
    b.out.shape = fmt::format("{} + {}", p.latent_dim, p.rope_dim);
}

void traffic(B b, const CacheRead& p) {
    b.header(p.block);
    b.read(p.state + sizeof(StepHeader), sizeof(StepRow));
    const uint32_t first = b.words(p.block + offsetof(StepHeader, first), 1).front();
    StepRow r = b.row(0);
    for (uint32_t i = 0; i < b.n; ++i) {
        r.position = first + i;
        b.read(p.pages + 4ull * (r.sequence * p.max_pages + r.position / PAGE_TOKENS), 4);
        b.read(b.cache_row(p.cache, p.pages, r, p.max_pages, p.page_bytes, p.row_bytes), p.row_bytes);
    }
    b.write(p.y, 4ull * b.n * p.row_floats);
    b.out.shape = fmt::format("{} rows of {}", b.n, p.row_floats);
}

template <class Params> void absorbed(B b, const Params& p, uint32_t head_rows, uint32_t keys) {
    b.state(p.state);
    b.read_rows(p.q, b.n, p.n_heads * (p.nope_dim + p.rope_dim), p.q_stride);
    for (uint32_t h = 0; h < p.n_heads; ++h)
        b.matrix(p.weights + uint64_t{h} * head_rows * p.row_bytes, keys, p.row_bytes);
    for (uint32_t t = 0; t < b.n; ++t)
        b.read(p.rope + 4ull * b.row(t).position * p.rope_dim, 4ull * p.rope_dim);
    b.write(p.y, 4ull * b.n * p.n_heads * p.row_floats);
    b.products(double(p.n_heads) * p.nope_dim, p.latent_dim, b.n);
    b.out.shape = fmt::format("{} heads x {} to {}", p.n_heads, p.nope_dim, p.latent_dim);
}
void traffic(B b, const Absorb& p) { absorbed(b, p, p.nope_dim + p.value_dim, p.nope_dim); }
void traffic(B b, const AbsorbSplit& p) { absorbed(b, p, p.latent_dim, p.latent_dim); }

void traffic(B b, const ExpandKeys& p) {
    b.header(p.state);
    b.read_rows(p.latent, b.n, p.latent_dim, p.latent_stride);
    b.matrix(p.weights, uint64_t{p.n_heads} * p.latent_dim, p.row_bytes);
    b.write_rows(p.y, b.n, p.n_heads * p.nope_dim, p.y_stride);
    b.products(double(p.n_heads) * p.nope_dim, p.latent_dim, b.n);
    b.out.shape = fmt::format("{} heads x {} to {}", p.n_heads, p.latent_dim, p.nope_dim);
}

// The parts of attention over the cache that have positions: where, and how long, for each row and head.
template <class Params, class Take>
void each_part(B b, const Params& p, uint32_t value_dim, const Take& take) {
    const uint64_t part_bytes = 4ull * (pad4(value_dim) + 4);
    for (uint32_t t = p.first_row; t < std::min(p.last_row, b.n); ++t) {
        const uint32_t used = reference::parts_used(b.row(t), p.n_parts);
        for (uint32_t h = 0; h < p.n_heads; ++h)
            take(p.partial + (uint64_t{t - p.first_row} * p.n_heads + h) * p.n_parts * part_bytes,
                 used * part_bytes);
    }
}

void traffic(B b, const CachedAttention& p) {
    b.state(p.state);
    const uint32_t rows = std::min(p.last_row, b.n) - std::min(p.first_row, b.n);
    b.read(p.q + 4ull * p.first_row * p.n_heads * p.key_floats, 4ull * rows * p.n_heads * p.key_floats);
    std::map<uint32_t, uint32_t> ends;
    const double positions = b.sequences(
        p.first_row, p.last_row, [](const StepRow& r) { return r.position + 1; }, ends);
    for (const auto& [sequence, end] : ends)
        b.cached(p.cache, p.pages, sequence, end, p.max_pages, p.page_bytes, p.row_bytes);
    each_part(b, p, p.value_dim, [&](ADDRESS address, uint64_t bytes) { b.write(address, bytes); });
    b.products(p.n_heads, p.key_floats + p.value_dim, positions);
    b.out.shape = fmt::format("{} heads, {} positions of {}", p.n_heads,
                              rows ? static_cast<uint64_t>(positions / rows) : 0, p.row_floats);
}

// Reads the parts; returns how many.
template <class Params> double read_parts(B b, const Params& p, uint32_t value_dim) {
    double parts = 0;
    each_part(b, p, value_dim, [&](ADDRESS address, uint64_t bytes) {
        b.read(address, bytes);
        parts += double(bytes) / (4.0 * (pad4(value_dim) + 4));
    });
    b.products(parts, value_dim, 1);
    return parts;
}

void traffic(B b, const AttentionJoin& p) {
    b.state(p.state);
    const uint32_t rows = std::min(p.last_row, b.n) - std::min(p.first_row, b.n);
    const double parts = read_parts(b, p, p.value_dim);
    b.write_rows(p.y + 4ull * p.first_row * p.y_stride, rows, p.n_heads * p.value_dim, p.y_stride);
    b.out.shape = fmt::format("{} heads x {} parts of {}", p.n_heads,
                              rows ? static_cast<uint64_t>(parts / rows / p.n_heads) : 0, p.value_dim);
}

void traffic(B b, const AttentionCombine& p) {
    b.state(p.state);
    const uint32_t rows = std::min(p.last_row, b.n) - std::min(p.first_row, b.n);
    const double parts = read_parts(b, p, p.latent_dim);
    for (uint32_t h = 0; h < p.n_heads; ++h)
        b.matrix(p.weights + (uint64_t{h} * (p.skipped_rows + p.value_dim) + p.skipped_rows) * p.row_bytes,
                 p.value_dim, p.row_bytes);
    b.write_rows(p.y + 4ull * p.first_row * p.y_stride, rows, p.n_heads * p.value_dim, p.y_stride);
    b.products(double(p.n_heads) * p.value_dim, p.latent_dim, rows);
    b.out.shape =
        fmt::format("{} heads x {} parts, {} to {}", p.n_heads,
                    rows ? static_cast<uint64_t>(parts / rows / p.n_heads) : 0, p.latent_dim, p.value_dim);
}

void traffic(B b, const RotateQueries& p) {
    b.state(p.state);
    b.read_rows(p.q, b.n, p.n_heads * (p.nope_dim + p.rope_dim), p.q_stride);
    for (uint32_t t = 0; t < b.n; ++t)
        b.read(p.rope + 4ull * b.row(t).position * p.rope_dim, 4ull * p.rope_dim);
    b.write(p.y, 4ull * b.n * p.n_heads * (pad4(p.nope_dim) + pad4(p.rope_dim)));
    b.out.flops = 3.0 * b.n * p.n_heads * p.rope_dim;
    b.out.shape = fmt::format("{} heads x {} + {}", p.n_heads, p.nope_dim, p.rope_dim);
}

void traffic(B b, const ExpandedAttention& p) {
    b.state(p.state);
    const uint32_t head_dim = p.nope_dim + p.rope_dim, latent4 = pad4(p.latent_dim);
    b.read(p.block, sizeof(StepHeader));
    const uint32_t block_rows = b.rows_of(p.block),
                   first = b.words(p.block + offsetof(StepHeader, first), 1).front();
    b.read(p.q, 4ull * b.n * p.n_heads * (pad4(p.nope_dim) + pad4(p.rope_dim)));
    double pairs = 0;
    uint32_t keys = 0;
    for (uint32_t t = 0; t < b.n; ++t) {
        const StepRow& r = b.row(t);
        keys = std::min(block_rows, r.position + 1 - std::min(first, r.position + 1));
        pairs += keys;
    }
    b.read_rows(p.kv, keys, p.v_first + (p.n_heads - 1) * p.v_stride + p.value_dim, p.kv_stride);
    for (uint32_t j = 0; j < keys; ++j)
        b.read(p.latent + 4ull * (uint64_t{j} * p.row_floats + latent4), 4ull * p.rope_dim);
    const bool reads_before = !(p.place & EXPANDED_FIRST);
    b.write_rows(p.y, b.n, p.n_heads * p.value_dim, p.y_stride, reads_before);
    if (reads_before) b.read(p.running, 8ull * b.n * p.n_heads);
    if (!(p.place & EXPANDED_LAST)) b.write(p.running, 8ull * b.n * p.n_heads);
    b.products(p.n_heads, head_dim + p.value_dim, pairs);
    b.out.shape = fmt::format("{} heads x {}, {} positions", p.n_heads, head_dim, keys);
}

void traffic(B b, const KvWrite& p) {
    b.state(p.state);
    b.read_rows(p.q, b.n, p.n_heads * p.head_dim, p.q_stride);
    b.read_rows(p.k, b.n, p.n_heads * p.head_dim, p.k_stride);
    b.read_rows(p.v, b.n, p.n_heads * p.value_dim, p.v_stride);
    write_cache(b, p, p.head_dim);
    b.write(p.y, 4ull * b.n * p.n_heads * pad4(p.head_dim));
    b.out.flops = 6.0 * b.n * p.n_heads * p.head_dim;
    b.out.shape = fmt::format("{} heads x {} + {}", p.n_heads, p.head_dim, p.value_dim);
}

void traffic(B b, const AttentionMap& p) {
    b.state(p.state);
    b.read_rows(p.q + 4ull * p.first_head * p.key_floats, b.n, p.n_heads * p.key_floats, p.q_stride);
    std::map<uint32_t, uint32_t> ends;
    const double positions = b.sequences(
        0, b.n, [](const StepRow& r) { return r.position + 1; }, ends);
    for (const auto& [sequence, end] : ends)
        b.cached(p.cache, p.pages, sequence, end, p.max_pages, p.page_bytes, p.row_bytes);
    b.write_rows(p.map, b.n, p.n_heads * p.width, p.map_stride);
    b.products(p.n_heads, p.key_floats, positions);
    b.out.shape = fmt::format("{} heads x {}, {} bins", p.n_heads, p.key_floats, p.width);
}

void traffic(B b, const Router& p) {
    b.header(p.state);
    b.matrix(p.weights, p.n_experts, p.row_bytes);
    b.read(p.bias, 4ull * p.n_experts);
    b.read(p.control, 8ull * p.n_experts);
    b.read_rows(p.x, b.n, p.dim, p.x_stride);
    b.read(p.norm, 4ull * p.dim);
    b.write(p.experts, 4ull * b.n * p.n_slots, true);
    b.write(p.expert_weights, 4ull * b.n * p.n_slots);
    b.products(p.n_experts, p.dim, b.n);
    b.out.shape = fmt::format("{} of {} experts, {}", p.n_active, p.n_experts, p.dim);
}

void traffic(B b, const ExpertSort& p) {
    b.header(p.state);
    const uint64_t pairs = uint64_t{b.n} * p.n_slots;
    std::map<uint32_t, uint32_t> counts;
    if (p.experts == 0)
        counts[0] = b.n * p.n_slots;
    else
        for (const uint32_t e : b.words(p.experts, pairs)) ++counts[e];
    uint64_t items = 0;
    for (const auto& [expert, count] : counts) items += div_up(count, p.tile);
    b.read(p.experts, 4 * pairs);
    b.write(p.pairs, 4 * pairs, true);
    b.write(p.items, sizeof(MoeGrids) + items * sizeof(MoeItem), true);
    b.out.shape = fmt::format("{} pairs, {} experts", pairs, p.n_experts);
}

void traffic(B b, const MoeUp& p) {
    b.header(p.state);
    const std::set<uint32_t> chosen = b.experts(p.experts, p.n_slots);
    const uint32_t pairs = b.n * p.n_slots, matrices = p.part == MOE_UP_BOTH ? 2 : 1;
    for (const uint32_t e : chosen) {
        const uint64_t bank = e * uint64_t(p.expert_bytes);
        if (p.part != MOE_UP_UP) b.matrix(p.gate + bank, p.width, p.row_bytes);
        if (p.part != MOE_UP_GATE) b.matrix(p.up + bank, p.width, p.row_bytes);
    }
    b.read_rows(p.x, b.n, p.dim, p.x_stride);
    b.read(p.norm, 4ull * p.dim);
    b.write_rows(p.act, pairs, p.width, p.act_stride, p.part == MOE_UP_UP);
    b.products(double(matrices) * p.width, p.dim, pairs);
    b.out.shape =
        fmt::format("{} pairs, {} experts, {} x {} x {}", pairs, chosen.size(), matrices, p.width, p.dim);
}

void traffic(B b, const MoeDown& p) {
    b.header(p.state);
    const std::set<uint32_t> chosen = b.experts(p.experts, p.n_slots);
    const uint32_t pairs = b.n * p.n_slots;
    for (const uint32_t e : chosen) b.matrix(p.weights + e * uint64_t(p.expert_bytes), p.dim, p.row_bytes);
    b.read_rows(p.act, pairs, p.width, p.act_stride);
    b.read(p.expert_weights, p.grouped ? 0 : 4ull * pairs);
    b.write_rows(p.y, p.grouped ? pairs : b.n, p.dim, p.y_stride, !p.grouped);
    b.products(p.dim, p.width, pairs);
    b.out.shape = fmt::format("{} pairs, {} experts, {} x {}", pairs, chosen.size(), p.dim, p.width);
}

void traffic(B b, const MoeReduce& p) {
    b.header(p.state);
    b.read_rows(p.x, uint64_t{b.n} * p.n_slots, p.dim, p.x_stride);
    b.read(p.expert_weights, 4ull * b.n * p.n_slots);
    b.write_rows(p.y, b.n, p.dim, p.y_stride, true);
    b.products(p.n_slots, p.dim, b.n);
    b.out.shape = fmt::format("{} x {}", p.n_slots, p.dim);
}

void traffic(B b, const Sample& p) {
    b.state(p.state);
    b.read_rows(p.logits, b.n, p.vocab, p.logits_stride);
    std::set<uint32_t> sequences;
    for (uint32_t t = 0; t < b.n; ++t) sequences.insert(b.row(t).sequence);
    for (const uint32_t s : sequences) {
        b.read(p.samplers + s * sizeof(SamplerState), sizeof(SamplerState));
        b.read(p.counts + 4ull * s * p.vocab, 4ull * p.vocab);
        b.read(p.bias + 8ull * s * MAX_BIAS, 8ull * MAX_BIAS);
        b.read(p.mask + 4ull * s * p.mask_words, 4ull * p.mask_words);
    }
    for (uint32_t t = 0; t < b.n; ++t) {
        const uint32_t slot = b.row(t).sequence * SAMPLED_RING + (b.row(t).position + 1) % SAMPLED_RING;
        b.write(p.sampled + slot * sizeof(Sampled), 8, true); // token and position
        b.write(p.sampled + slot * sizeof(Sampled) + 8, 8);   // the two sums
    }
    b.write_rows(p.adjusted, b.n, p.vocab, p.logits_stride);
    b.out.flops = 4.0 * p.vocab * b.n;
    b.out.shape = fmt::format("{} logits", p.vocab);
}

void traffic(B b, const CopyRows& p) {
    b.header(p.state);
    b.read_rows(p.x, uint64_t{b.n} * p.row_repeat, p.n, p.x_stride);
    b.write_rows(p.y, uint64_t{b.n} * p.row_repeat, p.n, p.y_stride);
    b.out.shape = fmt::format("{} x {}", p.row_repeat, p.n);
}

template <class Params> void with_params(B b, const std::byte* bytes) {
    Params params;
    std::memcpy(&params, bytes, sizeof(params));
    traffic(b, params);
}

using Handler = void (*)(B, const std::byte*);
const std::map<std::string_view, Handler> handlers = {
    {"embed", with_params<Embed>},
    {"rms_norm", with_params<RmsNorm>},
    {"matmul", with_params<MatMul>},
    {"latent_write", with_params<LatentWrite>},
    {"cache_read", with_params<CacheRead>},
    {"absorb", with_params<Absorb>},
    {"absorb_split", with_params<AbsorbSplit>},
    {"expand_keys", with_params<ExpandKeys>},
    {"cached_attention", with_params<CachedAttention>},
    {"attention_combine", with_params<AttentionCombine>},
    {"rotate_queries", with_params<RotateQueries>},
    {"expanded_attention", with_params<ExpandedAttention>},
    {"kv_write", with_params<KvWrite>},
    {"attention_join", with_params<AttentionJoin>},
    {"attention_map", with_params<AttentionMap>},
    {"router", with_params<Router>},
    {"expert_sort", with_params<ExpertSort>},
    {"moe_up", with_params<MoeUp>},
    {"moe_down", with_params<MoeDown>},
    {"moe_reduce", with_params<MoeReduce>},
    {"sample", with_params<Sample>},
    {"copy_rows", with_params<CopyRows>},
};

} // namespace

namespace {

struct Module { // parts of a module's name
    std::string_view kernel, format;
    Tier tier = Tier::base;
};
bool take_word(std::string_view& text, std::string_view word) { // "_word" from its end
    if (!text.ends_with(word) || text.size() <= word.size() || text[text.size() - word.size() - 1] != '_')
        return false;
    text.remove_suffix(word.size() + 1);
    return true;
}
Module parts_of(std::string_view name) {
    Module module{name, "", Tier::base};
    for (const Format format : FORMATS) {
        if (!take_word(module.kernel, name_of(format))) continue;
        module.format = name_of(format);
        break;
    }
    for (const Tier tier : TIERS)
        if (take_word(module.kernel, name_of(tier))) module.tier = tier;
    return module;
}

} // namespace

std::string_view kernel_of(std::string_view module) { return parts_of(module).kernel; }
std::string_view format_of(std::string_view module) { return parts_of(module).format; }
Tier tier_of(std::string_view module) { return parts_of(module).tier; }

Traffic traffic_of(const Op& op, const StepFacts& facts) {
    const auto handler = handlers.find(kernel_of(op.module));
    check(handler != handlers.end(), "the traffic of every kernel is known");
    Builder builder(facts);
    handler->second(builder, op.params);
    return std::move(builder.out);
}

uint64_t Traffic::bytes() const {
    uint64_t total = 0;
    for (const View& view : reads) total += view.bytes;
    for (const Write& write : writes) total += write.view.bytes;
    return total;
}

} // namespace fathom
