// The arithmetic behind `fathom inspect`: parameters by kind from the configuration alone, bytes by kind from
// a checkpoint's tensors, cache bytes by token. Pure functions. Counting follows the model cards: total
// without MTP layers, active with the input embedding and the head.
#pragma once

#include "checkpoint/checkpoint.h"
#include "model/layout.h"

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace fathom::cli {

enum class Kind : uint8_t {
    embedding,
    attention,
    dense_mlp,
    routed_experts,
    shared_experts,
    router,
    norms,
    head,
    mtp,
    other
};
constexpr size_t N_KINDS = 10;
std::string_view name_of(Kind kind);

struct KindFigures {
    uint64_t parameters = 0;
    uint64_t active = 0; // of them used for one token
};
struct ParameterFigures {
    std::array<KindFigures, N_KINDS> kinds{}; // `other` stays empty; `mtp` is active in nothing
    uint64_t total = 0;                       // without MTP
    uint64_t active = 0;                      // with input embedding and head
};
ParameterFigures parameter_figures(const ModelConfig& config);

// The kind of a checkpoint tensor by its name (an FP8 scale belongs to its weight). Layers from n_layers on
// are MTP.
Kind kind_of(std::string_view name, const ModelConfig& config);

struct ByteFigures {
    std::array<uint64_t, N_KINDS> bytes{};
    std::array<uint64_t, N_KINDS> tensors{};
    uint64_t total = 0;
};
ByteFigures byte_figures(std::span<const TensorView> tensors, const ModelConfig& config);

// Elements of cache for one token: the model's own (MLA's latent), and keys and values of every head of the
// same model with plain multi-head attention. Times the bytes of an element.
struct CacheFigures {
    uint64_t own = 0, plain = 0;
    double ratio() const { return static_cast<double>(plain) / static_cast<double>(own); }
};
CacheFigures cache_figures(const ModelConfig& config);

// Bytes of a checkpoint's weights in one dtype (see model/synthetic.h), MTP layers apart. FP8 comes with a
// scale for each 128 x 128 weights.
uint64_t checkpoint_bytes(const ModelConfig& config, DType dtype);

} // namespace fathom::cli
