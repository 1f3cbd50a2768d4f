// A config.json, and what is computed from one that is accepted.
#include "fuzz.h"
#include "model/config.h"

#include <cmath>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fathom;
    return fuzz::verdict([&] {
        const ModelConfig config = parse_config(fuzz::text_of(data, size), "input");
        check(std::isfinite(config.softmax_scale()), "a softmax scale is finite");
        if (config.qk_rope_head_dim <= 4096)
            for (const float f : rope_frequencies(config).inv_freq)
                check(std::isfinite(f), "a frequency is finite");
    });
}
