// Whether a prefill chunk attends to expanded keys and values or to the cache itself: by what the parts of
// the two ways take. Expanding costs work for every position that the chunk sees, and saves some for each
// pair of a token and a position.
#pragma once

#include "model/forward.h"

#include <optional>
#include <span>

namespace fathom {

struct AttentionCosts {       // of one layer: seconds, or multiplications where nothing was measured
    double expand_row = 0;    // keys and values of a position
    double expanded_pair = 0; // a token and a position that it sees
    double absorb_row = 0;    // a token's queries into the latent space, and its values out of it; 0 if plain
    double absorbed_pair = 0;
    // A chunk of `tokens` with `before` positions before it.
    bool worth_expanding(uint32_t tokens, uint32_t before) const;
};

// Of a head: multiplications, and numbers that are read for them.
AttentionCosts counted_costs(const ModelConfig& config);
// Seconds of a prefill step with these rows, a sequence's first ones, whose pages are there: the best of
// three runs of each way. None where the device cannot tell what an op takes. Leaves the model's workspace as
// it comes; the cache rows of `rows` are written anew.
std::optional<AttentionCosts> measured_costs(Model& model, Executor& executor, std::span<const StepRow> rows);

} // namespace fathom
