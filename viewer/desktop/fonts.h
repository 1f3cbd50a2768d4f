// Fonts that are installed.
#pragma once

#include <string>

namespace fathom::viewer {

std::string text_font(); // the bytes of DejaVu Sans; "" where it is not installed
std::string cjk_font();  // of one that has Chinese characters; the same

} // namespace fathom::viewer
