// Embedding, norm, matrix product, and the copying op of taps.
#include "base/numbers.h"
#include "model/ops/ops.h"
#include "model/ops/product.h"
#include "model/ops/reference.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace fathom {

using namespace reference;

namespace {

template <Format F> void embed_reference(const Embed& p) {
    for (uint32_t t = 0; t < n_rows(p.state); ++t) {
        const StepRow& r = step_row(p.state, t);
        ++words(p.counts)[uint64_t{r.sequence} * p.vocab + r.token];
        const auto weights = weight_row<F>(p.table, r.token, p.row_bytes, p.dim);
        std::copy(weights.begin(), weights.end(), row(p.y, t, p.y_stride));
    }
}

template <class Params> void trace_norm(const Params& p, uint32_t t, uint32_t n) {
    const float* x = row(p.x, t, p.x_stride);
    double squares = 0;
    for (uint32_t i = 0; i < n; ++i) squares += double{x[i]} * x[i];
    *trace_row(p.state, p.trace, p.trace_stride, t) =
        std::bit_cast<uint32_t>(static_cast<float>(std::sqrt(squares / n + p.eps)));
}

void rms_norm_reference(const RmsNorm& p) {
    for (uint32_t t = 0; t < n_rows(p.state); ++t) {
        const auto y = normed(row(p.x, t, p.x_stride), p.n, p.weight, p.eps);
        std::copy(y.begin(), y.end(), row(p.y, t, p.y_stride));
        if (p.trace_stride) trace_norm(p, t, p.n);
    }
}

template <Format F> void matmul_reference(const MatMul& p) {
    std::vector<std::vector<float>> x;
    for (uint32_t t = 0; t < n_rows(p.state); ++t)
        x.push_back(normed(row(p.x, t, p.x_stride), p.n_in, p.norm, p.eps));
    for (uint32_t t = 0; p.norm && p.trace_stride && t < n_rows(p.state); ++t) trace_norm(p, t, p.n_in);
    for (uint32_t n = 0; n < p.n_out; ++n) {
        const auto weights = weight_row<F>(p.weights, n, p.row_bytes, p.n_in);
        for (uint32_t t = 0; t < n_rows(p.state); ++t) {
            float& y = row(p.y, t, p.y_stride)[n];
            const double product = dot(weights, x[t].data());
            y = static_cast<float>(p.add ? y + product : product);
        }
    }
}

void copy_rows_reference(const CopyRows& p) {
    for (uint32_t t = 0; t < n_rows(p.state) * p.row_repeat; ++t)
        std::copy_n(row(p.x, t, p.x_stride), p.n, row(p.y, t, p.y_stride));
}

} // namespace

void embed(Plan& plan, const std::string& label, const StepMemory& step, const Matrix& table, Rows y,
           View counts) {
    const Embed p{step.state.address, table.view.address, y.address, counts.address, y.cols,
                  table.rows,         table.row_bytes,    y.stride};
    const View out{y.address, uint64_t{plan.rows()} * y.stride * 4}; // whole chunks, so the padding too
    FATHOM_ADD_BY_FORMAT(plan, embed, table.format, label, p, {div_up(y.cols, 8 * WORKGROUP), plan.rows(), 1},
                         {}, {step.state, table.view, counts}, {out, counts});
}

void rms_norm(Plan& plan, const std::string& label, const StepMemory& step, Rows x, View weight, Rows y,
              float eps, Trace trace) {
    const RmsNorm p{step.state.address, x.address, weight.address, y.address, trace.address(), x.cols,
                    x.stride,           y.stride,  trace.words(),  eps};
    std::vector<View> writes{y.span(plan.rows())};
    if (trace.words()) writes.push_back(trace.view);
    plan.add<rms_norm_reference>("rms_norm", label, p, {1, plan.rows(), 1}, {},
                                 {step.state, x.span(plan.rows()), weight}, std::move(writes));
}

void matmul(Plan& plan, const std::string& label, const StepMemory& step, const Matrix& weights,
            const Input& x, Rows y, bool add) {
    const Product product{"matmul", weights.format, weights.rows, weights.cols, plan.prefill()};
    const ProductLaunch launch = launch_of(plan, product, {.tokens = plan.rows(), .normed = x.normed()});
    const MatMul p{step.state.address, weights.view.address,
                   x.rows.address,     x.norm_address(),
                   y.address,          x.trace.address(),
                   weights.rows,       weights.cols,
                   weights.row_bytes,  x.rows.stride,
                   y.stride,           add,
                   x.trace.words(),    x.eps};
    std::vector<View> writes{y.span(plan.rows())};
    if (x.trace.words()) writes.push_back(x.trace.view);
    std::vector<View> reads{step.state, weights.view, x.rows.span(plan.rows())};
    if (x.normed()) reads.push_back(x.norm);
    if (add) reads.push_back(y.span(plan.rows()));
    FATHOM_ADD_TIER(plan, matmul, launch.tier, weights.format, label, p,
                    {launch.blocks, div_up(plan.rows(), launch.tokens), 1}, launch.constants, reads, writes);
}

void copy_rows(Plan& plan, const std::string& label, const StepMemory& step, Rows x, uint32_t repeat,
               Rows y) {
    const CopyRows p{step.state.address, x.address, y.address, x.cols, x.stride, y.stride, repeat};
    const uint32_t rows = plan.rows() * repeat;
    plan.add<copy_rows_reference>("copy_rows", label, p, {div_up(x.cols, WORKGROUP), rows, 1}, {},
                                  {step.state, x.span(rows)}, {y.span(rows)});
}

} // namespace fathom
