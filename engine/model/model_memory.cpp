// The sizes of a model's memory; see model_memory.h.
#include "model/model_memory.h"

#include "base/error.h"
#include "base/numbers.h"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

namespace fathom {

namespace {

constexpr uint64_t PARTIAL_BYTES = 64ull
                                   << 20; // of attention's partial results; larger steps go in blocks of rows

// Shared experts are slots like the routed ones where they lie in one bank with them.
RoutingShape routing_shape(const ModelConfig& c) {
    RoutingShape shape{c.n_routed_experts,
                       c.n_active_experts,
                       c.n_shared_experts,
                       c.n_groups,
                       c.n_active_groups,
                       0,
                       static_cast<float>(c.routed_scaling_factor)};
    if (c.scoring == Scoring::sigmoid) shape.flags |= ROUTER_SIGMOID;
    if (c.topk_method == TopkMethod::group_limited_greedy) shape.flags |= ROUTER_GROUP_MAX;
    if (c.topk_method == TopkMethod::noaux_tc) shape.flags |= ROUTER_GROUP_TOP2;
    if (c.norm_topk_prob) shape.flags |= ROUTER_NORMALISE;
    if (c.topk_method == TopkMethod::greedy) shape.n_groups = shape.n_active_groups = 1;
    return shape;
}

Rows rows(Memory& memory, uint64_t count, uint32_t cols) {
    const auto stride =
        static_cast<uint32_t>(round_up(cols, 8)); // kernels read the last chunk of eight whole
    const View view = memory.allocate("workspace", gpu::Placement::device, count * stride * 4);
    return {view.address, cols, stride};
}

} // namespace

uint32_t bucket_for(uint32_t rows) { return std::bit_ceil(std::max(rows, 1u)); }

ModelMemory::ModelMemory(const ModelConfig& c, const WeightSource& source, const ModelOptions& options,
                         const gpu::Caps& caps, Memory& memory)
    : config(c), cache_format(options.cache_format),
      layout_(layout_of(c, source, options.layout(), weights_)) {
    if (source.check) source.check(layout_);
    if (c.n_active_experts > MAX_ACTIVE)
        throw Error({.what = "too many active experts",
                     .where = "num_experts_per_tok",
                     .expected = fmt::format("at most {}", MAX_ACTIVE),
                     .got = fmt::format("{}", c.n_active_experts)});
    allocate_weights(layout_, weights_, memory);
    shape_ = {c.n_heads,    c.qk_nope_head_dim, c.qk_rope_head_dim,
              c.v_head_dim, c.kv_lora_rank,     static_cast<float>(c.softmax_scale())};
    routing_ = routing_shape(c);
    for (uint32_t i = 0; i < c.n_layers; ++i) n_moe_layers += c.is_moe(i);
    row_floats = shape_.row_floats();
    row_bytes = cache_row_bytes(options.cache_format, row_floats);
    page_bytes = PAGE_TOKENS * row_bytes;
    max_pages = div_up(options.context, PAGE_TOKENS);
    mask_words = div_up(c.vocab_size, 32);
    logits_stride = static_cast<uint32_t>(round_up(c.vocab_size, 8));
    trace_stride = options.trace ? trace_of_scores(TRACE_SCORES) : 0;
    allocate_state(memory);
    const std::vector<uint64_t> pages(c.n_layers, uint64_t{options.pages} * page_bytes);
    cache = memory.allocate("latent cache", gpu::Placement::device, pages);
    const uint64_t rope_bytes = 8ull * options.context * (c.qk_rope_head_dim / 2);
    rope_ = memory.allocate("RoPE table", gpu::Placement::device, rope_bytes);
    allocate_workspace(memory, caps, std::max(options.chunk, MAX_DECODE_ROWS));
}

Trace ModelMemory::trace_from(uint32_t word) const {
    if (trace_stride == 0) return {};
    return {{trace.address + 4ull * word, trace.bytes - 4ull * word}, trace_stride};
}

uint64_t ModelMemory::steered_experts() const {
    return std::max<uint64_t>(1, uint64_t{n_moe_layers} * config.n_routed_experts);
}

void ModelMemory::allocate_state(Memory& memory) {
    using gpu::Placement;
    const auto shared = [&](uint64_t bytes) {
        return memory.allocate("step state", Placement::shared, bytes);
    };
    static_assert(block_header_at(0) == sizeof(StepHeader) + MAX_ROWS * sizeof(StepRow));
    state = shared(block_header_at(history_blocks(LEAST_BLOCK, max_pages * PAGE_TOKENS)));
    page_tables = shared(4ull * MAX_SEQUENCES * max_pages);
    samplers = shared(MAX_SEQUENCES * sizeof(SamplerState));
    bias = shared(8ull * MAX_SEQUENCES * MAX_BIAS);
    mask = shared(4ull * MAX_SEQUENCES * mask_words);
    sampled = memory.allocate("sampled tokens", Placement::readback,
                              MAX_SEQUENCES * SAMPLED_RING * sizeof(Sampled));
    if (trace_stride != 0)
        trace = memory.allocate("trace ring", Placement::readback, 4ull * TRACE_ROWS * trace_stride);
    counts = memory.allocate("step state", Placement::device, 4ull * MAX_SEQUENCES * config.vocab_size);
    control = memory.allocate("step state", Placement::device, 8 * steered_experts());
}

void ModelMemory::allocate_workspace(Memory& memory, const gpu::Caps& caps, uint32_t n) {
    const ModelConfig& c = config;
    const auto bytes = [&](uint64_t size) {
        return memory.allocate("workspace", gpu::Placement::device, size);
    };
    work_.x = rows(memory, n, c.dim);
    work_.normed = rows(memory, n, c.dim);
    allocate_attention_workspace(memory, caps, n);
    const uint64_t pairs = uint64_t{n} * std::max(routing_.n_slots(), 1u);
    const uint32_t n_experts = std::max(c.n_routed_experts + c.n_shared_experts, 1u);
    uint64_t act_floats = pairs * round_up(c.expert_dim, 8); // one buffer serves dense and MoE layers
    act_floats = std::max<uint64_t>(act_floats, n * round_up(c.dense_dim, 8));
    work_.act = {bytes(4 * act_floats).address, 0, 0};
    work_.pairs_out = rows(memory, pairs, c.dim);
    work_.experts = bytes(4 * pairs);
    work_.expert_weights = bytes(4 * pairs);
    work_.arrivals = bytes(std::max(arrival_bytes(bucket_for(n), c.n_routed_experts),
                                    arrival_bytes(MAX_DECODE_ROWS, sample_words(c.vocab_size))));
    work_.pairs = bytes(4 * pairs);
    allocate_unstacked_workspace(memory, n);
    uint32_t max_items = 0;
    for (uint32_t bucket = 1; bucket <= bucket_for(n); bucket *= 2)
        max_items = std::max(max_items, moe_max_items(bucket, std::max(routing_.n_slots(), 1u), n_experts,
                                                      moe_least_tile(bucket)));
    work_.items = bytes(sizeof(MoeGrids) + uint64_t{max_items} * sizeof(MoeItem));
    logits = bytes(4ull * MAX_DECODE_ROWS * logits_stride);
    work_.adjusted = bytes(4ull * MAX_DECODE_ROWS * logits_stride);
}

void ModelMemory::allocate_attention_workspace(Memory& memory, const gpu::Caps& caps, uint32_t n) {
    const ModelConfig& c = config;
    const auto bytes = [&](uint64_t size) {
        return memory.allocate("workspace", gpu::Placement::device, size);
    };
    work_.attended = rows(memory, n, c.n_heads * c.v_head_dim);
    const uint32_t q_cols = c.n_heads * c.qk_head_dim();
    if (c.is_mla()) {
        allocate_latent_workspace(memory, n);
    } else {
        work_.q_kv_a = rows(memory, n, 2 * q_cols + c.n_heads * c.v_head_dim);
        work_.q = work_.q_kv_a.columns(0, q_cols);
    }
    work_.cached = bytes(4ull * n * row_floats + 32); // rows are read in whole chunks of eight
    work_.q_cached = bytes(4ull * n * c.n_heads * std::max(shape_.key_floats(), shape_.query_floats()) + 32);
    const uint64_t partial = partial_row_bytes(caps, shape_);
    work_.partial = bytes(std::max(partial, std::min(partial * n, PARTIAL_BYTES)));
    work_.running = bytes(8ull * n * c.n_heads);
}

void ModelMemory::allocate_latent_workspace(Memory& memory, uint32_t n) {
    const ModelConfig& c = config;
    const uint32_t q_cols = c.n_heads * c.qk_head_dim(), first = c.q_lora_rank ? c.q_lora_rank : q_cols;
    work_.q_kv_a = rows(memory, n, first + c.latent_dim());
    if (c.q_lora_rank) {
        work_.q_a = rows(memory, n, c.q_lora_rank);
        work_.q = rows(memory, n, q_cols);
    } else {
        work_.q = work_.q_kv_a.columns(0, q_cols);
    }
    work_.kv = rows(memory, n, c.n_heads * (c.qk_nope_head_dim + c.v_head_dim));
}

// What matrices need that could not be stacked.
void ModelMemory::allocate_unstacked_workspace(Memory& memory, uint32_t n) {
    const auto any = [&](const auto& is) {
        return std::any_of(weights_.layers.begin(), weights_.layers.end(), is);
    };
    if (any([](const LayerWeights& w) { return w.kv_a.rows != 0; }))
        work_.kv_a = rows(memory, n, config.latent_dim());
    if (any([](const LayerWeights& w) { return w.k.rows != 0; }))
        work_.k = rows(memory, n, config.n_heads * config.qk_head_dim());
    if (any([](const LayerWeights& w) { return w.v.rows != 0; }))
        work_.v = rows(memory, n, config.n_heads * config.v_head_dim);
    if (!any([](const LayerWeights& w) { return w.shared.down.rows != 0; })) return;
    work_.shared_act = rows(memory, n, config.n_shared_experts * config.expert_dim);
    work_.shared_out = rows(memory, n, config.dim);
    const uint64_t items =
        sizeof(MoeGrids) +
        uint64_t{moe_max_items(bucket_for(n), 1, 1, moe_least_tile(bucket_for(n)))} * sizeof(MoeItem);
    work_.shared_pairs = memory.allocate("workspace", gpu::Placement::device, 4ull * n);
    work_.shared_items = memory.allocate("workspace", gpu::Placement::device, items);
}

} // namespace fathom
