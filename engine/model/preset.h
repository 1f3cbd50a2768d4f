// Published shapes by name (models/presets, part of the program): what `inspect` and benchmarks know of
// models whose weights are not here. A preset speaks this project's vocabulary of dimensions; every key is
// needed and none is unknown, and its values pass the checks of config.json.
#pragma once

#include "model/config.h"

#include <optional>

namespace fathom {

struct Preset {
    std::string name, about;       // `about`: the models of this shape
    std::vector<std::string> also; // other names
    ModelConfig config;
};
const std::vector<Preset>& presets();             // by name
const Preset* find_preset(std::string_view name); // by any of its names; nullptr: there is none

// Parses one preset; `name` stands in messages.
Preset parse_preset(std::string_view json, std::string_view name);

// One of the program's files, as the build lists them.
struct PresetFile {
    std::string_view name, json;
};
std::vector<PresetFile> preset_files();

} // namespace fathom
