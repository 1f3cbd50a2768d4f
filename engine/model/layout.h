// Where a checkpoint's tensors go: which matrices, banks and vectors the device holds, and which parts of
// which tensors fill them. Made from a configuration and the tensors' formats alone, so that it also says
// what a model takes before anything is loaded.
//
// Matrices that read the same activations are stacked (q or q_a with kv_a), experts lie in banks, with the
// shared experts behind the routed ones, each wherever the formats allow it: where they differ, or a part
// would cut a block, the parts stay matrices of their own.
#pragma once

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
    Matrix shape;           // without a view
    Matrix* matrix = nullptr;
    View* vector = nullptr; // instead of matrix, for norms and biases: one row of f32
    std::vector<Piece> pieces;
    uint64_t bytes() const { return shape.matrix_bytes * shape.count; }
};

// The format that a tensor's weights shall have in memory.
using FormatOf = std::function<Format(const TensorSpec&)>;

struct Layout {
    std::vector<TensorSpec> tensors;
    std::vector<Target>
        targets; // their matrix and vector point into the Weights that the layout was made for
};
// `weights` receives the layers and is filled in when targets are loaded.
Layout layout_of(const ModelConfig& config, const Naming& naming, const FormatOf& format_of, bool keep_mtp,
                 Weights& weights);

} // namespace fathom
