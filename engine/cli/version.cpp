// What --version prints: version, commit, and what this build's shader compiler could and could not do.
#include "cli/command.h"
#include "commit.h"
#include "gpu/modules.h"

#include <array>
#include <fmt/format.h>

namespace fathom::cli {

namespace {
// What cmake/shaders.cmake asks the shader compiler for (a test compares the two).
constexpr std::array<std::string_view, 3> optional_extensions = {
    "GL_KHR_cooperative_matrix", "GL_EXT_integer_dot_product", "GL_EXT_bfloat16"};
} // namespace

std::string version_text() {
    std::string has, lacks;
    for (const std::string_view extension : optional_extensions) {
        const bool known = gpu::glsl_extensions().find(extension) != std::string_view::npos;
        (known ? has : lacks) += fmt::format(" {}", extension);
    }
    std::string out = fmt::format("fathom {} (commit {})\n", FATHOM_VERSION, FATHOM_COMMIT);
    out += fmt::format("shader tiers: baseline, {} modules\n", gpu::modules().size());
    out += fmt::format("glslang {}, with:{}; without:{}", gpu::glslang_version(), has.empty() ? " none" : has,
                       lacks.empty() ? " none" : lacks);
    if (!gpu::modules_left_out().empty()) out += fmt::format("\nleft out: {}", gpu::modules_left_out());
    return out;
}

} // namespace fathom::cli
