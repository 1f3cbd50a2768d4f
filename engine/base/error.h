// Errors. One type, thrown at the edges of the program (files, configuration, devices, the command line); it
// says what went wrong, where, what was expected, what was found, and what a person can do about it. `check`
// is for our own mistakes and stays on in release builds. Nothing returns error codes, nothing warns and
// carries on.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace fathom {

// The parts of an error; all but `what` may be empty. `where` is a path, a key or a tensor; `fix` is an
// imperative.
struct ErrorParts {
    std::string what, where, expected, got, fix;
};

// what() is the whole message: "WHAT: WHERE" and, on lines of their own, "expected", "got" and "fix".
class Error : public std::runtime_error {
  public:
    explicit Error(ErrorParts parts);
    const ErrorParts& parts() const { return parts_; }

  private:
    ErrorParts parts_;
};

// Throws std::logic_error with file and line unless `condition` holds: a broken promise inside Fathom, never
// bad input.
// (Not by std::source_location, which clang 14 does not have.)
void check(bool condition, std::string_view promise, const char* file = __builtin_FILE(),
           int line = __builtin_LINE());

// Makes text from a file or a person safe to print on one line: control characters, quotes and invalid UTF-8
// become \xNN escapes, and at most `limit` bytes are shown.
std::string printable(std::string_view text, size_t limit = 80);

} // namespace fathom
