// Shared by the tests of sessions: engines on the tested device, each loaded once, and what is compared of a
// session. FATHOM_TEST_DEVICE chooses the device as --device does. Random models are the golden cases of that
// name (tests/golden), prompts a fixed sequence of numbers.
#pragma once

#include "base/error.h"
#include "golden/golden.h"
#include "session/engine.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <limits>
#include <optional>

namespace fathom::session_test {

inline LoadOptions on_device(LoadOptions options = {}) {
    const char* device = std::getenv("FATHOM_TEST_DEVICE");
    options.device = device ? device : "";
    return options;
}

// The model `name` as files: a golden case, or the embedded model for "".
struct SmallModel {
    explicit SmallModel(const std::string& name) {
        if (name.empty()) return;
        folder.emplace();
        golden::write_checkpoint(golden::case_named(name), folder->path());
    }
    ModelFiles files() const { return open_model(folder ? folder->path() : std::filesystem::path()); }
    std::optional<golden::ScratchFolder> folder;
};

inline std::unique_ptr<Engine> load(const std::string& name, const LoadOptions& options = {}) {
    const SmallModel model(name);
    return std::make_unique<Engine>(model.files(), on_device(options));
}

// The engine that most cases share: small, with groups, YaRN and q-LoRA, sessions of up to 512 tokens, three
// steps under way.
inline Engine& shared_engine() {
    static const auto engine = load("v3_base", {.cache_tokens = 8192, .in_flight = 3});
    return *engine;
}

inline std::vector<Token> prompt(size_t n, uint32_t seed = 1, uint32_t vocab = 96) {
    std::vector<Token> tokens(n);
    uint32_t state = seed * 2654435761u + 12345;
    for (Token& token : tokens) {
        state = state * 1664525 + 1013904223;
        token = (state >> 8) % vocab;
    }
    return tokens;
}

// One generated token and the candidates it was chosen from, bit by bit.
struct Step {
    Token token = 0;
    std::vector<std::pair<Token, uint32_t>> candidates; // token, bits of its logprob
    bool operator==(const Step&) const = default;
};

inline Step step_of(Session& session) {
    Step step{session.next(), {}};
    for (const auto& c : session.candidates())
        step.candidates.emplace_back(c.token, std::bit_cast<uint32_t>(c.logprob));
    return step;
}

inline std::vector<Step> steps_of(Session& session, int n) {
    std::vector<Step> steps;
    for (int i = 0; i < n; ++i) steps.push_back(step_of(session));
    return steps;
}

// Where two runs part, or nothing: for messages.
inline std::string difference(const std::vector<Step>& a, const std::vector<Step>& b) {
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
        if (a[i].token != b[i].token)
            return fmt::format("token {}: {} and {}", i, a[i].token, b[i].token);
        else if (a[i] != b[i])
            return fmt::format("the candidates of token {}", i);
    return a.size() == b.size() ? "" : "the lengths";
}
#define CHECK_SAME_STEPS(a, b) CHECK(::fathom::session_test::difference(a, b) == "")

inline std::vector<uint32_t> bits(std::span<const float> values) {
    std::vector<uint32_t> result(values.size());
    std::memcpy(result.data(), values.data(), values.size_bytes());
    return result;
}

// |got - expected|^2 / |expected|^2; NaN and a difference in size count as infinite.
inline double nmse(std::span<const float> got, std::span<const float> expected) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < std::min(got.size(), expected.size()); ++i) {
        error += std::pow(double{got[i]} - expected[i], 2);
        norm += std::pow(double{expected[i]}, 2);
    }
    if (got.size() != expected.size() || std::isnan(error) || std::isnan(norm))
        return std::numeric_limits<double>::infinity();
    return norm == 0 ? (error == 0 ? 0 : std::numeric_limits<double>::infinity()) : error / norm;
}

// The logits that the next sampled token of `session` comes from: its last token is run once more, in a fork.
// They have the bits of next()'s own where the tokens before it went through decode or short prompts.
inline std::vector<float> next_logits(const Session& session) {
    Session fork = session.fork();
    const Token last = session.tokens().back();
    fork.rewind(session.position() - 1);
    return fork.logits(std::span(&last, 1));
}

inline Session opened(Engine& engine, std::span<const Token> tokens, float temperature = 0,
                      uint64_t seed = 0) {
    Session session = engine.open();
    session.sampling().temperature = temperature;
    session.sampling().seed = seed;
    if (!tokens.empty()) session.feed(tokens);
    return session;
}

// What an Error says; fails when `action` throws nothing or something else.
template <class Action> std::string error_of(Action&& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    } catch (const std::exception& error) {
        FAIL("not an Error: ", error.what());
    }
    FAIL("no Error");
    return "";
}
#define CHECK_ERROR(says, ...)                                                                               \
    CHECK(::fathom::session_test::error_of([&] { __VA_ARGS__; }).find(says) != std::string::npos)

} // namespace fathom::session_test
