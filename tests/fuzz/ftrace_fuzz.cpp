// A recording: every record that is accepted can be written again.
#include "fuzz.h"
#include "trace/columns.h"
#include "trace/file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace fathom;
    return fuzz::verdict([&] {
        const trace::Recording read = trace::read_recording(std::as_bytes(std::span(data, size)), "input");
        const auto bytes = trace::write_columns(read.identity.shape, read.tokens);
        check(read.tokens.empty() == bytes.empty(), "records have bytes");
    });
}
