// The whole forward pass against oracles that share no code with it: Hugging Face transformers, and NumPy
// where transformers departs from the code published with the checkpoints (tests/golden says where and why).
// Random-weight models of every mechanism are compared logit by logit; the embedded model token by token and
// by the likelihood of a text. FATHOM_TEST_DEVICE chooses the device as --device does.
#include "golden/golden.h"
#include "model/config.h"
#include "session/engine.h"
#include "text/tokenizer.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

using namespace fathom;

namespace {

LoadOptions options(bool reference) {
    const char* device = std::getenv("FATHOM_TEST_DEVICE");
    LoadOptions result;
    result.device = device ? device : "";
    result.reference = reference;
    return result;
}

// The worst NMSE of any position, |got - expected|^2 / |expected|^2, and where it is. NaN counts as infinite.
struct Distance {
    double nmse = 0;
    size_t position = 0;
};

Distance distance(std::span<const float> got, const golden::Expectation& expected) {
    Distance worst;
    for (size_t row = 0; row < expected.positions; ++row) {
        double difference = 0, norm = 0;
        for (size_t i = row * expected.vocab; i < (row + 1) * expected.vocab; ++i) {
            difference += std::pow(double{got[i]} - expected.logits[i], 2);
            norm += std::pow(double{expected.logits[i]}, 2);
        }
        double nmse = difference / norm;
        if (std::isnan(nmse)) nmse = std::numeric_limits<double>::infinity();
        if (nmse >= worst.nmse) worst = {nmse, expected.tokens.size() - expected.positions + row};
    }
    return worst;
}

void check_logits(const golden::Case& golden, const std::filesystem::path& folder, const LoadOptions& load) {
    const auto expected = golden::expectation(golden);
    Engine engine(open_model(folder), load);
    auto session = engine.open();
    const auto logits = session.logits(expected.tokens);
    REQUIRE(logits.size() == expected.tokens.size() * expected.vocab);
    const auto worst = distance(std::span(logits).last(expected.logits.size()), expected);
    MESSAGE(fmt::format("{} on {}: NMSE {:.1e}", golden.name, engine.device_name(), worst.nmse));
    CHECK_MESSAGE(worst.nmse <= golden.limit,
                  fmt::format("{} ({}) on {}, against {}: NMSE {:.3e} at position {}", golden.name,
                              golden.notes, engine.device_name(), golden.oracle, worst.nmse, worst.position));
}

void check_every_case(bool reference) {
    for (const auto& golden : golden::cases()) {
        SUBCASE(golden.name.c_str()) {
            golden::ScratchFolder folder;
            golden::write_checkpoint(golden, folder.path());
            check_logits(golden, folder.path(), options(reference));
        }
    }
}

// Every field, since ModelConfig has no other equality.
std::string describe(const ModelConfig& c) {
    return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} | {} "
                       "{} {} {} {} {} | {} {} "
                       "{} {}",
                       int(c.architecture), c.vocab_size, c.dim, c.n_layers, c.n_mtp_layers, c.n_heads,
                       c.q_lora_rank, c.kv_lora_rank, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim,
                       c.dense_dim, c.expert_dim, c.n_routed_experts, c.n_shared_experts, c.n_active_experts,
                       c.n_groups, c.n_active_groups, c.first_moe_layer, c.moe_layer_freq, int(c.scoring),
                       int(c.topk_method), c.norm_topk_prob, c.routed_scaling_factor, c.rms_norm_eps,
                       c.rope_theta, c.yarn.factor, c.yarn.original_max_position, c.yarn.beta_fast,
                       c.yarn.beta_slow, c.yarn.mscale, c.yarn.mscale_all_dim, c.rope_interleaved,
                       c.max_position, fmt::join(c.bos, ","), fmt::join(c.eos, ","));
}

nlohmann::json tiny_golden(const char* file) {
    return nlohmann::json::parse(golden::read_text(golden::data_folder() / "tiny" / file));
}

// Continues one prompt of greedy.json and compares it with what transformers said.
void check_greedy(Engine& engine, const nlohmann::json& golden) {
    const auto prompt = golden.at("prompt").get<std::vector<Token>>();
    const auto expected = golden.at("tokens").get<std::vector<Token>>();
    REQUIRE(expected.size() == 200);
    auto session = engine.open();
    session.sampling().temperature = 0;
    session.feed(prompt);
    std::vector<Token> tokens;
    while (tokens.size() < expected.size()) tokens.push_back(session.next());
    const auto difference =
        std::mismatch(tokens.begin(), tokens.end(), expected.begin()).first - tokens.begin();
    CHECK_MESSAGE(
        difference == 200,
        fmt::format("token {} is another one; the oracle's closest decisions were {} apart in logits and {} "
                    "in routing keys",
                    difference, golden.at("logit_gap").get<double>(),
                    golden.at("routing_gap").get<double>()));
}

} // namespace

