// What the fuzz targets share. An Error is a verdict on the input; anything else that is thrown, a
// sanitizer's report, a hang or memory beyond bounds is a finding. With FATHOM_FUZZ_VALID set an Error is one
// too: run.sh starts a target so on the seeds that are valid, since a target that refuses all of its seeds
// would fuzz nothing but refusals.
#pragma once

#include "base/error.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

namespace fathom::fuzz {

inline std::span<const std::byte> bytes_of(const uint8_t* data, size_t size) {
    return {reinterpret_cast<const std::byte*>(data), size};
}
inline std::string_view text_of(const uint8_t* data, size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

template <class Parse> int verdict(const Parse& parse) {
    try {
        parse();
    } catch (const Error&) {
        if (std::getenv("FATHOM_FUZZ_VALID")) throw;
    }
    return 0;
}

} // namespace fathom::fuzz
