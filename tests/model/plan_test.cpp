// The Plan: barriers from declarations, and the lists that the forward pass makes for a small model.
#include "model/ops/product.h"
#include "model/step.h"

using namespace fathom;
using namespace fathom::test;

namespace {

void nothing(const CopyRows&) {}

// A plan of ops that only declare; returns which have a barrier.
std::vector<bool> barriers(const std::vector<std::pair<std::vector<View>, std::vector<View>>>& declared) {
    Plan plan("test", {}, 1);
    for (const auto& [reads, writes] : declared)
        plan.add<nothing>("copy_rows", "op", CopyRows{}, {1, 1, 1}, {}, reads, writes);
    plan.finish();
    std::vector<bool> result;
    for (const Op& op : plan.ops()) result.push_back(op.barrier);
    return result;
}

size_t ops_of_layer(const Plan& plan, uint32_t layer) {
    const auto prefix = fmt::format("layers.{}.", layer);
    return static_cast<size_t>(std::count_if(plan.ops().begin(), plan.ops().end(),
                                             [&](const Op& op) { return op.label.starts_with(prefix); }));
}

bool within(View part, View whole) {
    return part.address >= whole.address && part.address < whole.address + whole.bytes;
}

} // namespace

TEST_CASE("plan: a barrier stands where declarations conflict with an op since the last one") {
    const View a{1000, 100}, b{1100, 100}, inside_a{1050, 4}, none{1000, 0};
    using Answer = std::vector<bool>;
    CHECK(barriers({{{}, {a}}, {{a}, {}}}) == Answer{false, true});                   // read after write
    CHECK(barriers({{{a}, {}}, {{}, {a}}}) == Answer{false, true});                   // write after read
    CHECK(barriers({{{}, {a}}, {{}, {a}}}) == Answer{false, true});                   // write after write
    CHECK(barriers({{{a}, {}}, {{a}, {}}}) == Answer{false, false});                  // two reads
    CHECK(barriers({{{}, {a}}, {{b}, {}}}) == Answer{false, false});                  // neighbours
    CHECK(barriers({{{}, {a}}, {{inside_a}, {}}}) == Answer{false, true});            // a part
    CHECK(barriers({{{}, {inside_a}}, {{a}, {}}}) == Answer{false, true});            // of which it is a part
    CHECK(barriers({{{}, {a}}, {{none}, {}}}) == Answer{false, false});               // no bytes
    CHECK(barriers({{{}, {a}}, {{}, {b}}, {{a}, {}}}) == Answer{false, false, true}); // not only the last op
    CHECK(barriers({{{}, {a}}, {{a}, {}}, {{a}, {}}}) ==
          Answer{false, true, false}); // one is enough for both
    CHECK(barriers({{{}, {a}}, {{a}, {b}}, {{b}, {}}}) == Answer{false, true, true});
    CHECK(barriers({}).empty());
}

TEST_CASE("plan: dispatches of a decode layer") {
    const auto executor = make_reference_executor();
    const auto model = model_of("v3_base", *executor);
    const Plan& plan = model->plan({StepKind::Mode::decode, 1});
    const size_t dense = ops_of_layer(plan, 0), moe = ops_of_layer(plan, 1);
    const auto waits =
        std::count_if(plan.ops().begin(), plan.ops().end(), [](const Op& op) { return op.barrier; });
    MESSAGE(
        fmt::format("decode: {} dispatches in a dense layer, {} in an MoE layer; {} and {} barriers in all",
                    dense, moe, plan.ops().size(), waits));
    CHECK(dense <= 9); // with a q-LoRA one more than without
    CHECK(moe <= 10);
    CHECK(ops_of_layer(plan, 2) == moe);
    CHECK(plan.ops().size() == dense + 2 * moe + 3); // embed, logits, sample
    const auto without = model_of("v2_greedy", *executor);
    CHECK(ops_of_layer(without->plan({StepKind::Mode::decode, 1}), 1) <= 9);
    const auto plain = model_of("v1_plain", *executor);
    CHECK(ops_of_layer(plain->plan({StepKind::Mode::decode, 1}), 1) <= 8);
}