TEST_CASE("golden: the weight generator gives the same bits as its Python twin") {
    // In tests/golden: python3 -c 'import weights; print([x.item().hex() for x in
    // weights.unit("lm_head.weight", 3)])'
    const auto head = golden::fnv1a64("lm_head.weight"), norm = golden::fnv1a64("model.norm.weight");
    CHECK(golden::fnv1a64("a") == 0xAF63DC4C8601EC8C); // published with the algorithm
    CHECK(head == 0xAB67EB515E1B6F0D);
    CHECK(golden::unit(head, 0) == 0x1.f89b54p-1f);
    CHECK(golden::unit(head, 1) == 0x1.f05e9cp-1f);
    CHECK(golden::unit(head, 2) == -0x1.d52578p-1f);
    CHECK(golden::unit(head, 99999) == 0x1.34d21cp-1f);
    CHECK(golden::weight(head, 66, 0.21650635f, 0) == 0x1.9fcf9ap-3f);
    CHECK(golden::weight(norm, 5, 0.125f, 1) == 0x1.0e607ap+0f);
}

TEST_CASE("golden: logits as the oracles give them") { check_every_case(false); }

TEST_CASE("golden: logits of the CPU executor as the oracles give them") { check_every_case(true); }

TEST_CASE("golden: both dialects of config.json say the same") {
    for (const auto& golden : golden::cases()) {
        INFO(golden.name);
        const auto modern = parse_config(golden::read_text(golden.folder() / "config.json"), "config.json");
        const auto published = parse_config(golden::read_text(golden.folder() / "config_published.json"),
                                            "config_published.json");
        CHECK(describe(modern) == describe(published));
    }
}

TEST_CASE("golden: a model in the published dialect and one in two files with an index") {
    const auto golden = golden::case_named("v3_base");
    golden::ScratchFolder published, sharded;
    golden::write_checkpoint(golden, published.path(), true);
    check_logits(golden, published.path(), options(false));
    golden::write_sharded_checkpoint(golden, sharded.path());
    check_logits(golden, sharded.path(), options(false));
}

TEST_CASE("golden: a long prompt in small chunks" * doctest::test_suite("long")) {
    const auto golden = golden::case_named("v3_long");
    golden::ScratchFolder folder;
    golden::write_checkpoint(golden, folder.path());
    for (const uint32_t chunk : {1u, 7u, 64u, 100u}) {
        INFO("chunk ", chunk);
        auto load = options(false);
        load.chunk = chunk;
        check_logits(golden, folder.path(), load);
    }
}

TEST_CASE("golden: the embedded model continues five prompts as transformers does" *
          doctest::test_suite("long")) {
    Engine engine(open_model({}), options(false));
    const auto goldens = tiny_golden("greedy.json");
    REQUIRE(goldens.size() == 5);
    for (const auto& golden : goldens) {
        INFO(golden.at("text").get<std::string>());
        check_greedy(engine, golden);
    }
}

TEST_CASE("golden: the CPU executor continues a prompt as transformers does") {
    Engine engine(open_model({}), options(true));
    check_greedy(engine, tiny_golden("greedy.json").at(0));
}

TEST_CASE("golden: the embedded model finds a text it never saw as likely as transformers does" *
          doctest::test_suite("long")) {
    const auto golden = tiny_golden("held_out.json");
    const auto tokens = golden.at("tokens").get<std::vector<Token>>();
    Engine engine(open_model({}), options(false));
    auto session = engine.open();
    const auto scores = session.score(tokens);
    REQUIRE(scores.size() == tokens.size());
    double sum = 0;
    for (size_t i = 1; i < scores.size(); ++i) sum -= scores[i];
    const double nll = sum / double(tokens.size() - 1), expected = golden.at("mean_nll");
    INFO("mean NLL ", nll, ", expected ", expected);
    CHECK(std::abs(nll / expected - 1) <= 1e-4);
}

TEST_CASE("golden: the tokenizer gives the tokens that the goldens were made with") {
    const auto model = open_model({});
    const auto tokenizer = Tokenizer::from_json(model.tokenizer, model.tokenizer_where);
    const auto encode = [&](const std::string& text) {
        auto tokens = tokenizer.encode(text);
        tokens.insert(tokens.begin(), 0); // BOS
        return tokens;
    };
    const auto text = golden::read_text(golden::data_folder() / "tiny/held_out.txt");
    CHECK(encode(text) == tiny_golden("held_out.json").at("tokens").get<std::vector<Token>>());
    for (const auto& golden : tiny_golden("greedy.json"))
        CHECK(encode(golden.at("text")) == golden.at("prompt").get<std::vector<Token>>());
}
