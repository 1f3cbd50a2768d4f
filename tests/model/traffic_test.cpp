// Operations and bytes of launches, counted by hand. (That the bytes are the right ones: hazards_test.cpp.)
#include "model/step.h"
#include "model/traffic.h"

using namespace fathom;
using namespace fathom::test;

TEST_CASE("traffic: of a decode step, by hand") {
    const auto executor = make_reference_executor();
    const auto model = model_of("v3_base", *executor);
    const Situation situation = situations().front(); // one row, at position 70
    prepare(*model, *executor, situation);
    const Plan& plan = model->plan(situation.kind);
    executor->run(plan);
    const StepFacts facts{situation.rows, [&](View view, std::span<uint32_t> words) {
                              executor->download(view, std::as_writable_bytes(words));
                          }};
    const ModelConfig& c = model->config;
    const auto traffic = [&](const std::string& label) {
        for (const Op& op : plan.ops())
            if (op.label == label) return traffic_of(op, facts);
        FAIL("no op " << label);
        return Traffic{};
    };
    const uint64_t header = sizeof(StepHeader), state = header + sizeof(StepRow);
    const Traffic logits = traffic("logits");
    CHECK(logits.flops == 2.0 * c.vocab_size * c.dim);
    CHECK(logits.bytes() == // a row of weights for the norm as well as a row of x
          header + uint64_t{c.vocab_size} * row_bytes(Format::f32, c.dim) + 8 * c.dim + 4 * c.vocab_size);
    const uint32_t moe_layer = c.first_moe_layer;
    const Traffic up = traffic(fmt::format("layers.{}.moe_up", moe_layer));
    const uint32_t slots = c.n_active_experts + c.n_shared_experts;
    CHECK(up.flops == 2.0 * slots * 2 * c.expert_dim * c.dim);
    CHECK(up.bytes() == header + 4 * slots + // each slot another expert
                            2ull * slots * c.expert_dim * row_bytes(Format::f32, c.dim) + 8 * c.dim +
                            4ull * slots * c.expert_dim);
    const Traffic attention = traffic("layers.0.latent_attention");
    CHECK(attention.flops == 71.0 * c.n_heads * 2 * (2 * c.kv_lora_rank + c.qk_rope_head_dim));
    const uint64_t q = 4ull * c.n_heads * model->row_floats, cached = 4ull * 71 * model->row_floats;
    const uint64_t partial = 4ull * c.n_heads * 2 * (c.kv_lora_rank + 4); // a part for each page
    CHECK(attention.bytes() == state + q + cached + 2 * 4 + partial);     // two pages
}

TEST_CASE("traffic: a module's name has its kernel, tier and format") {
    CHECK(kernel_of("matmul_q4_k") == "matmul");
    CHECK(kernel_of("absorb_split_bf16") == "absorb_split");
    CHECK(kernel_of("rms_norm") == "rms_norm");
    CHECK(kernel_of("moe_up_matrix_q8_0") == "moe_up");
    CHECK(tier_of("moe_up_matrix_q8_0") == Tier::matrix);
    CHECK(tier_of("moe_up_q8_0") == Tier::base);
    CHECK(format_of("matmul_half_iq4_nl") == "iq4_nl");
    CHECK(format_of("rms_norm") == "");
    CHECK(tier_of("cached_attention_matrix") == Tier::matrix);
    CHECK(kernel_of("cached_attention_matrix") == "cached_attention");
    Op unknown;
    unknown.module = "no_such_kernel";
    CHECK_THROWS_AS(traffic_of(unknown, {}), std::logic_error);
}