TEST_CASE("plan: lanes of a dot product are a choice for what a GPU generates") {
    gpu::Caps caps;
    caps.subgroup_size = 32, caps.k_lanes = 8, caps.int8_dot = true, caps.shared_bytes = 32768;
    const auto text_of = [&](Product product) {
        std::string text;
        for (const Variant& variant : variants_of(product, caps)) text += variant.text() + " ";
        return text;
    };
    Product product{"matmul", Format::q8_0, 2048, 2048, false};
    CHECK(text_of(product) == "base base/16 base/32 int8 int8/16 int8/32 ");
    Tiers tiers;
    tiers.set(product, {Tier::int8, 32});
    Plan plan("test", caps, 1, false, tiers);
    const ProductLaunch usual = launch_for(Plan("test", caps, 1, false, Tiers(Tier::int8)), product,
                                           {.normed = true}),
                        wide = launch_for(plan, product, {.normed = true});
    CHECK((usual.constants[0] == 8 && wide.constants[0] == 32));
    CHECK(wide.blocks == 4 * usual.blocks);
    caps.subgroup_size = 64;
    CHECK(text_of(product) == "base base/16 base/32 base/64 int8 int8/16 int8/32 int8/64 ");
    product.prefill = true;
    CHECK(text_of(product) == "base int8 tiled ");
    product.prefill = false;
    caps.cpu = true;
    CHECK(text_of(product) == "base int8 ");
    CHECK(text_of(cached_product({16, 128, 64, 128, 512, 1.0f}, CACHE_F16, false)) == "base tiled ");
}

TEST_CASE("plan: a CPU's lanes take more rows where each core has work all the same") {
    gpu::Caps caps;
    caps.cpu = true, caps.k_lanes = 1, caps.registers = 512, caps.cores = 2;
    const auto rows_of = [&](uint32_t n_out, const Work& work) {
        const Product product{"moe_up", Format::q8_0, n_out, 1024, false};
        const ProductLaunch launch = launch_for(Plan("test", caps, 1, false, {}), product, work);
        CHECK(launch.blocks == div_up(n_out, launch.constants[1] * 64)); // invocations, a row each
        return launch.constants[1];
    };
    CHECK(rows_of(1024, {}) == 4);
    CHECK(rows_of(1023, {}) == 2);
    CHECK(rows_of(704, {.parts = 2}) == 2);
    CHECK(rows_of(704, {.parts = 2, .experts = 8}) == 4);
    caps.cores = 16;
    CHECK(rows_of(1024, {}) == 2);
    CHECK(rows_of(8192, {}) == 4);
    caps.cores = 1;
    CHECK(rows_of(128, {}) == 4);
}

TEST_CASE("plan: a plan is built once for each kind of step") {
    const auto executor = make_reference_executor();
    const auto model = model_of("v3_base", *executor);
    const StepKind kind{StepKind::Mode::prefill, 8, true, true};
    CHECK(&model->plan(kind) == &model->plan(kind));
    CHECK(&model->plan(kind) != &model->plan({StepKind::Mode::prefill, 8, true, false}));
    CHECK_THROWS_AS(model->plan({StepKind::Mode::decode, 3}), std::logic_error);   // no bucket
    CHECK_THROWS_AS(model->plan({StepKind::Mode::prefill, 32}), std::logic_error); // more than a chunk
}

