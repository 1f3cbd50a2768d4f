// Plain multi-head attention: the cache write, and attention over the cache without up-projection. Shapes and
// formulas: the shaders kv_write, cached_attention, attention_join.
#include "model/ops/cached.h"
#include "model/ops/reference.h"

#include "base/numbers.h"

#include <algorithm>
#include <cmath>

namespace fathom {

using namespace reference;

namespace {

void kv_write_reference(const KvWrite& p) {
    const uint32_t key_step = pad4(p.head_dim), value_step = pad4(p.value_dim);
    for (uint32_t t = 0; t < n_rows(p.state); ++t) {
        const StepRow& r = step_row(p.state, t);
        std::vector<float> cached(p.row_floats);
        float* const queries = row(p.y, t, p.n_heads * key_step);
        std::fill_n(queries, p.n_heads * key_step, 0.0f);
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            rotate(p.rope, r.position, p.head_dim, p.half_split, row(p.k, t, p.k_stride) + h * p.head_dim,
                   &cached[h * key_step]);
            rotate(p.rope, r.position, p.head_dim, p.half_split, row(p.q, t, p.q_stride) + h * p.head_dim,
                   queries + h * key_step);
            std::copy_n(row(p.v, t, p.v_stride) + h * p.value_dim, p.value_dim,
                        &cached[p.n_heads * key_step + h * value_step]);
        }
        write_cache_row(p.cache_format, cached,
                        cache_row(p.cache, p.pages, r, r.position, p.max_pages, p.page_bytes, p.row_bytes));
    }
}

void attention_join_reference(const AttentionJoin& p) {
    const uint32_t value4 = pad4(p.value_dim), stride = value4 + 4;
    for (uint32_t t = p.first_row; t < std::min(p.last_row, n_rows(p.state)); ++t) {
        const uint32_t used = parts_used(step_row(p.state, t), p.n_parts);
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            const uint64_t nth = uint64_t{t - p.first_row} * p.n_heads + h;
            const JoinedParts joined(row(p.partial, nth * p.n_parts, stride), used, value4);
            for (uint32_t c = 0; c < p.value_dim; ++c)
                row(p.y, t, p.y_stride)[h * p.value_dim + c] =
                    static_cast<float>(joined.value(c) / joined.sum);
        }
    }
}

} // namespace

void kv_write(Plan& plan, const std::string& label, const StepMemory& step, const AttentionShape& shape,
              Rows q, Rows k, Rows v, View cache, View y) {
    const KvWrite p{step.state.address, q.address,       k.address,       v.address,      step.rope.address,
                    step.pages.address, cache.address,   y.address,       shape.n_heads,  shape.rope_dim,
                    shape.value_dim,    q.stride,        k.stride,        v.stride,       step.half_split,
                    step.max_pages,     step.page_bytes, step.row_floats, step.row_bytes, step.cache_format};
    plan.add<kv_write_reference>(
        "kv_write", label, p, {div_up(step.row_floats, KV_SLICE), plan.rows(), 1}, {step.cache_format},
        {step.state, q.span(plan.rows()), k.span(plan.rows()), v.span(plan.rows()), step.rope, step.pages},
        {cache, y});
}

void plain_attention(Plan& plan, const std::string& label, const StepMemory& step,
                     const AttentionShape& shape, View q, View cache, View partial, Rows y) {
    cached_attention(plan, label, step, shape, q, cache, partial, [&](const JoinedRows& rows) {
        const AttentionJoin p{step.state.address, rows.partial.address, y.address,
                              shape.n_heads,      shape.value_dim,      rows.parts,
                              y.stride,           rows.first,           rows.last};
        plan.add<attention_join_reference>(
            "attention_join", label + ".join", p, {shape.n_heads, rows.last - rows.first, 1}, {},
            {step.state, rows.partial}, {y.from(rows.first).span(rows.last - rows.first)});
    });
}

} // namespace fathom
