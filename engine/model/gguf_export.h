// A model as one GGUF file, from a Hugging Face folder or from another GGUF, in any number format that
// blocks.h can encode. Weights are streamed row by row; memory stays at a few rows, or one attention head.
#pragma once

#include "checkpoint/checkpoint.h"

#include <filesystem>
#include <functional>

namespace fathom {

// What becomes of a tensor with these (outermost first) dimensions in a file of format `wanted`, by rules
// like those of llama-quantize:
// - vectors and the router stay f32;
// - f32, f16 and bf16 hold for all matrices;
// - below 6 bits the output matrix gets Q6_K; MXFP4 is for banks of experts, everything else is Q8_0 then;
// - rows that blocks do not fill get the next wider format of blocks that do (block_fallback).
DType exported_dtype(std::string_view gguf_name, std::span<const uint64_t> shape, DType wanted);

// Writes the model to `path`. MTP layers of a Hugging Face folder are left out. Throws Error when GGUF cannot
// say what the model is, when the folder lacks a tensor, or for weights that are no finite numbers.
// `progress` hears bytes of the model done and in all.
void export_gguf(const ModelFiles& files, const std::filesystem::path& path, DType wanted,
                 const std::function<void(uint64_t, uint64_t)>& progress);

} // namespace fathom
