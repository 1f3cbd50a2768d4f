// Steps of prompts in lists and pieces: the same bits however they are cut, and cut finer where they take
// long.
#include "gpu/help.h"

using namespace fathom;
using namespace fathom::test;

namespace {

// Three products on an executor of its own; what they give.
struct Products {
    std::unique_ptr<Executor> executor;
    View state, weights, x, y;
    Plan plan;
    explicit Products(const PaceOptions& pace)
        : executor(make_gpu_executor({.select = device_wish()}, pace)),
          plan("products", executor->caps(), 64, true, {Tier::base, Tier::tiled}) {
        const auto put = [&](std::span<const std::byte> bytes) {
            const View view = executor->allocate("test", gpu::Placement::device, bytes.size());
            executor->upload(view, 0, bytes);
            return view;
        };
        const auto w = random_floats("pace w", 300 * 64), in = random_floats("pace x", 64 * 64);
        std::vector<std::byte> step(sizeof(StepHeader) + MAX_ROWS * sizeof(StepRow));
        const StepHeader header{61, 0, 0, 0};
        std::memcpy(step.data(), &header, sizeof(header));
        state = put(step), weights = put(std::as_bytes(std::span(w))), x = put(std::as_bytes(std::span(in)));
        y = executor->allocate("test", gpu::Placement::device, 3 * 64 * 304 * 4);
        executor->flush();
        StepMemory memory;
        memory.state = state;
        Matrix matrix = matrix_shape(Format::f32, 300, 64, 1);
        matrix.view = weights;
        for (uint64_t i = 0; i < 3; ++i)
            matmul(plan, "product", memory, matrix, Rows{x.address, 64, 64},
                   Rows{y.address + i * 64 * 304 * 4, 300, 304}, false);
        plan.finish();
    }
    std::vector<uint32_t> run() {
        executor->zero(y);
        executor->run(plan);
        std::vector<uint32_t> words(y.bytes / 4);
        executor->download(y, std::as_writable_bytes(std::span(words)));
        return words;
    }
};

} // namespace

TEST_CASE("pace: a prompt's step gives the same bits however it is cut") {
    Products whole({.on_cpu = false}), cut({.longest_launch = 1e-7, .longest_list = 1e-7, .on_cpu = true});
    const auto expected = whole.run();
    if (whole.executor->caps().cpu) CHECK(whole.executor->pace_of(whole.plan) == nullptr);
    for (int i = 0; i < 6; ++i) CHECK(cut.run() == expected);
    const Pace* pace = cut.executor->pace_of(cut.plan);
    REQUIRE(pace != nullptr);
    CHECK(pace->list_ops == 1); // nothing is ever fast enough
    CHECK(pace->pieces == 256);
    CHECK(pace->longest > 0);
}

TEST_CASE("pace: what is fast is not cut") {
    Products fast({.longest_launch = 100, .longest_list = 1000, .on_cpu = true});
    const auto expected = fast.run();
    for (int i = 0; i < 3; ++i) CHECK(fast.run() == expected);
    CHECK(fast.executor->pace_of(fast.plan)->pieces == 1);
    CHECK(fast.executor->pace_of(fast.plan)->list_ops == 64);
}
