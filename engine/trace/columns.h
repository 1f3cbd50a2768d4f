// Records as bytes: every field of all of them, then the next field, which is what a compressor likes. The
// shape gives the tables their sizes.
#pragma once

#include "trace/record.h"

#include <cstddef>
#include <span>

namespace fathom::trace {

std::vector<std::byte> write_columns(const Shape& shape, std::span<const TokenRecord> records);
// Throws std::out_of_range when the bytes are not those of `count` records of this shape.
std::vector<TokenRecord> read_columns(const Shape& shape, std::span<const std::byte> bytes, uint32_t count);

std::vector<std::byte> write_event(const Event& event);
Event read_event(std::span<const std::byte> bytes); // throws std::out_of_range

} // namespace fathom::trace
