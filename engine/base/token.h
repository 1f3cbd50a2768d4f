// A token: an index into the vocabulary. It has a header of its own because text, sessions and traces share
// it.
#pragma once

#include <cstdint>

namespace fathom {
using Token = uint32_t;
}
