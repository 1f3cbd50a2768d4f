// The bytes of one safetensors file as tensors: the header parser and its checks, apart from where the bytes
// lie; and the index of several.
#pragma once

#include "checkpoint/checkpoint.h"

#include <map>

namespace fathom {

// Reads the header in `file`, checks everything the format promises, and returns views into it, sorted by
// name. `where` names the file in errors and in the views. Throws Error.
std::vector<TensorView> parse_safetensors(std::span<const std::byte> file, const std::string& where);

// The weight_map of a model.safetensors.index.json: tensor name to shard, each of which is checked to be a
// plain name of a .safetensors file in the folder.
std::map<std::string, std::string> parse_index(std::string_view text, const std::string& where);

} // namespace fathom
