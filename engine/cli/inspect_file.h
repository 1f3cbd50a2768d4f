// `fathom inspect` of one file: which kind it is, by what it begins with, and what is in it.
#pragma once

#include "checkpoint/gguf.h"
#include "cli/terminal.h"
#include "model/config.h"

namespace fathom::cli {

enum class FileKind : uint8_t { gguf, safetensors, config, index, tokenizer };
// Of a regular file. Names count only for what is empty or whose JSON could be several things.
FileKind kind_of_file(const std::filesystem::path& path);

// "deepseek2" and the like: the family of a GGUF that is ours to check; empty for others.
std::string our_architecture(const Gguf& keys);

// Everything the file says, checked as when a model is loaded. A GGUF's figures are not among it. Throws
// Error.
std::string gguf_text(const ModelFiles& files, const Style& style);
std::string tensors_text(std::span<const TensorView> tensors, const Style& style); // by dtype
std::string file_text(const std::filesystem::path& path, FileKind kind, const Style& style);

std::string config_text(const ModelConfig& config); // the rows on architecture, layers, ..., parameters

} // namespace fathom::cli
