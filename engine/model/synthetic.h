// Weights out of a seed, made where they are used: a model of any shape without a download. Formats are those
// that a checkpoint of one dtype has. Matrices have random quants and equal scales, of a size that keeps
// activations near 1; norms are 1, biases 0.
#pragma once

#include "checkpoint/checkpoint.h"

namespace fathom {

class Plan;    // plan.h
struct Layout; // layout.h
struct Target;
struct TensorSpec;
struct WeightSource;

struct SyntheticWeights {
    DType dtype = DType::bf16;
    uint32_t seed = 1;
};

// A checkpoint whose weights are of one dtype: norms and the router's bias are F32, the router BF16, as files
// have them; embedding and head are BF16 where the dtype is FP8. A matrix whose rows are no whole number of
// blocks is Q8_0 instead, or F16 if that is no better.
DType dtype_in(const TensorSpec& spec, DType dtype);
WeightSource source_of(const SyntheticWeights& weights);

// Fills one target of an allocated layout; `index` is the target's, and changes its numbers.
void fill_target(const Target& target, const Layout& layout, const SyntheticWeights& weights, uint32_t index,
                 Plan& plan);

} // namespace fathom
