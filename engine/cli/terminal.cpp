// Terminal input and output; see terminal.h.
#include "cli/terminal.h"

#include "base/error.h"
#include "cli/interrupt.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utility>

namespace fathom::cli {

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

uint32_t terminal_width(int fd) {
    winsize size{};
    return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

Style Style::of(int fd) {
    const char* no_colour = std::getenv("NO_COLOR");
    const char* term = std::getenv("TERM");
    return Style(is_terminal(fd) && !(no_colour && *no_colour) && term && std::string_view(term) != "dumb");
}

std::string Style::wrap(std::string_view code, std::string_view text) const {
    return colour_ ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

std::string Style::heat(double share, std::string_view text) const {
    static constexpr std::array<int, 7> ramp = {24,  31,  37, 107,
                                                178, 208, 196}; // of the 256 colours: blue to red
    const double clamped = std::clamp(share, 0.0, 1.0);
    return wrap(fmt::format("38;5;{}", ramp[static_cast<size_t>(clamped * (ramp.size() - 1) + 0.5)]), text);
}

void write_out(std::string_view text) {
    while (!text.empty()) {
        const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
        if (written >= 0) {
            text.remove_prefix(static_cast<size_t>(written));
        } else if (errno == EPIPE) {
            throw OutputClosed{};
        } else if (errno == EAGAIN) { // someone shares the terminal with us and made it non-blocking
            pollfd writable{STDOUT_FILENO, POLLOUT, 0};
            ::poll(&writable, 1, -1);
        } else if (errno != EINTR) {
            throw Error({.what = "cannot write to standard output", .got = std::strerror(errno)});
        }
    }
}

std::string without_controls(std::string_view utf8) {
    std::string out;
    for (size_t i = 0; i < utf8.size(); ++i) {
        const auto byte = static_cast<unsigned char>(utf8[i]);
        if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) continue;
        const auto next = static_cast<unsigned char>(i + 1 < utf8.size() ? utf8[i + 1] : 0);
        if (byte == 0xC2 && next >= 0x80 && next < 0xA0) { // the C1 controls, two bytes each in UTF-8
            ++i;
            continue;
        }
        out += utf8[i];
    }
    return out;
}

void write_generated(std::string_view text) {
    static const bool terminal = is_terminal(STDOUT_FILENO);
    if (terminal)
        write_out(without_controls(text));
    else
        write_out(text);
}

LineReader::LineReader()
    : wake_(::eventfd(0, EFD_CLOEXEC)),
      interactive_(is_terminal(STDIN_FILENO) && is_terminal(STDOUT_FILENO)) {
    if (wake_ < 0) throw Error({.what = "cannot make an eventfd", .got = std::strerror(errno)});
}

LineReader::~LineReader() { ::close(wake_); }

Line LineReader::read(std::string_view prompt) {
    const auto wake = [this] {
        const uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(wake_, &one, sizeof one);
    };
    const InterruptScope scope(wake);
    if (interactive_) write_out(prompt);
    for (;;) {
        if (const size_t end = buffered_.find('\n'); end != std::string::npos) {
            Line line{Line::Kind::text, buffered_.substr(0, end)};
            buffered_.erase(0, end + 1);
            if (!line.text.empty() && line.text.back() == '\r') line.text.pop_back();
            return line;
        }
        if (ended_) {
            if (buffered_.empty()) return {Line::Kind::end, ""};
            return {Line::Kind::text, std::exchange(buffered_, "")};
        }
        std::array<pollfd, 2> fds = {pollfd{STDIN_FILENO, POLLIN, 0}, pollfd{wake_, POLLIN, 0}};
        if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR)
            throw Error({.what = "cannot wait for standard input", .got = std::strerror(errno)});
        if (fds[1].revents) {
            uint64_t count = 0;
            [[maybe_unused]] const auto taken = ::read(wake_, &count, sizeof count);
            return {Line::Kind::interrupted, ""};
        }
        if (!fds[0].revents) continue;
        std::array<char, 4096> chunk;
        const ssize_t count = ::read(STDIN_FILENO, chunk.data(), chunk.size());
        if (count > 0)
            buffered_.append(chunk.data(), static_cast<size_t>(count));
        else if (count == 0)
            ended_ = true;
        else if (errno != EINTR && errno != EAGAIN)
            throw Error({.what = "cannot read standard input", .got = std::strerror(errno)});
    }
}

uint32_t columns_of(std::string_view utf8) {
    return static_cast<uint32_t>(std::count_if(
        utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string progress_line(uint64_t done, uint64_t total, double seconds, uint32_t width) {
    const double share = total ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total)) : 1.0;
    std::string text =
        fmt::format(" {:3}%  {} of {}", static_cast<int>(share * 100), bytes_text(done), bytes_text(total));
    if (seconds > 0.1)
        text += fmt::format("  {}/s", bytes_text(static_cast<uint64_t>(static_cast<double>(done) / seconds)));
    const size_t room = width > text.size() + 2 ? width - text.size() - 2 : 0;
    if (room < 5) return text.substr(1);
    const auto filled = static_cast<size_t>(share * static_cast<double>(room));
    return "[" + std::string(filled, '#') + std::string(room - filled, '-') + "]" + text;
}

ProgressBar::ProgressBar(std::string label, bool wanted)
    : label_(std::move(label)), wanted_(wanted && is_terminal(STDERR_FILENO)) {}

ProgressBar::~ProgressBar() {
    if (visible_) fmt::print(stderr, "\r\x1b[K");
}

void ProgressBar::update(uint64_t done, uint64_t total) {
    using namespace std::chrono_literals;
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    if (!wanted_ || now - start_ < 1s || (visible_ && now - drawn_ < 100ms)) return;
    const uint32_t width = std::min(terminal_width(STDERR_FILENO), 100u), label = columns_of(label_) + 1;
    fmt::print(stderr, "\r{} {}\x1b[K", label_,
               progress_line(done, total, std::chrono::duration<double>(now - start_).count(),
                             width > label ? width - label - 1 : 0));
    visible_ = true;
    drawn_ = now;
}

} // namespace fathom::cli
