// Large numbers as people read them: three digits and a prefix, in powers of ten.
#pragma once

#include <cstdint>
#include <string>

namespace fathom {

std::string bytes_text(uint64_t bytes); // "1.50 MB"
std::string count_text(uint64_t count); // "14.6 M"

} // namespace fathom
