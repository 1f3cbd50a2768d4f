// The reference runs on copies that stand for the device's memory; see check.h.
#include "model/check.h"

#include "base/error.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <limits>
#include <memory>
#include <sys/mman.h>

namespace fathom {

namespace {

constexpr uint32_t ROUTED_ROWS = 32;     // two experts alike to seven digits come with many rows
constexpr uint32_t NOTHING = 0x7FC0DEAD; // a NaN
constexpr float HUGE_VALUE = 1e30f;      // marks such as "no score": not values

// Host memory in the place of some ranges of device memory. Only what is touched takes memory, so that a bank
// of experts of gigabytes costs what the chosen ones do.
class Mirror {
  public:
    explicit Mirror(const std::vector<View>& ranges) {
        std::vector<View> sorted = ranges;
        std::sort(sorted.begin(), sorted.end(), [](View a, View b) { return a.address < b.address; });
        for (const View& range : sorted) {
            if (range.bytes == 0) continue;
            if (!parts_.empty() && range.address <= parts_.back().range.address + parts_.back().range.bytes) {
                View& last = parts_.back().range;
                last.bytes = std::max(last.bytes, range.address + range.bytes - last.address);
            } else {
                parts_.push_back({range, nullptr});
            }
        }
        for (Part& part : parts_) {
            void* memory = mmap(nullptr, part.range.bytes + SPARE, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED)
                throw Error({.what = "no address space for the reference's copy of a kernel's memory",
                             .got = fmt::format("{} bytes", part.range.bytes)});
            part.memory = static_cast<std::byte*>(memory);
        }
    }
    Mirror(const Mirror&) = delete;
    ~Mirror() {
        for (const Part& part : parts_)
            if (part.memory) munmap(part.memory, part.range.bytes + SPARE);
    }

    std::byte* at(uint64_t address) const { // null: not of these ranges
        for (const Part& part : parts_)
            if (address >= part.range.address && address < part.range.address + part.range.bytes)
                return part.memory + (address - part.range.address);
        return nullptr;
    }
    std::span<std::byte> span(View view) const {
        std::byte* const memory = at(view.address);
        check(memory, "what a kernel touches lies in what it declares");
        return {memory, view.bytes};
    }

