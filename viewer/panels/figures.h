// The figures of the tour that no other preset shows, and what its steps talk about.
#pragma once

#include "viewer/app.h"

namespace fathom::viewer {

// What the steps talk about: the selected token, or the newest that went through the model.
struct Subject {
    const Timeline* timeline = nullptr;
    const trace::TokenRecord* record = nullptr; // null: nothing yet
    uint32_t position = 0, layer = 0;           // layer: among the MoE layers
    const Store* store = nullptr;
};

Subject subject_of(App& app);

void draw_tokens(App& app);      // and their numbers
void draw_norms(App& app);       // of the residual stream
void draw_rope(App& app);        // the angles of two tokens
void draw_flow(App& app);        // from the residual stream to the cache and to attention, with sizes
void draw_row_numbers(App& app); // scores, powers and shares of one row

} // namespace fathom::viewer
