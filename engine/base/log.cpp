// The log's one sink; see log.h.
#include "base/log.h"

#include <atomic>
#include <cstdio>

namespace fathom::log {

namespace {
std::atomic<Level> lowest_level = Level::info;
}

void set_level(Level lowest) { lowest_level = lowest; }
bool enabled(Level level) { return level >= lowest_level; }

void write(Level level, std::string_view line) {
    if (!enabled(level)) return;
    const std::string text = fmt::format("{}{}\n", level == Level::warning ? "warning: " : "", line);
    std::fwrite(text.data(), 1, text.size(), stderr); // one call, so that lines of two threads do not mix
}

} // namespace fathom::log