  private:
    static constexpr uint64_t SPARE = 64; // rows are read in whole chunks
    struct Part {
        View range;
        std::byte* memory;
    };
    std::vector<Part> parts_;
};

uint32_t rows_to_check(const Op& op, const StepFacts& facts, double flops) {
    const auto n = static_cast<uint32_t>(facts.rows.size());
    const std::string_view kernel = kernel_of(op.module);
    if (kernel == "expert_sort" || kernel == "embed") return n; // lists and counts are of the whole step
    const double one = traffic_of(op, {facts.rows, facts.read, 1}).flops;
    const uint32_t most = kernel == "router" ? std::min(n, ROUTED_ROWS) : n;
    return one * most <= flops ? most : std::clamp(static_cast<uint32_t>(flops / one), 1u, most);
}

bool overlaps(View a, View b) { return a.address < b.address + b.bytes && b.address < a.address + a.bytes; }

// Joins views that follow each other within one of `ranges`, so that fewer transfers move them.
std::vector<View> joined(std::vector<View> views, const std::vector<View>& ranges) {
    const auto ends_in_same = [&](View view, uint64_t end) {
        return std::any_of(ranges.begin(), ranges.end(), [&](View range) {
            return view.address >= range.address && end <= range.address + range.bytes;
        });
    };
    std::sort(views.begin(), views.end(), [](View a, View b) { return a.address < b.address; });
    std::vector<View> out;
    for (const View& view : views) {
        const uint64_t end = view.address + view.bytes;
        if (!out.empty() && view.address <= out.back().address + out.back().bytes &&
            ends_in_same(out.back(), end))
            out.back().bytes = std::max(out.back().bytes, end - out.back().address);
        else
            out.push_back(view);
    }
    return out;
}

void fill_with_nan(const Traffic& traffic, Executor& executor) {
    for (const Traffic::Write& write : traffic.writes) {
        const auto also_read = [&](View read) { return overlaps(read, write.view); };
        if (std::any_of(traffic.reads.begin(), traffic.reads.end(), also_read)) continue;
        const std::vector<uint32_t> nan(write.view.bytes / 4, NOTHING);
        executor.upload(write.view, 0, std::as_bytes(std::span(nan)));
    }
    executor.flush();
}

// Runs the op's reference with its addresses pointing into the mirror.
void run_reference(const Op& op, const Mirror& mirror) {
    std::byte params[sizeof(op.params)];
    std::memcpy(params, op.params, sizeof(params));
    for (uint32_t i = 0; i < op.n_addresses; ++i) {
        uint64_t address;
        std::memcpy(&address, params + 8 * i, 8);
        if (address == 0) continue;
        // An address without a declared range (lists that this launch does not use) stays, and is not used.
        if (const std::byte* memory = mirror.at(address)) address = reinterpret_cast<uint64_t>(memory);
        std::memcpy(params + 8 * i, &address, 8);
    }
    op.reference(params);
}

// Words of all rows that the kernel left as they were filled.
size_t left_out(const Traffic& all, Executor& executor) {
    size_t count = 0;
    for (const Traffic::Write& write : all.writes) {
        std::vector<uint32_t> words(write.view.bytes / 4);
        executor.download(write.view, std::as_writable_bytes(std::span(words)));
        count += static_cast<size_t>(std::count(words.begin(), words.end(), NOTHING));
    }
    return count;
}

Verdict compare(const Traffic& traffic, const Mirror& mirror, Executor& executor, Verdict verdict,
                double limit) {
    double difference = 0, largest = 0;
    size_t wrong = 0, not_finite = 0;
    for (const Traffic::Write& write : traffic.writes) {
        if (write.packed) continue;
        std::vector<float> got(write.view.bytes / 4), expected(got.size());
        executor.download(write.view, std::as_writable_bytes(std::span(got)));
        std::memcpy(expected.data(), mirror.span(write.view).data(), 4 * got.size());
        for (size_t i = 0; i < got.size(); ++i) {
            if (write.exact || std::abs(expected[i]) > HUGE_VALUE) {
                wrong += std::memcmp(&got[i], &expected[i], 4) != 0;
                continue;
            }
            not_finite += !std::isfinite(got[i]);
            largest = std::max(largest, double(std::abs(expected[i])));
            if (std::isfinite(got[i]))
                difference = std::max(difference, std::abs(double(got[i]) - expected[i]));
        }
    }
    verdict.error = difference == 0 ? 0 : difference / std::max(largest, 1e-30);
    if (wrong != 0)
        verdict.failure = fmt::format("{} words differ from the reference", wrong);
    else if (not_finite != 0)
        verdict.failure = fmt::format("{} values are not finite", not_finite);
    else if (verdict.error > limit)
        verdict.failure = fmt::format("error {:.1e}, limit {:.0e}", verdict.error, limit);
    return verdict;
}

} // namespace

gpu::Dispatch launch_alone(const Op& op, bool wrong) {
    gpu::Dispatch launch = op;
    launch.barrier = true;
    if (wrong) { // of a cache's parts, which a short text fills the first of alone, none
        uint32_t& most = *std::max_element(launch.grid, launch.grid + 3);
        const std::string_view kernel = kernel_of(op.module); // two's workgroups count each other
        const bool whole = kernel == "cached_attention" || kernel == "router" || kernel == "sample";
        most = whole ? 0 : most / 2;
        launch.indirect = {};
    }
    return launch;
}

Verdict check_kernel(const Op& op, const gpu::Dispatch& launch, const StepFacts& facts, Executor& executor,
                     const CheckLimits& limits) {
    const uint32_t n = rows_to_check(op, facts, limits.flops);
    const Traffic traffic = traffic_of(op, {facts.rows, facts.read, n});
    std::vector<View> ranges = op.reads;
    ranges.insert(ranges.end(), op.writes.begin(), op.writes.end());
    const Mirror mirror(ranges);
    for (const View& view : joined(traffic.reads, ranges)) executor.download(view, mirror.span(view));
    uint64_t state; // every kernel's first parameter
    std::memcpy(&state, op.params, 8);
    StepHeader header;
    std::memcpy(&header, mirror.span({state, sizeof(header)}).data(), sizeof(header));
    header.n_rows = std::min(header.n_rows, n);
    header.n_samples = std::min(header.n_samples, n);
    std::memcpy(mirror.at(state), &header, sizeof(header));

    const Traffic all = traffic_of(op, facts);
    fill_with_nan(all, executor);
    gpu::Device& device = *executor.gpu();
    gpu::Recording recording = device.record("check of " + op.label, std::array{launch});
    device.wait(device.submit(recording));
    run_reference(op, mirror);
    Verdict verdict = compare(traffic, mirror, executor, {.rows = n}, limits.error);
    if (const size_t count = left_out(all, executor); count != 0)
        verdict.failure = fmt::format("{} words are not written", count);
    if (!verdict.failure.empty()) { // those that follow shall have right inputs
        for (const Traffic::Write& write : traffic.writes)
            executor.upload(write.view, 0, mirror.span(write.view));
        executor.flush();
    }
    return verdict;
}

} // namespace fathom
