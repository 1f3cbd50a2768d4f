// Rows made out of a seed; see shaders/random_rows.comp.
#include "base/error.h"
#include "base/numbers.h"
#include "model/ops/ops.h"
#include "model/ops/reference.h"

namespace fathom {

namespace {

uint32_t mix32(uint32_t x) {
    x = x * 747796405u + 2891336453u;
    x = ((x >> ((x >> 28) + 4)) ^ x) * 277803737u;
    return (x >> 22) ^ x;
}

void random_rows_reference(const RandomRows& p) {
    for (uint32_t row = 0, i = 0; row < p.rows; ++row)
        for (uint32_t w = 0; w < p.words; ++w, ++i) {
            const uint32_t random = mix32(mix32(i ^ p.seed) + p.seed), at = w % p.period;
            reference::words(p.y + uint64_t{row} * p.row_bytes)[p.first_word + w] =
                w < p.used ? (random & p.mask[at]) | p.set[at] : 0;
        }
}

} // namespace

void random_rows(Plan& plan, const std::string& label, RandomRows p) {
    const uint64_t words = uint64_t{p.rows} * p.words;
    check(words >> 32 == 0, "words of a plane are counted in 32 bits");
    const uint32_t groups = div_up(static_cast<uint32_t>(words), WORKGROUP),
                   across = std::min(groups, 32768u);
    plan.add<random_rows_reference>("random_rows", label, p, {across, div_up(groups, across), 1}, {}, {},
                                    {{p.y, uint64_t{p.rows} * p.row_bytes}});
}

} // namespace fathom
