// A benchmark, not a test: what telling costs. Two engines of one model, one that tells (kernels write the
// ring, a listener takes the records; with a LAYER also what its heads look at) and one that does not,
// generate in turn, in blocks of some tokens.
//     measure_session [MODEL [PAIRS [LAYER]]]
// prints tokens/s of both and the cost: the mean of the pairs' ratios with its 95 % interval. With a LAYER
// the silent side tells too, and what is measured is its attention alone.
#include "session/engine.h"

#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <memory>
#include <optional>

using namespace fathom;

namespace {

constexpr int BLOCK = 8; // tokens: short beside the moods of a shared machine
constexpr uint32_t CONTEXT = 512;

struct Side {
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Session> session;
    trace::Queue queue;
    double seconds = 0;

    Side(const ModelFiles& files, bool trace, std::optional<uint32_t> layer) {
        engine = std::make_unique<Engine>(files, LoadOptions{.context = CONTEXT, .trace = trace});
        if (trace) engine->listen(queue);
        if (layer) engine->watch_layers({.layers = {*layer}});
        session = std::make_unique<Session>(engine->open());
        session->sampling().temperature = 1;
        block();
    }
    ~Side() { engine->ignore(queue); }
    double block() {
        if (session->position() + BLOCK + 2 > CONTEXT) session->rewind(0);
        if (session->position() == 0) session->feed(std::vector<Token>{0, 20, 30});
        session->next();
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < BLOCK; ++i) session->next();
        const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        queue.take();
        seconds += took;
        return took;
    }
};

} // namespace

int main(int argc, char** argv) {
    const ModelFiles files = open_model(argc > 1 ? argv[1] : "");
    const int pairs = argc > 2 ? std::atoi(argv[2]) : 300;
    std::optional<uint32_t> layer;
    if (argc > 3) layer = static_cast<uint32_t>(std::atoi(argv[3]));
    Side on(files, true, layer), off(files, layer.has_value(), std::nullopt);
    on.seconds = off.seconds = 0;
    double sum = 0, squares = 0;
    for (int i = 0; i < pairs; ++i) { // in turn, and each first as often as the other
        double told = 0, silent = 0;
        if (i % 2 == 0)
            told = on.block(), silent = off.block();
        else
            silent = off.block(), told = on.block();
        const double ratio = std::log(told / silent);
        sum += ratio, squares += ratio * ratio;
    }
    const double mean = sum / pairs, deviation = std::sqrt((squares / pairs - mean * mean) / (pairs - 1));
    fmt::print("{} pairs of {} tokens: {:.1f} tokens/s telling, {:.1f} without\n", pairs, BLOCK,
               pairs * BLOCK / on.seconds, pairs * BLOCK / off.seconds);
    fmt::print("telling costs {:+.2f} %, 95 % interval {:+.2f} to {:+.2f} %\n", 100 * std::expm1(mean),
               100 * std::expm1(mean - 1.96 * deviation), 100 * std::expm1(mean + 1.96 * deviation));
}
