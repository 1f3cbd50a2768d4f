#include "cli/page_files.h"

#include "viewer/desktop/fonts.h"

#include <fmt/format.h>

namespace fathom::cli {

namespace {

constexpr std::string_view NO_PAGE =
    "<!doctype html><meta charset=utf-8><title>Fathom</title><body style=\"font:16px sans-serif;margin:3em\">"
    "<h1>Fathom</h1><p>The API is at <code>/v1</code>.</p><p>This program was built without the viewer's "
    "page: "
    "<code>./fathom serve</code> builds it on Debian, and <code>-DFATHOM_WEB=ON</code> elsewhere.</p>";

} // namespace

std::map<std::string, server::PageFile> page_files() {
    std::map<std::string, server::PageFile> files;
    for (const PackedFile& file : packed_page())
        files["/" + std::string(file.name)] = {std::string(file.type), true, [bytes = file.gzip] {
                                                   return std::string(bytes.begin, bytes.end);
                                               }};
    if (files.empty()) {
        files["/"] = {"text/html; charset=utf-8", false, [] { return std::string(NO_PAGE); }};
        return files;
    }
    files["/"] = files.at("/index.html");
    files["/cjk.font"] = {"font/ttf", false, [] { return viewer::cjk_font(); }};
    return files;
}

} // namespace fathom::cli