TEST_CASE("plan: without trace nothing writes one") {
    const auto executor = make_reference_executor();
    ModelOptions options = small_options();
    const auto traced = model_of("v3_base", *executor, options);
    options.trace = false;
    const auto silent = model_of("v3_base", *executor, options);
    REQUIRE(traced->trace.bytes > 0);
    CHECK(silent->trace.bytes == 0);
    for (const Situation& situation : situations()) {
        size_t writers = 0, routers = 0;
        for (const Op& op : traced->plan(situation.kind).ops())
            for (const View& view : op.writes) writers += within(view, traced->trace);
        for (const Op& op : silent->plan(situation.kind).ops()) {
            if (!op.module.starts_with("router")) continue;
            Router p;
            std::memcpy(&p, op.params, sizeof(p));
            CHECK(p.trace_stride == 0);
            CHECK(op.writes.size() == 3); // experts, weights, and where its workgroups meet
            ++routers;
        }
        // the two MoE layers' routers; the norms before three layers, and after them where logits are made
        CHECK(writers == (situation.kind.mode == StepKind::Mode::prefill ? 5 : 6));
        CHECK(routers == 2);
        CHECK(silent->plan(situation.kind).ops().size() == traced->plan(situation.kind).ops().size());
    }
}

TEST_CASE("plan: a layer that is watched adds an op or two, and only while it is") {
    const auto executor = make_reference_executor();
    const auto model = model_of("v3_base", *executor, small_options());
    for (const Situation& situation : situations()) {
        INFO(std::string(situation.name));
        const size_t before = model->plan(situation.kind).ops().size();
        model->watch({.layers = {1}});
        const auto& ops = model->plan(situation.kind).ops();
        const auto maps = std::count_if(ops.begin(), ops.end(), [](const Op& op) {
            return op.module == "attention_map" && op.label == "layers.1.attention_map";
        });
        CHECK(maps == 1);
        CHECK(ops.size() == before + (situation.kind.expanded ? 2 : 1)); // absorbs for the map alone
        model->watch({});
        CHECK(model->plan(situation.kind).ops().size() == before);
    }
}

TEST_CASE("plan: sorted experts are dispatched by as many workgroups as there are tiles") {
    const auto executor = make_reference_executor();
    const auto model = model_of("v3_base", *executor);
    for (const Situation& situation : situations()) {
        INFO(std::string(situation.name));
        const Plan& plan = model->plan(situation.kind);
        const Op* sort = nullptr;
        size_t halves = 0;
        for (const Op& op : plan.ops()) {
            if (op.module == "expert_sort") sort = &op;
            const bool is_half = op.module.starts_with("moe_up") || op.module.starts_with("moe_down");
            if (!is_half || !moe_grouped(plan)) {
                CHECK(op.indirect.bytes == 0);
                continue;
            }
            ++halves;
            REQUIRE(sort != nullptr);
            ExpertSort p;
            std::memcpy(&p, sort->params, sizeof(p));
            const bool up = op.module.starts_with("moe_up");
            CHECK(op.indirect.address ==
                  p.items + (up ? offsetof(MoeGrids, up_blocks) : offsetof(MoeGrids, down_blocks)));
            CHECK(op.grid[0] == (up ? p.up_blocks : p.down_blocks));
            CHECK(op.grid[1] == p.max_items);
            CHECK(op.grid[2] == (up ? p.up_parts : p.down_parts));
        }
        CHECK(halves == (moe_grouped(plan) ? 2 * model->config.n_layers : 0));
    }
}

TEST_CASE("plan: both executors get the same list") {
    const auto gpu = gpu_executor(), cpu = make_reference_executor();
    for (const char* name : {"v3_base", "v2_odd"}) {
        const auto on_gpu = model_of(name, *gpu), on_cpu = model_of(name, *cpu);
        for (const Situation& situation : situations()) {
            const auto &a = on_gpu->plan(situation.kind).ops(), &b = on_cpu->plan(situation.kind).ops();
            INFO(std::string(name), ", ", std::string(situation.name));
            REQUIRE(a.size() == b.size());
            for (size_t i = 0; i < a.size(); ++i) {
                CHECK(a[i].label == b[i].label);
                CHECK(a[i].module == b[i].module);
                CHECK(a[i].barrier == b[i].barrier);
                CHECK(a[i].params_bytes == b[i].params_bytes);
                CHECK(a[i].reads.size() == b[i].reads.size());
                CHECK(a[i].writes.size() == b[i].writes.size());
            }
        }
    }
}
