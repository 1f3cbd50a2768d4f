// The numbers of the cache, of latents or of keys and values; see shaders/params.h.
#pragma once

#include "base/numbers.h"
#include "params.h"

#include <string_view>

namespace fathom {

enum class CacheFormat : uint8_t { f32 = CACHE_F32, f16 = CACHE_F16, q8 = CACHE_Q8 };
inline constexpr CacheFormat CACHE_FORMATS[] = {CacheFormat::f32, CacheFormat::f16, CacheFormat::q8};

inline std::string_view name_of(CacheFormat format) {
    constexpr std::string_view names[] = {"f32", "f16", "q8"};
    return names[static_cast<size_t>(format)];
}

inline uint32_t cache_row_bytes(CacheFormat format, uint32_t row_floats) {
    if (format == CacheFormat::f32) return 4 * row_floats;
    if (format == CacheFormat::f16) return 2 * row_floats;
    return CACHE_SCALES_AT(row_floats) + 4 * div_up(row_floats, 32u);
}

} // namespace fathom
