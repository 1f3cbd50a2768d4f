// The bytes of one safetensors file as tensors: the header parser and its checks, apart from where the bytes
// lie.
#pragma once

#include "checkpoint/checkpoint.h"

namespace fathom {

// Reads the header in `file`, checks everything the format promises, and returns views into it, sorted by
// name. `where` names the file in errors and in the views. Throws Error.
std::vector<TensorView> parse_safetensors(std::span<const std::byte> file, const std::string& where);

} // namespace fathom
