// The forward pass (Model::build, attention, feed_forward), in reading order at the end of this file. What is
// kept for a tap is copied out right after it was made. Followed: DeepSeek-V2 (arXiv 2405.04434), V3 (arXiv
// 2412.19437).
#include "model/forward.h"

#include "base/error.h"
#include "base/numbers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fmt/format.h>

namespace fathom {

namespace {

bool matches(std::string_view pattern, std::string_view name) {
    if (pattern.empty()) return name.empty();
    if (pattern[0] == '*')
        return matches(pattern.substr(1), name) || (!name.empty() && matches(pattern, name.substr(1)));
    return !name.empty() && pattern[0] == name[0] && matches(pattern.substr(1), name.substr(1));
}

constexpr uint64_t MOST_MAP_BYTES = 64ull << 20; // of the ring of attention maps

// A watch as it is, with what it left open filled in.
trace::LayerWatch watched_with(const ModelConfig& c, trace::LayerWatch watch, uint32_t context) {
    std::sort(watch.layers.begin(), watch.layers.end());
    watch.layers.erase(std::unique(watch.layers.begin(), watch.layers.end()), watch.layers.end());
    if (!watch.layers.empty() && watch.layers.back() >= c.n_layers)
        throw Error({.what = "no such layer to watch",
                     .expected = fmt::format("0 to {}", c.n_layers - 1),
                     .got = fmt::format("{}", watch.layers.back())});
    if (watch.first_head >= c.n_heads || watch.n_heads > c.n_heads - watch.first_head)
        throw Error({.what = "no such heads to watch",
                     .expected = fmt::format("heads of 0 to {}", c.n_heads - 1),
                     .got = fmt::format("{} from head {}", watch.n_heads, watch.first_head)});
    if (watch.n_heads == 0) watch.n_heads = c.n_heads - watch.first_head;
    watch.width = watch.width == 0 ? context : std::min(watch.width, context);
    return watch;
}

} // namespace

Model::Model(const ModelConfig& c, const WeightSource& source, const ModelOptions& options,
             Executor& executor)
    : ModelMemory(c, source, options, executor.caps(), executor), executor_(executor), options_(options) {
    step_ = {state,
             page_tables,
             rope_,
             max_pages,
             page_bytes,
             row_floats,
             row_bytes,
             static_cast<uint32_t>(options.cache_format),
             !c.rope_interleaved};
    std::vector<float> neutral(2 * steered_experts());
    for (size_t i = 1; i < neutral.size(); i += 2) neutral[i] = 1;
    executor.upload(control, 0, std::as_bytes(std::span(neutral)));
    const std::vector<std::byte> none_arrived(work_.arrivals.bytes);
    executor.upload(work_.arrivals, 0, none_arrived);
    upload_rope(options.context);
    source.fill(layout_, executor);
    layout_ = {};
}

// cos and sin of position * frequency: the angle in float32 as transformers forms it, its functions in
// double.
void Model::upload_rope(uint32_t context) {
    const RopeFrequencies rope = rope_frequencies(config);
    const auto half = static_cast<uint32_t>(rope.inv_freq.size());
    std::vector<float> rows;
    for (uint32_t position = 0, first = 0; position < context; ++position) {
        for (const float frequency : rope.inv_freq) {
            const float angle = static_cast<float>(position) * frequency;
            rows.push_back(static_cast<float>(std::cos(double(angle)) * rope.factor));
            rows.push_back(static_cast<float>(std::sin(double(angle)) * rope.factor));
        }
        if (rows.size() < (1u << 20) && position + 1 < context) continue;
        executor_.upload(rope_, 8ull * first * half, std::as_bytes(std::span(rows)));
        rows.clear();
        first = position + 1;
    }
    executor_.flush();
}

void Model::write_step(StepKind kind, std::span<const StepRow> rows, uint32_t trace_slot) const {
    const auto n = static_cast<uint32_t>(rows.size());
    const StepHeader header{n, kind.mode == StepKind::Mode::decode ? n : 0, trace_slot, rows[0].position};
    std::byte* const memory = executor_.mapped(state);
    std::memcpy(memory, &header, sizeof(header));
    std::memcpy(memory + sizeof(header), rows.data(), rows.size_bytes());
    check(block_header_at(kind.history) <= state.bytes, "the headers of a step's blocks fit its memory");
    for (uint32_t i = 0; i < kind.history; ++i) {
        const uint32_t first = std::min(i * kind.rows, header.first);
        const StepHeader block{std::min(kind.rows, header.first - first), 0, 0, first};
        std::memcpy(memory + block_header_at(i), &block, sizeof(block));
    }
}

const Plan& Model::plan(StepKind kind) {
    const uint32_t most = kind.mode == StepKind::Mode::prefill ? bucket_for(options_.chunk) : MAX_DECODE_ROWS;
    check(kind.rows == bucket_for(kind.rows) && kind.rows <= most, "a plan is asked for by its bucket");
    if (const auto it = plans_.find(kind); it != plans_.end()) return *it->second;
    return *plans_.emplace(kind, make_plan(kind, options_.tiers)).first->second;
}

std::unique_ptr<Plan> Model::make_plan(StepKind kind, const Tiers& tiers) {
    const char* mode = kind.mode == StepKind::Mode::decode    ? "decode"
                       : kind.mode == StepKind::Mode::prefill ? "prefill"
                                                              : "logits";
    auto plan =
        std::make_unique<Plan>(fmt::format("{} {}{}{}", mode, kind.rows, kind.expanded ? " expanded" : "",
                                           kind.history ? fmt::format(" after {}", kind.history) : ""),
                               executor_.caps(), kind.rows, kind.mode == StepKind::Mode::prefill, tiers);
    if (!options_.taps.empty()) plan->on_tap = [this](Plan& p, const TapPoint& point) { keep_tap(p, point); };
    build(*plan, kind);
    plan->finish();
    return plan;
}

void Model::set_tiers(const Tiers& tiers) {
    options_.tiers = tiers;
    forget_plans();
}

void Model::forget_plans() {
    for (const auto& [kind, plan] : plans_) executor_.forget(*plan);
    plans_.clear();
    taps_.clear();
}

const std::vector<TapBuffer>& Model::taps(const Plan& plan) const {
    static const std::vector<TapBuffer> none;
    const auto it = taps_.find(&plan);
    return it == taps_.end() ? none : it->second;
}

void Model::watch(const trace::LayerWatch& wanted) {
    WatchedLayers next{watched_with(config, wanted, options_.context), watched_.ring, 0, 0};
    const trace::LayerWatch& w = next.watch;
    if (!w.layers.empty()) {
        next.stride = static_cast<uint32_t>(w.layers.size()) * w.n_heads * w.width;
        const uint32_t least = std::max(bucket_for(options_.chunk), 2 * MAX_DECODE_ROWS);
        const uint64_t bytes = std::bit_ceil(4ull * next.stride * least);
        if (bytes > MOST_MAP_BYTES)
            throw Error({.what = "more attention than can be watched at once",
                         .where = fmt::format("{} layers of {} heads, {} positions wide", w.layers.size(),
                                              w.n_heads, w.width),
                         .expected = fmt::format("at most {} numbers of a token, for a prompt's {} tokens",
                                                 MOST_MAP_BYTES / 4 / least, least),
                         .got = fmt::format("{}", next.stride),
                         .fix = "watch fewer layers or heads, or narrower maps"});
        if (next.ring.bytes < bytes) // a smaller one is lost: memory goes back with the device alone
            next.ring =
                executor_
                    .allocate("attention maps", gpu::Placement::readback, std::vector<uint64_t>{bytes}, false)
                    .front();
        next.rows = std::bit_floor(static_cast<uint32_t>(next.ring.bytes / 4 / next.stride));
    }
    watched_ = std::move(next);
    forget_plans();
}

std::vector<uint32_t> Model::scored() const {
    std::vector<uint32_t> layers;
    for (const uint32_t layer : watched_.watch.layers)
        if (config.is_moe(layer) && layers.size() < TRACE_SCORES) layers.push_back(layer);
    return layers;
}

bool Model::is_watched(uint32_t layer) const {
    const auto& layers = watched_.watch.layers;
    return std::find(layers.begin(), layers.end(), layer) != layers.end();
}

void Model::keep_map(Plan& plan, uint32_t layer, Rows q) {
    const trace::LayerWatch& w = watched_.watch;
    const auto nth =
        static_cast<uint64_t>(std::find(w.layers.begin(), w.layers.end(), layer) - w.layers.begin());
    const uint64_t offset = 4 * nth * w.n_heads * w.width;
    attention_map(plan, fmt::format("layers.{}.attention_map", layer), step_, shape_, q, cache[layer],
                  {{watched_.ring.address + offset, watched_.ring.bytes - offset},
                   watched_.stride,
                   watched_.rows,
                   w.first_head,
                   w.n_heads,
                   w.width});
}

bool Model::is_wanted(const std::string& tap) const {
    const auto wanted = [&](const std::string& pattern) { return matches(pattern, tap); };
    return std::any_of(options_.taps.begin(), options_.taps.end(), wanted);
}

void Model::keep_tap(Plan& plan, const TapPoint& point) {
    if (!is_wanted(point.name)) return;
    const uint32_t n = plan.rows() * point.repeat, cols = point.rows.cols;
    const uint64_t bytes = 4ull * n * cols, taken = round_up(bytes, 256);
    // Many in one range: GPU-assisted validation looks an address up among all ranges, one after the other.
    if (tap_room_.bytes < taken)
        tap_room_ =
            executor_.allocate("taps", gpu::Placement::readback, std::max<uint64_t>(taken, 4ull << 20));
    const View view{tap_room_.address, bytes};
    tap_room_ = {tap_room_.address + taken, tap_room_.bytes - taken};
    copy_rows(plan, "tap " + point.name, step_, point.rows, point.repeat, {view.address, cols, cols});
    taps_[&plan].push_back({point.name, view, cols, point.repeat});
}

RoutingShape Model::routing_for(const LayerWeights& w) const {
    RoutingShape shape = routing_;
    shape.n_shared = w.mlp.down.count - shape.n_experts;
    return shape;
}

void Model::build(Plan& plan, StepKind kind) {
    Workspace& m = work_;
    embed(plan, "embed", step_, weights_.embedding, m.x, counts);
    plan.tap("embed", m.x);
    for (uint32_t i = 0, moe_layer = 0; i < config.n_layers; ++i) {
        attention(plan, kind, weights_.layers[i], i);
        feed_forward(plan, weights_.layers[i], i, moe_layer);
        moe_layer += weights_.layers[i].moe;
    }
    if (kind.mode == StepKind::Mode::prefill) return;
    const Rows scores{logits.address, config.vocab_size, logits_stride};
    const Input x = normed(plan, "final_norm", m.x, weights_.norm, config.rms_norm_eps, m.normed,
                           trace_from(trace_of_norm(config.n_layers)));
    matmul(plan, "logits", step_, weights_.head, x, scores, false);
    plan.tap("logits", scores);
    if (kind.mode != StepKind::Mode::decode) return;
    sample(plan, "sample", step_,
           {logits, work_.adjusted, samplers, counts, bias, mask, sampled, work_.arrivals, config.vocab_size,
            mask_words});
}

Input Model::normed(Plan& plan, const std::string& label, Rows x, View weight, double eps, Rows out,
                    Trace told) {
    // One or two tokens: a launch of its own costs more than to norm in every workgroup anew. Not where tiers
    // that cannot may read it.
    const bool fused = plan.rows() <= 2 && !plan.prefill();
    if (!fused || is_wanted(label)) {
        rms_norm(plan, label, step_, x, weight, out, static_cast<float>(eps), fused ? Trace{} : told);
        plan.tap(label, out);
    }
    if (fused) return {x, weight, static_cast<float>(eps), told};
    return out;
}

void Model::attention(Plan& plan, StepKind kind, const LayerWeights& w, uint32_t layer) {
    Workspace& m = work_;
    const auto label = [&](const char* name) { return fmt::format("layers.{}.{}", layer, name); };
    const Input x = normed(plan, label("attn_norm"), m.x, w.attn_norm, config.rms_norm_eps, m.normed,
                           trace_from(trace_of_norm(layer)));
    if (config.is_mla())
        attend_to_latent(plan, kind, w, x, layer);
    else
        attend_plainly(plan, kind, w, x, layer);
    plan.tap(label("attended"), m.attended);
    matmul(plan, label("o"), step_, w.o, m.attended, m.x, true);
    plan.tap(label("after_attention"), m.x);
}

void Model::attend_plainly(Plan& plan, StepKind kind, const LayerWeights& w, const Input& x, uint32_t layer) {
    Workspace& m = work_;
    const auto label = [&](const char* name) { return fmt::format("layers.{}.{}", layer, name); };
    const uint32_t keys = config.n_heads * config.qk_head_dim(), values = config.n_heads * config.v_head_dim;
    matmul(plan, label("qkv"), step_, w.q_kv_a, x, m.q_kv_a.columns(0, w.q_kv_a.rows), false);
    // What is not stacked goes elsewhere, for as columns of one buffer the two would exclude each other.
    const Rows k = w.k.rows ? m.k : m.q_kv_a.columns(keys, keys);
    const Rows v = w.v.rows ? m.v : m.q_kv_a.columns(2 * keys, values);
    if (w.k.rows) matmul(plan, label("k"), step_, w.k, x.untold(), k, false);
    if (w.v.rows) matmul(plan, label("v"), step_, w.v, x.untold(), v, false);
    plan.tap(label("q"), m.q);
    plan.tap(label("k"), k);
    plan.tap(label("v"), v);
    const Rows queries = cached_queries();
    const View q = queries.span(plan.rows());
    kv_write(plan, label("kv_write"), step_, shape_, m.q, k, v, cache[layer], q);
    if (is_watched(layer)) keep_map(plan, layer, queries);
    if (kind.expanded)
        attend_expanded(plan, kind, w, layer);
    else
        plain_attention(plan, label("plain_attention"), step_, shape_, q, cache[layer], m.partial,
                        m.attended);
}

// Queries as the cache has keys.
Rows Model::cached_queries() const {
    const uint32_t cols = shape_.n_heads * shape_.key_floats();
    return {work_.q_cached.address, cols, cols};
}

void Model::attend_to_latent(Plan& plan, StepKind kind, const LayerWeights& w, const Input& x,
                             uint32_t layer) {
    Workspace& m = work_;
    const ModelConfig& c = config;
    const auto latent_eps = static_cast<float>(c.latent_norm_eps);
    const auto label = [&](const char* name) { return fmt::format("layers.{}.{}", layer, name); };
    const uint32_t first = c.q_lora_rank ? c.q_lora_rank : c.n_heads * c.qk_head_dim();
    matmul(plan, label("q_kv_a"), step_, w.q_kv_a, x, m.q_kv_a.columns(0, w.q_kv_a.rows), false);
    plan.tap(label("q_kv_a"), m.q_kv_a.columns(0, w.q_kv_a.rows));
    Rows kv_a = m.q_kv_a.columns(first, c.latent_dim());
    if (w.kv_a.rows !=
        0) { // not stacked: elsewhere, for as columns of one buffer the two would exclude each other
        kv_a = m.kv_a;
        matmul(plan, label("kv_a"), step_, w.kv_a, x.untold(), kv_a, false);
        plan.tap(label("kv_a"), kv_a);
    }
    latent_write(plan, label("latent_write"), step_, shape_, kv_a, w.kv_a_norm, cache[layer], latent_eps);
    if (c.q_lora_rank) {
        const Rows q_a = m.q_kv_a.columns(0, c.q_lora_rank);
        matmul(plan, label("q_b"), step_, w.q_b,
               normed(plan, label("q_a_norm"), q_a, w.q_a_norm, c.latent_norm_eps, m.q_a), m.q, false);
    }
    plan.tap(label("q"), m.q);

    const Rows absorbed = cached_queries();
    const View q_latent = absorbed.span(plan.rows());
    if (!kind.expanded || is_watched(layer))
        absorb(plan, label("absorb"), step_, shape_, w.kv_b, m.q, q_latent);
    if (is_watched(layer)) keep_map(plan, layer, absorbed);
    if (kind.expanded) {
        attend_expanded(plan, kind, w, layer);
    } else {
        plan.tap(label("q_latent"), absorbed);
        latent_attention(plan, label("latent_attention"), step_, shape_, w.kv_b, q_latent, cache[layer],
                         m.partial, m.attended);
    }
}

// Every key and value is used by many rows of the chunk: worth expanding once, or, of plain attention, whose
// cache has them as they are, unpaging. Block by block of the cache, as many positions as the plan has rows,
// the chunk's own last.
void Model::attend_expanded(Plan& plan, StepKind kind, const LayerWeights& w, uint32_t layer) {
    Workspace& m = work_;
    AttentionShape shape = shape_;
    Rows kv = m.kv;
    HeadRanges heads = expanded_ranges(shape_, w.kv_b.split());
    if (shape_.is_plain()) { // queries and keys are rotated
        shape.nope_dim = shape_.key_floats();
        shape.rope_dim = 0;
        kv = {m.cached.address, row_floats, row_floats};
        heads = shape_.ranges();
    } else {
        rotate_queries(plan, fmt::format("layers.{}.rotate_queries", layer), step_, shape_, m.q, m.q_cached);
    }
    const View q{m.q_cached.address, 4ull * plan.rows() * shape.n_heads * shape.query_floats()};
    for (uint32_t i = 0; i <= kind.history; ++i) {
        const bool own = i == kind.history;
        const auto label = [&](const char* name) {
            return fmt::format("layers.{}.{}{}", layer, own ? "" : "history.", name);
        };
        StepMemory block = step_;
        if (!own) block.state = {state.address + block_header_at(i), sizeof(StepHeader)};
        const Expanded expanded{{block.state.address, sizeof(StepHeader)},
                                {m.cached.address, 4ull * plan.rows() * row_floats},
                                kv,
                                heads,
                                (i == 0 ? EXPANDED_FIRST : 0u) | (own ? EXPANDED_LAST : 0u)};
        cache_read(plan, label("cache_read"), step_, expanded.header, cache[layer], expanded.latent);
        if (!shape_.is_plain()) {
            expand_kv(plan, label("kv_b"), block, shape_, w.kv_b,
                      {m.cached.address, config.kv_lora_rank, row_floats}, m.kv);
            if (own) plan.tap(label("kv"), m.kv);
        }
        expanded_attention(plan, label("expanded_attention"), step_, shape, q, expanded,
                           {m.running.address, 8ull * plan.rows() * config.n_heads}, m.attended);
    }
}

void Model::feed_forward(Plan& plan, const LayerWeights& w, uint32_t layer, uint32_t moe_layer) {
    Workspace& m = work_;
    const ModelConfig& c = config;
    const auto label = [&](const char* name) { return fmt::format("layers.{}.{}", layer, name); };
    const Input x = normed(plan, label("ffn_norm"), m.x, w.ffn_norm, c.rms_norm_eps, m.normed);

    // A dense layer is one expert that every token takes, without router or weight. Shared experts are behind
    // the routed ones in their bank, if that could be, else an MLP that follows.
    const RoutingShape routing = w.moe ? routing_for(w) : RoutingShape{};
    const uint32_t n_slots = w.moe ? routing.n_slots() : 1, width = w.mlp.down.cols,
                   pairs = plan.rows() * n_slots;
    const View experts{m.experts.address, w.moe ? 4ull * pairs : 0};
    const View expert_weights{m.expert_weights.address, w.moe ? 4ull * pairs : 0};
    const Rows act{m.act.address, width, static_cast<uint32_t>(round_up(width, 8))};
    const MoeLists lists = moe_lists(plan, w.mlp, n_slots, {m.pairs.address, 4ull * pairs}, m.items);
    if (w.moe) {
        const View layer_control{control.address + 8ull * moe_layer * c.n_routed_experts,
                                 8ull * c.n_routed_experts};
        const std::vector<uint32_t> telling = scored();
        const auto nth = std::find(telling.begin(), telling.end(), layer);
        const uint32_t scores_at =
            nth == telling.end()
                ? 0
                : trace_of_scores(static_cast<uint32_t>(nth - telling.begin())) - trace_of_choice(moe_layer);
        router(plan, label("router"), step_, routing, w.router, x,
               {w.router_bias, layer_control, experts, expert_weights, m.arrivals,
                trace_from(trace_of_choice(moe_layer)), scores_at});
        plan.tap(label("expert_weights"), {m.expert_weights.address, n_slots, n_slots});
    }
    if (moe_grouped(plan))
        expert_sort(plan, label("expert_sort"), step_, w.mlp.down.count, n_slots, experts, lists);
    moe_up(plan, label("moe_up"), step_, w.mlp, n_slots, x, experts, lists, act);
    plan.tap(label("act"), act, n_slots);
    // Shared experts apart from the bank are a dense MLP with lists and activations of its own. All that
    // reads x comes before what adds to it.
    const bool apart = w.shared.down.rows != 0;
    const MoeLists shared_lists =
        apart ? moe_lists(plan, w.shared, 1, {m.shared_pairs.address, 4ull * plan.rows()}, m.shared_items)
              : MoeLists();
    if (apart && moe_grouped(plan)) expert_sort(plan, label("shared_sort"), step_, 1, 1, {}, shared_lists);
    if (apart) moe_up(plan, label("shared_up"), step_, w.shared, 1, x, {}, shared_lists, m.shared_act);
    moe_down(plan, label("moe_down"), step_, w.mlp.down, n_slots, act, experts, expert_weights, lists,
             m.pairs_out, m.x);
    if (apart)
        moe_down(plan, label("shared_down"), step_, w.shared.down, 1, m.shared_act, {}, {}, shared_lists,
                 m.shared_out, m.x);
    plan.tap(label("after_ffn"), m.x);
}

} // namespace fathom
