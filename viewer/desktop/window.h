// The desktop host: a GLFW window with OpenGL 3 in which the viewer runs until it is closed.
#pragma once

#include "viewer/source.h"

#include <filesystem>

namespace fathom::viewer {

struct WindowOptions {
    std::optional<bool> dark; // none: as it was last
    float scale = 0;          // 0: the system's
    std::string preset;       // one of PRESET_NAMES; "": by the source
    int width = 1280, height = 800;
    // For tests and documents: a PNG of the window after it stood still for a moment, and then the end.
    std::filesystem::path screenshot;
    // For measurements: so many frames without a pause, with what is there scrolling by; then prints the time
    // that whole frames took and ends. 0: none.
    uint32_t measure = 0;
    // For tests: App::state() as JSON, written anew whenever it has changed.
    std::filesystem::path state;
};

// Throws Error where there is no display or no OpenGL 3.2.
void show_window(Source& source, const WindowOptions& options);

} // namespace fathom::viewer
