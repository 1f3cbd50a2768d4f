// Sessions under the clock; see models.h.
#include "bench/models.h"

#include "bench/timer.h"

#include <algorithm>
#include <bit>
#include <fmt/format.h>
#include <numeric>

namespace fathom::bench {

double ModelBench::prompt(uint32_t tokens, uint32_t depth) {
    Session session = behind(depth);
    // Behind a depth, one token of it waits to be processed with the prompt.
    const std::vector<Token> fed = random_tokens(depth == 0 ? tokens : tokens - 1);
    const Stop::Working working(stop_, session);
    const auto start = Clock::now();
    session.feed(fed);
    session.next();
    const double seconds = since(start);
    stop_.check();
    count_routing(session);
    return seconds;
}

std::vector<double> ModelBench::decode(uint32_t tokens, uint32_t depth, uint32_t batch) {
    std::vector<Session> sessions;
    std::vector<Session*> all;
    for (uint32_t i = 0; i < batch; ++i) {
        sessions.push_back(behind(depth));
        if (depth == 0) sessions.back().feed(random_tokens(1));
    }
    for (Session& session : sessions) all.push_back(&session);
    std::vector<double> seconds;
    for (uint32_t i = 0; i < tokens; ++i) {
        stop_.check();
        const auto start = Clock::now();
        engine_.next(all);
        seconds.push_back(since(start));
    }
    for (Session& session : sessions) count_routing(session);
    return seconds;
}

Session ModelBench::behind(uint32_t depth) {
    if (depth == 0) {
        Session session = engine_.open();
        session.sampling().temperature = 0;
        return session;
    }
    if (!base_ || base_->position() != depth + 1) {
        base_.reset();
        base_.emplace(behind(0));
        const Stop::Working working(stop_, *base_);
        base_->feed(random_tokens(depth));
        base_->next();
        stop_.check();
    }
    Session session = base_->fork();
    session.sampling().temperature = 0;
    return session;
}

std::vector<Token> ModelBench::random_tokens(size_t n) {
    std::uniform_int_distribution<Token> any(0, engine_.config().vocab_size - 1);
    std::vector<Token> tokens(n);
    for (Token& token : tokens) token = any(random_);
    return tokens;
}

void ModelBench::count_routing(Session& session) {
    const ModelConfig& config = engine_.config();
    for (const trace::TokenRecord& token : session.take_records()) {
        const size_t layers = token.experts.size() / std::max(1u, config.n_active_experts);
        chosen_.resize(layers, std::vector<uint64_t>(config.n_routed_experts));
        for (size_t i = 0; i < token.experts.size(); ++i)
            ++chosen_[i / config.n_active_experts][token.experts[i]];
    }
}

double ModelBench::busiest_tenth() const {
    double total = 0;
    for (std::vector<uint64_t> counts : chosen_) {
        std::sort(counts.rbegin(), counts.rend());
        const auto tenth = static_cast<ptrdiff_t>(std::max<size_t>(1, counts.size() / 10));
        const double all = std::accumulate(counts.begin(), counts.end(), 0.0);
        total += std::accumulate(counts.begin(), counts.begin() + tenth, 0.0) / std::max(1.0, all);
    }
    return chosen_.empty() ? 0 : total / static_cast<double>(chosen_.size());
}

namespace {

// The rows of a model, in the order in which what is known predicts the next.
class Rows {
  public:
    Rows(ModelBench& bench, uint32_t context, const ModelBenchOptions& options, uint64_t token_bytes,
         const Report& roofs)
        : bench_(bench), context_(context), options_(options), token_bytes_(token_bytes), roofs_(roofs) {}

    void prompts() {
        constexpr uint32_t FEW = 33;
        bench_.prompt(FEW, 0); // makes pipelines
        const double few = bench_.prompt(FEW, 0);
        for (const uint32_t n : options_.prompts) {
            const std::string name = fmt::format("prefill {}", n);
            if (!fits(name, n + 1)) continue;
            const double guess = per_token_ > 0 ? per_token_ * n : few / FEW * n;
            if (!affordable(name, guess * (options_.samples + 1))) continue;
            std::vector<double> seconds;
            bench_.prompt(n, 0); // its pipelines
            for (uint32_t i = 0; i < options_.samples; ++i) seconds.push_back(bench_.prompt(n, 0));
            const Spread spread = spread_of(seconds);
            per_token_ = spread.median / n;
            options_.on_row(
                {.name = name, .prompt = n, .tokens_per_second = inverse(spread, n), .seconds = spread});
        }
    }

    void decode(uint32_t depth, uint32_t batch) {
        std::string name = "decode";
        if (depth != 0) name += fmt::format(" @ {}", depth);
        if (batch != 1) name += fmt::format(" x {}", batch);
        const uint32_t tokens = options_.tokens;
        if (!fits(name, depth + tokens + 2)) return;
        const double guess = depth * per_token_ + (tokens + 1) * per_step_ * (batch == 1 ? 1 : batch);
        if (!affordable(name, guess)) return;
        std::vector<double> seconds = bench_.decode(tokens + 1, depth, batch);
        seconds.erase(seconds.begin()); // makes pipelines
        const Spread spread = spread_of(seconds);
        if (depth == 0 && batch == 1) per_step_ = spread.median;
        double percent = 0;
        if (const Roof* read = roofs_.roof("read"); read && batch == 1)
            percent = 100 * double(token_bytes_) / spread.median * 1e-9 / read->rate.median;
        options_.on_row({.name = name,
                         .depth = depth,
                         .batch = batch,
                         .tokens_per_second = inverse(spread, batch),
                         .seconds = spread,
                         .percent = percent});
    }

  private:
    bool fits(const std::string& name, uint32_t tokens) const {
        if (tokens <= context_) return true;
        options_.on_skip(fmt::format("{}: needs a context of {}, this one has {}", name, tokens, context_));
        return false;
    }
    bool affordable(const std::string& name, double seconds) const {
        const double left = options_.seconds - since(start_);
        if (seconds <= left) return true;
        options_.on_skip(fmt::format("{}: would take about {:.0f} s, of {:.0f} s that are left", name,
                                     seconds, std::max(0.0, left)));
        return false;
    }

    ModelBench& bench_;
    const uint32_t context_;
    const ModelBenchOptions& options_;
    const uint64_t token_bytes_;
    const Report& roofs_;
    const Clock::time_point start_ = Clock::now();
    double per_token_ = 0, per_step_ = 0; // seconds, as measured last
};

} // namespace

void measure_model(ModelBench& bench, uint32_t context, const ModelBenchOptions& options,
                   uint64_t token_bytes, const Report& roofs) {
    Rows rows(bench, context, options, token_bytes, roofs);
    rows.prompts();
    std::vector<uint32_t> depths = options.depths;
    const auto deep = [&](uint32_t d) { return d != 0 && d + options.tokens + 2 <= context; };
    if (std::none_of(depths.begin(), depths.end(), deep)) depths = {0, std::bit_floor(context / 2)};
    // The dearest last: what time does not suffice for is left out.
    const auto deeper =
        std::stable_partition(depths.begin(), depths.end(), [](uint32_t depth) { return depth == 0; });
    for (auto depth = depths.begin(); depth != deeper; ++depth) rows.decode(*depth, 1);
    for (const uint32_t batch : options.batches) rows.decode(0, batch);
    for (auto depth = deeper; depth != depths.end(); ++depth) rows.decode(*depth, 1);
}

} // namespace fathom::bench
