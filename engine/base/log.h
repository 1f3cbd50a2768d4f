// Messages for the person at the terminal, on stderr: never mixed with generated text, which goes to stdout.
// Three levels; `fathom --quiet` leaves only warnings, `-v` adds details (device quirks, plans, pipelines).
#pragma once

#include <fmt/format.h>
#include <string_view>

namespace fathom::log {

enum class Level { detail, info, warning };

void set_level(Level lowest); // messages below `lowest` are dropped; the default is info
bool enabled(Level level);
void write(Level level, std::string_view line); // one line, without its newline; safe from any thread

template <class... Args> void detail(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::detail)) write(Level::detail, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args> void info(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::info)) write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args> void warning(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::warning, fmt::format(format, std::forward<Args>(args)...));
}

} // namespace fathom::log
