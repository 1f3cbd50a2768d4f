// The rules that hold the rooms of this repository apart, as functions of one file's path and text, so that
// each can be shown to fail on a bad sample. A rule returns what it objects to, one line for each, ready to
// print. They read text and tokens, not C++: macros that hide an #include or a brace are beyond them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace seams {

using Objections = std::vector<std::string>;

struct File {
    std::string path; // from the repository's root, with forward slashes
    std::string text;
};
// Every text file of the repository that people write: no build folders, no hidden ones but .ci, no model, no
// golden.
std::vector<File> repository();

bool in(const File& file, std::string_view folder);               // under `folder`, which ends in '/'
bool has_extension(const File& file, std::string_view extension); // ".cpp"

Objections vulkan_names(const File& file);   // only engine/gpu and its tests know Vulkan
Objections include_arrows(const File& file); // who may include whom in engine/, downward only
Objections viewer_hosts(const File& file);   // windows, files and threads are for viewer/desktop
Objections trigonometry(const File& file);   // no shader calls sin, cos or tan
Objections counted_grids(const File& file);  // workgroups that meet count by parameters: grids go in pieces
// no path of one machine, none outside the repository but its shared folder
Objections outside_paths(const File& file);
Objections ceilings(const File& file); // 800 lines a file, 110 columns a line

struct Function {
    std::string name; // as far as it can be told: the identifier before the parameters
    uint32_t line = 0, lines = 0;
};
// of C++, GLSL and Python; longest and nested ones included
std::vector<Function> functions(const File& file);

// `text` with comments, literals and preprocessor lines replaced by spaces, newlines kept.
std::string code_only(std::string_view text);

// A module of the base tier declares no capability that SwiftShader lacks: 8-, 16- and 64-bit types and
// storage.
Objections capabilities(std::string_view module, std::span<const uint32_t> spirv);

} // namespace seams
