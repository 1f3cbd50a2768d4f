// Reading what a person names or pipes in. Unlike base/file.h, which reads checkpoints, pipes are welcome
// here.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace fathom::cli {

std::string read_text(const std::filesystem::path& path); // Error when it cannot be read
std::string read_stdin();

// "~/x" as a shell would take it; anything else as it is. For paths typed at our own prompt.
std::filesystem::path expand_home(std::string_view path);

} // namespace fathom::cli
