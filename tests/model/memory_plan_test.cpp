// A memory plan says what loading takes, owner by owner and byte by byte, for every kind of model: it counts
// what the same code allocates.
#include "model/memory_plan.h"
#include "model/step.h"

#include <algorithm>

using namespace fathom;
using namespace fathom::test;

namespace {

MemoryPlan plan_of(const std::string& golden_case, const ModelOptions& options, const gpu::Caps& caps) {
    golden::ScratchFolder folder;
    golden::write_checkpoint(golden::case_named(golden_case), folder.path());
    const ModelFiles files = open_model(folder.path());
    return plan_memory(model_config(files), source_of(files.checkpoint, options.weights), options, caps);
}

void compare(const std::string& golden_case, const ModelOptions& options) {
    INFO(golden_case);
    const auto on = gpu_executor();
    const MemoryPlan plan = plan_of(golden_case, options, on->caps());
    const auto model = model_of(golden_case, *on, options);
    uint64_t owners = 0;
    for (const gpu::OwnerBytes& owner : on->memory()) {
        INFO(owner.owner);
        uint64_t bytes = 0, reserved = 0;
        for (const auto& item : plan.items)
            if (item.owner == owner.owner) {
                bytes += item.bytes;
                reserved += item.reserved;
                ++owners;
            }
        CHECK(bytes == owner.bytes);
        CHECK(reserved == owner.reserved);
    }
    CHECK(owners == plan.items.size());
}

} // namespace

TEST_CASE("a memory plan is what loading takes") {
    ModelOptions options = small_options();
    for (const char* name : {"v1_plain", "v2_odd", "v3_base", "v3_fp8"}) compare(name, options);
    options.context = 65;
    options.pages = 2;
    options.chunk = 64;
    options.trace = false;
    options.weights.quantize = Format::q4_0;
    compare("v3_base", options);
    options.weights.experts_on_host = true;
    options.weights.keep_mtp = true;
    compare("v3_base", options);
}

TEST_CASE("a memory plan says what a token reads, and from where") {
    ModelOptions options = small_options();
    const gpu::Caps caps;
    const auto read = [](const MemoryPlan& plan, gpu::Placement placement) {
        return plan.read[static_cast<size_t>(placement)];
    };
    const MemoryPlan all = plan_of("v3_base", options, caps);
    options.weights.experts_on_host = true;
    const MemoryPlan apart = plan_of("v3_base", options, caps);
    CHECK(read(all, gpu::Placement::host) == 0);
    CHECK(read(apart, gpu::Placement::device) + read(apart, gpu::Placement::host) ==
          read(all, gpu::Placement::device));
    golden::ScratchFolder folder;
    golden::write_checkpoint(golden::case_named("v3_base"), folder.path());
    const ModelFiles files = open_model(folder.path());
    const ModelConfig c = model_config(files);
    uint32_t moe_layers = 0;
    for (uint32_t i = 0; i < c.n_layers; ++i) moe_layers += c.is_moe(i);
    const TensorView* gate = files.checkpoint.find("model.layers.1.mlp.experts.0.gate_proj.weight");
    REQUIRE(gate);
    const uint32_t up = row_bytes(format_of(*gate), c.dim), down = row_bytes(format_of(*gate), c.expert_dim);
    CHECK(read(apart, gpu::Placement::host) ==
          uint64_t{moe_layers} * c.n_active_experts * (2ull * c.expert_dim * up + uint64_t{c.dim} * down));
}
