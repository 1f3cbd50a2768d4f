// Where a checkpoint's tensors go: which matrices, banks and vectors the device holds, and which parts of
// which tensors fill them. Made from a configuration and the tensors' formats alone, so that it also says
// what a model takes before anything is loaded.
//
// Matrices that read the same activations are stacked (q or q_a with kv_a, q with k and v), experts lie in
// banks, with the shared experts behind the routed ones, each wherever the formats allow it: where they
// differ, or a part would cut a block, the parts stay matrices of their own.
#pragma once

#include "model/executor.h"
#include "model/tensors.h"
#include "model/weights.h"

#include <functional>

namespace fathom {

// A tensor that the checkpoint of a configuration holds.
struct TensorSpec {
    std::string name;
    std::vector<uint64_t> shape; // outermost first
    bool mtp = false;            // of an MTP layer: exporters leave them all out, or none
    bool optional = false;       // accepted, not needed
    bool quantisable = false;    // a matrix of weights, and not the router
    uint32_t cols() const { return static_cast<uint32_t>(shape.back()); }
};

// A part of a tensor, taken as a matrix of shape.back() columns, put at row `to_row` of matrix `to_matrix` of
// a bank.
struct Piece {
    size_t tensor = 0; // index into Layout::tensors
    uint32_t first_row = 0, rows = 0, first_col = 0, cols = 0;
    uint32_t to_matrix = 0, to_row = 0;
};

// A matrix, a bank of equal ones, or a vector in device memory, and what fills it.
struct Target {
    std::string_view owner; // for accounting: "embedding", "attention", "experts", ...
    gpu::Placement placement = gpu::Placement::device;
    Matrix shape; // its view is the target's own, once it has been allocated
    Matrix* matrix = nullptr;
    View* vector = nullptr; // instead of matrix, for norms and biases: one row of f32
    std::vector<Piece> pieces;
    uint64_t bytes() const { return shape.matrix_bytes * shape.count; }
};

struct Layout;

// Where weights come from: how tensors are named, and the format that each one's weights shall have in
// memory.
struct WeightSource {
    Naming naming;
    std::function<Format(const TensorSpec&)> format_of;
    std::function<void(const Layout&)> check; // throws Error where tensors are not as laid out; may be empty
    std::function<void(const Layout&, Executor&)> fill; // every target of an allocated layout
};

struct LayoutOptions {
    bool keep_mtp = false;
    // Routed experts lie in the host's memory. Shared ones, which every token uses, stay on the device, and
    // so do not join their bank.
    bool experts_on_host = false;
};

struct Layout {
    std::vector<TensorSpec> tensors;
    std::vector<Target>
        targets; // their matrix and vector point into the Weights that the layout was made for
    bool tied_head = false;
};
// `weights` receives the layers; allocate_weights() fills them in.
Layout layout_of(const ModelConfig& config, const WeightSource& source, const LayoutOptions& options,
                 Weights& weights);

// Memory for all targets, owner by owner.
void allocate_weights(Layout& layout, Weights& weights, Memory& memory);

} // namespace fathom
