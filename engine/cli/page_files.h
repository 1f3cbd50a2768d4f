// The viewer's page as the program carries it (cmake/web.cmake).
#pragma once

#include "server/server.h"

#include <string_view>
#include <vector>

namespace fathom::cli {

struct PackedFile {
    std::string_view name, type;
    struct Bytes {
        const char *begin, *end;
    } gzip;
};
std::vector<PackedFile> packed_page(); // none: this program was built without it

// What a server answers for "/" and the page's other files; without a page, "/" says how to get it.
std::map<std::string, server::PageFile> page_files();

} // namespace fathom::cli
