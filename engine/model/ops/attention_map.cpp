// What heads look at, for those who watch; of latent and of plain attention. Formula:
// shaders/attention_map.comp.
#include "model/ops/ops.h"
#include "model/ops/reference.h"

#include "base/error.h"

namespace fathom {

using namespace reference;

namespace {

void attention_map_reference(const AttentionMap& p) {
    for (uint32_t t = 0; t < n_rows(p.state); ++t) {
        const StepRow& r = step_row(p.state, t);
        const uint32_t pool = attention_pool(r.position + 1, p.width);
        float* map = row(p.map, (header(p.state).trace_slot + t) % p.map_rows, p.map_stride);
        for (uint32_t i = 0; i < p.n_heads; ++i) {
            const uint32_t h = p.first_head + i;
            const float* q = row(p.q, t, p.q_stride) + uint64_t{h} * p.key_floats;
            std::vector<double> scores;
            for (uint32_t j = 0; j <= r.position; ++j) {
                const ADDRESS cached =
                    cache_row(p.cache, p.pages, r, j, p.max_pages, p.page_bytes, p.row_bytes);
                const auto numbers = read_cache_row(p.cache_format, cached, p.row_floats);
                double score = 0;
                for (uint32_t c = 0; c < p.key_floats; ++c)
                    score += double(q[c]) * numbers[h * p.key_step + c];
                scores.push_back(score * p.scale);
            }
            for (size_t first = 0; first < scores.size(); first += pool) {
                const size_t n = std::min<size_t>(pool, scores.size() - first);
                std::vector<double> bin(scores.begin() + static_cast<std::ptrdiff_t>(first),
                                        scores.begin() + static_cast<std::ptrdiff_t>(first + n));
                const Softmax softmax(bin);
                map[uint64_t{i} * p.width + first / pool] =
                    static_cast<float>(softmax.largest + std::log(softmax.sum));
            }
        }
    }
}

// Workgroups that share the positions of one head: enough to fill a GPU when few tokens look.
uint32_t parts_for(const Plan& plan, uint32_t n_heads, uint32_t max_pages) {
    constexpr uint32_t WORKGROUPS = 1024;
    const uint32_t wanted =
        std::max(plan.caps().attention_parts, WORKGROUPS / std::max(1u, plan.rows() * n_heads));
    return std::max(1u, std::min(wanted, max_pages));
}

} // namespace

void attention_map(Plan& plan, const std::string& label, const StepMemory& step, const AttentionShape& shape,
                   Rows q, View cache, const MapRing& ring) {
    const uint32_t key_floats = shape.key_floats();
    check(4 * (key_floats + 2 * WORKGROUP) <= plan.caps().shared_bytes, "one query fits shared memory");
    const AttentionMap p{step.state.address, q.address,         step.pages.address,
                         cache.address,      ring.view.address, ring.first_head,
                         ring.n_heads,       key_floats,        shape.ranges().key_step,
                         q.stride,           step.max_pages,    step.page_bytes,
                         step.row_floats,    step.row_bytes,    step.cache_format,
                         ring.width,         ring.stride,       ring.rows,
                         shape.scale};
    plan.add<attention_map_reference>(
        "attention_map", label, p, {parts_for(plan, ring.n_heads, step.max_pages), ring.n_heads, plan.rows()},
        {key_floats, step.row_floats, step.cache_format},
        {step.state, q.span(plan.rows()), step.pages, cache}, {ring.view});
}

} // namespace fathom
