// The keys of an exported GGUF file: what the model is, and its tokenizer.
#pragma once

#include "checkpoint/gguf_writer.h"
#include "model/config.h"

namespace fathom {

// Of a model from a Hugging Face folder. Throws Error for what the keys of llama.cpp's architectures cannot
// say, and when there is no tokenizer.
void write_keys(const ModelFiles& files, const ModelConfig& config, DType wanted, GgufWriter& writer);
// Those of another file, but for what says how its numbers are stored.
void copy_keys(const Gguf& keys, DType wanted, GgufWriter& writer);

} // namespace fathom
