// A safetensors file: the header, and every byte that an accepted one lays claim to.
#include "checkpoint/safetensors.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fathom;
    return fuzz::verdict([&] {
        unsigned sum = 0;
        for (const TensorView& tensor : parse_safetensors(fuzz::bytes_of(data, size), "input"))
            for (const std::byte byte : tensor.data) sum += std::to_integer<unsigned>(byte);
        check(sum <= 255 * size, "tensors do not overlap");
    });
}
