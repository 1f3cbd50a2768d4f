// The Plan: the flat list of ops that one step of the model is. The forward pass appends to it; the GPU
// executor records it once and replays it, the CPU executor calls each op's reference. Every op declares the
// memory it reads and writes; where that conflicts with an op since the last barrier, finish() puts a
// barrier. Nothing else places barriers.
#pragma once

#include "gpu/device.h"
#include "model/tier.h"
#include "params.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

using gpu::View;

struct Op : gpu::Dispatch {
    uint32_t n_addresses = 0;                             // that its parameters begin with
    void (*reference)(const std::byte* params) = nullptr; // the op in plain C++, over the same parameters
    std::vector<View> reads, writes;                      // whole ranges; a strided tensor declares its span
};

// A view of activations: rows of `cols` floats, `stride` floats apart. Rows are padded to 8 floats, so that
// kernels may read the last chunk whole; what lies in the padding is never used.
struct Rows {
    uint64_t address = 0;
    uint32_t cols = 0, stride = 0;
    View span(uint64_t rows) const { return {address, rows == 0 ? 0 : ((rows - 1) * stride + cols) * 4}; }
    Rows columns(uint32_t first, uint32_t count) const { return {address + 4ull * first, count, stride}; }
    Rows from(uint64_t row) const { return {address + 4 * row * stride, cols, stride}; }
};

// A tensor offered to taps as it is after the op before `op_index`.
struct TapPoint {
    std::string name;
    Rows rows;
    uint32_t repeat = 1; // rows for each token row
};

class Plan {
  public:
    // `rows`: the bucket, the most token rows a step of this plan may have. `prefill`: they are a prompt's.
    Plan(std::string name, const gpu::Caps& caps, uint32_t rows, bool prefill = false, Tiers tiers = {})
        : name_(std::move(name)), caps_(caps), rows_(rows), prefill_(prefill), tiers_(std::move(tiers)) {}

    // Reference is the CPU implementation, void(const Params&). Constants are specialisation constants 0, 1,
    // ...
    template <auto Reference, class Params>
    void add(std::string_view module, std::string label, const Params& params, std::array<uint32_t, 3> grid,
             std::vector<uint32_t> constants, std::vector<View> reads, std::vector<View> writes) {
        static_assert(fits_push_constants<Params>);
        Op op;
        op.module = module;
        op.label = std::move(label);
        op.constants = std::move(constants);
        std::copy(grid.begin(), grid.end(), op.grid);
        op.params_bytes = sizeof(Params);
        op.n_addresses = count_addresses<Params>();
        std::memcpy(op.params, &params, sizeof(Params));
        op.reference = [](const std::byte* bytes) {
            Params copy;
            std::memcpy(&copy, bytes, sizeof(Params));
            Reference(copy);
        };
        op.reads = std::move(reads);
        op.writes = std::move(writes);
        ops_.push_back(std::move(op));
    }
    // Names what the last op produced, for taps: at once asks `on_tap` (if set), which may add a copying op.
    void tap(const std::string& name, Rows rows, uint32_t repeat = 1) {
        if (on_tap) on_tap(*this, {name, rows, repeat});
    }
    void finish(); // computes Op::barrier for the whole list

    const std::string& name() const { return name_; }
    const gpu::Caps& caps() const { return caps_; }
    uint32_t rows() const { return rows_; }
    bool prefill() const { return prefill_; }
    const Tiers& tiers() const { return tiers_; }
    void note(const Product& product) { products_.push_back({product, ops_.size()}); }
    // The matrix products there are, each with its op.
    const std::vector<std::pair<Product, size_t>>& products() const { return products_; }
    const std::vector<Op>& ops() const { return ops_; }
    std::vector<Op>& ops() { return ops_; }
    std::vector<gpu::Dispatch> dispatches() const { return {ops_.begin(), ops_.end()}; }

    std::function<void(Plan&, const TapPoint&)> on_tap;

  private:
    std::string name_;
    gpu::Caps caps_;
    uint32_t rows_;
    bool prefill_;
    Tiers tiers_;
    std::vector<std::pair<Product, size_t>> products_;
    std::vector<Op> ops_;
};

} // namespace fathom
