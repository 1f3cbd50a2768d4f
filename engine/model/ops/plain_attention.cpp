// Plain multi-head attention: the cache write and the attention. Shapes and formulas: the shaders of these
// names.
#include "model/ops/ops.h"
#include "model/ops/reference.h"

#include "base/error.h"

namespace fathom {

using namespace reference;

namespace {

void kv_write_reference(const KvWrite& p) {
    const uint32_t keys = p.n_heads * p.head_dim;
    for (uint32_t t = 0; t < n_rows(p.state); ++t) {
        const StepRow& r = step_row(p.state, t);
        float* y =
            floats(cache_row(p.cache, p.pages, r, r.position, p.max_pages, p.page_bytes, 4 * p.row_floats));
        std::fill_n(y, p.row_floats, 0.0f);
        for (uint32_t h = 0; h < p.n_heads; ++h)
            rotate(p.rope, r.position, p.head_dim, p.half_split, row(p.k, t, p.k_stride) + h * p.head_dim,
                   y + h * p.head_dim);
        std::copy_n(row(p.v, t, p.v_stride), p.n_heads * p.value_dim, y + pad4(keys));
    }
}

void plain_attention_reference(const PlainAttention& p) {
    std::vector<float> query(p.head_dim);
    std::vector<double> scores;
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        for (uint32_t h = 0; h < p.n_heads; ++h) {
            const StepRow& r = step_row(p.state, t);
            const auto cached = [&](uint32_t j) {
                return floats(cache_row(p.cache, p.pages, r, j, p.max_pages, p.page_bytes, 4 * p.row_floats));
            };
            rotate(p.rope, r.position, p.head_dim, p.half_split, row(p.q, t, p.q_stride) + h * p.head_dim,
                   query.data());
            scores.clear();
            for (uint32_t j = 0; j <= r.position; ++j) {
                double score = 0;
                for (uint32_t d = 0; d < p.head_dim; ++d)
                    score += double(query[d]) * cached(j)[h * p.head_dim + d];
                scores.push_back(score * p.scale);
            }
            const Softmax softmax(scores);
            for (uint32_t c = 0; c < p.value_dim; ++c) {
                double value = 0;
                for (uint32_t j = 0; j <= r.position; ++j)
                    value += scores[j] * cached(j)[pad4(p.n_heads * p.head_dim) + h * p.value_dim + c];
                row(p.y, t, p.y_stride)[h * p.value_dim + c] = static_cast<float>(value / softmax.sum);
            }
        }
}

} // namespace

void kv_write(Plan& plan, const std::string& label, const StepMemory& step, const AttentionShape& shape,
              Rows k, Rows v, View cache) {
    const KvWrite p{step.state.address, k.address,       v.address,      step.rope.address,
                    step.pages.address, cache.address,   shape.n_heads,  shape.rope_dim,
                    shape.value_dim,    k.stride,        v.stride,       step.half_split,
                    step.max_pages,     step.page_bytes, step.row_floats};
    plan.add<kv_write_reference>(
        "kv_write", label, p, {1, plan.rows(), 1}, {},
        {step.state, k.span(plan.rows()), v.span(plan.rows()), step.rope, step.pages}, {cache});
}

void plain_attention(Plan& plan, const std::string& label, const StepMemory& step,
                     const AttentionShape& shape, Rows q, View cache, Rows y) {
    check(4 * (shape.rope_dim + PAGE_TOKENS + WORKGROUP) <= plan.caps().shared_bytes,
          "one query fits shared memory");
    const PlainAttention p{step.state.address, q.address,       step.rope.address, step.pages.address,
                           cache.address,      y.address,       shape.n_heads,     shape.rope_dim,
                           shape.value_dim,    q.stride,        y.stride,          step.half_split,
                           step.max_pages,     step.page_bytes, step.row_floats,   shape.scale};
    plan.add<plain_attention_reference>("plain_attention", label, p, {shape.n_heads, plan.rows(), 1},
                                        {shape.rope_dim, div_up(shape.value_dim, WORKGROUP)},
                                        {step.state, q.span(plan.rows()), step.rope, step.pages, cache},
                                        {y.span(plan.rows())});
}

} // namespace fathom
