// Proof that the harness reports what it finds: an overflow that a little searching reaches.
#include "fuzz.h"

#include <cstring>
#include <memory>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::unique_ptr<uint8_t[]> copy(new uint8_t[size]);
    std::memcpy(copy.get(), data, size);
    const bool found = size >= 3 && copy[0] == 'b' && copy[1] == 'u' && copy[2] == 'g';
    const volatile uint8_t past = found ? copy[size] : 0;
    return past * 0;
}
