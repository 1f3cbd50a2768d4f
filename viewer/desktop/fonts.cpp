#include "viewer/desktop/fonts.h"

#include "base/file.h"

#include <filesystem>
#include <initializer_list>

namespace fathom::viewer {

namespace {

constexpr uint64_t MOST_BYTES = 64u << 20;

std::string first_present(std::initializer_list<const char*> paths) {
    for (const char* path : paths)
        if (std::error_code error; std::filesystem::exists(path, error)) return read_file(path, MOST_BYTES);
    return "";
}

} // namespace

std::string text_font() {
    return first_present({"/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
                          "/usr/share/fonts/TTF/DejaVuSans.ttf",
                          "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf"});
}

std::string cjk_font() {
    return first_present({"/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
                          "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
                          "/usr/share/fonts/google-noto-sans-cjk-fonts/NotoSansCJK-Regular.ttc",
                          "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
                          "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf"});
}

} // namespace fathom::viewer
