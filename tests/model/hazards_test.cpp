// The proofs that a plan's declarations and barriers are right, on the CPU executor. Validation layers cannot
// see hazards through addresses; so
// - every byte that an op does not declare is poisoned before it: its result must not change, nor the poison;
// - the ops between two barriers run in other orders: the bits must not change;
// - with any one barrier removed, that check fails; and a shadow of all memory, which shares no code with
//   Plan::finish, sees the conflict.
// Each check is itself shown to object to a declaration that lacks a read or a write.
#include "model/step.h"
#include "model/traffic.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>

using namespace fathom;
using namespace fathom::test;

namespace {

using Bytes = std::vector<std::byte>;
// q-LoRA, groups, one shared expert; neither, odd sizes, two; matrices that cannot be stacked; plain
// attention
const char* const CASES[] = {"v3_base", "v2_odd", "mixed v3_base", "v1_plain", "mixed v1_plain"};

// An executor whose whole memory is one piece, with gaps between the buffers.
class Laboratory final : public Executor {
  public:
    Laboratory() : memory_(static_cast<std::byte*>(::operator new(SIZE, std::align_val_t(256)))) {
        std::fill_n(memory_, SIZE, std::byte{0});
        caps_.attention_parts = 3;
    }
    ~Laboratory() override { ::operator delete(memory_, std::align_val_t(256)); }
    Laboratory(const Laboratory&) = delete;

    std::span<std::byte> everything() const { return {memory_, used_}; }
    size_t offset(uint64_t address) const { return address - reinterpret_cast<uint64_t>(memory_); }
    void restore(const Bytes& snapshot) { std::copy(snapshot.begin(), snapshot.end(), memory_); }
    Bytes snapshot() const { return {memory_, memory_ + used_}; }

    const gpu::Caps& caps() const override { return caps_; }
    const std::string& device_name() const override { return name_; }
    std::vector<View> allocate(std::string_view, gpu::Placement, std::span<const uint64_t> sizes,
                               bool) override {
        std::vector<View> views;
        for (const uint64_t bytes : sizes) {
            REQUIRE(used_ + bytes + 512 <= SIZE);
            views.push_back({reinterpret_cast<uint64_t>(memory_) + used_, bytes});
            used_ += round_up(bytes + 256, 256); // a gap after each
        }
        return views;
    }
    std::vector<gpu::OwnerBytes> memory() const override { return {}; }
    std::byte* mapped(View view) const override { return memory_ + offset(view.address); }
    void upload(View to, uint64_t at, std::span<const std::byte> bytes) override {
        std::copy(bytes.begin(), bytes.end(), mapped(to) + at);
    }
    void flush() override {}
    void download(View from, std::span<std::byte> out) override {
        std::copy_n(mapped(from), out.size(), out.begin());
    }
    void copy(View from, View to) override { std::copy_n(mapped(from), from.bytes, mapped(to)); }
    void zero(View view) override { std::fill_n(mapped(view), view.bytes, std::byte{0}); }
    uint64_t start(const Plan& plan, bool) override {
        for (const Op& op : plan.ops()) op.reference(op.params);
        return 0;
    }

  private:
    static constexpr size_t SIZE = 32u << 20;
    std::byte* memory_;
    size_t used_ = 0;
    gpu::Caps caps_;
    std::string name_ = "laboratory";
};

// Marks each byte of the memory that one of `views` holds.
std::vector<bool> marked(const Laboratory& lab, const std::vector<View>& views) {
    std::vector<bool> marks(lab.everything().size());
    for (const View& view : views)
        std::fill_n(marks.begin() + static_cast<ptrdiff_t>(lab.offset(view.address)), view.bytes, true);
    return marks;
}

// Runs one op twice from the same memory: as it is, and with NaN in every byte that it does not declare to
// read. Says what is wrong, or nothing; leaves the memory as the plain run does.
std::string objection_to(Laboratory& lab, const Op& op) {
    const Bytes before = lab.snapshot();
    op.reference(op.params);
    const Bytes plain = lab.snapshot();
    const auto reads = marked(lab, op.reads), writes = marked(lab, op.writes);
    Bytes poisoned = before;
    for (size_t i = 0; i < poisoned.size(); ++i)
        if (!reads[i]) poisoned[i] = std::byte{0xFF};
    lab.restore(poisoned);
    op.reference(op.params);
    const auto got = lab.everything();
    std::string objection;
    for (size_t i = 0; i < got.size() && objection.empty(); ++i) {
        const bool untouched = got[i] == poisoned[i] && plain[i] == before[i];
        if (!writes[i] && !untouched) objection = fmt::format("writes byte {} that it does not declare", i);
        // What it declares to write, it may leave alone; but then in both runs.
        else if (writes[i] && !untouched && got[i] != plain[i])
            objection = fmt::format("its result at byte {} depends on what it does not declare to read", i);
    }
    lab.restore(plain);
    return objection;
}

// The same in a child: an op that follows poison as an address crashes, which is an objection too.
bool child_objects(Laboratory& lab, const Op& op) {
    const pid_t child = fork();
    if (child == 0) {
        for (const int crash : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE})
            std::signal(crash, SIG_DFL); // not the test program's
        if (!std::freopen("/dev/null", "w", stderr)) _exit(0);
        _exit(objection_to(lab, op).empty() ? 0 : 1);
    }
    REQUIRE(child > 0);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return status != 0;
}

// Runs the ops with the groups between barriers in reverse; `without` names an op whose barrier is ignored.
void run_reversed(const std::vector<Op>& ops, size_t without) {
    for (size_t first = 0; first < ops.size();) {
        size_t last = first + 1;
        while (last < ops.size() && (!ops[last].barrier || last == without)) ++last;
        for (size_t i = last; i-- > first;) ops[i].reference(ops[i].params);
        first = last;
    }
}

// The shadow: for each 4 bytes the group of the last op that wrote and of the last that read them. Returns
// the first op that touches what its own group wrote, or writes what its own group read; else the number of
// ops.
size_t first_conflict(const Laboratory& lab, const std::vector<Op>& ops, size_t without) {
    struct Last {
        uint32_t written = 0, read = 0;
    };
    std::vector<Last> shadow(lab.everything().size() / 4 + 1);
    uint32_t group = 1;
    const auto each_word = [&](const std::vector<View>& views, const auto& visit) {
        bool fine = true;
        for (const View& view : views)
            for (uint64_t byte = 0; byte < view.bytes; byte += 4)
                fine &= visit(shadow[(lab.offset(view.address) + byte) / 4]);
        return fine;
    };
    for (size_t i = 0; i < ops.size(); ++i) {
        if (ops[i].barrier && i != without) ++group;
        const bool fine = each_word(ops[i].reads, [&](const Last& last) { return last.written != group; }) &&
                          each_word(ops[i].writes, [&](const Last& last) {
                              return last.written != group && last.read != group;
                          });
        if (!fine) return i;
        each_word(ops[i].reads, [&](Last& last) { return last.read = group, true; });
        each_word(ops[i].writes, [&](Last& last) { return last.written = group, true; });
    }
    return ops.size();
}

// The references of grouped experts find a token's experts by themselves, where the kernels go through the
// lists that expert_sort made: what is lost between the two cannot show here, only in the shadow (and in the
// kernels' own tests). Nor can it where a chunk's past is read from the cache right after its own rows were
// written to others.
bool reads_lists(const Op& op) {
    return op.module.starts_with("moe_up") || op.module.starts_with("moe_down");
}
bool is_list(const std::vector<Op>& ops, View view) {
    return std::any_of(ops.begin(), ops.end(), [&](const Op& op) {
        return op.module == "expert_sort" &&
               std::any_of(op.writes.begin(), op.writes.end(),
                           [&](const View& list) { return list.address == view.address; });
    });
}
// Where the workgroups of a launch meet, which references have no use for.
template <class Params> uint64_t arrivals_in(const Op& op) {
    Params p;
    std::memcpy(&p, op.params, sizeof(p));
    return p.arrivals;
}
bool is_meeting_place(const Op& op, View view) {
    if (op.module.starts_with("router")) return view.address == arrivals_in<Router>(op);
    return op.module == "sample" && view.address == arrivals_in<Sample>(op);
}
bool shows(const std::vector<Op>& ops, size_t barrier) {
    const bool sorted = barrier > 0 && ops[barrier - 1].module == "expert_sort" && reads_lists(ops[barrier]);
    const size_t write = barrier - (barrier > 1 && ops[barrier - 1].module == "rotate_queries" ? 2 : 1);
    const bool past = barrier > 0 && ops[write].module.ends_with("_write") &&
                      ops[barrier].label.ends_with(".history.cache_read");
    return !sorted && !past && ops[barrier].module != "expert_sort";
}

size_t first_difference(const Bytes& a, std::span<const std::byte> b) {
    return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin());
}

} // namespace

TEST_CASE("hazards: ops read and write what they declare, and nothing else") {
    for (const char* name : CASES) {
        Laboratory lab;
        const auto model = model_of(name, lab);
        for (const Situation& situation : situations()) {
            const Plan& plan = model->plan(situation.kind);
            prepare(*model, lab, situation);
            for (const Op& op : plan.ops()) {
                const std::string objection = objection_to(lab, op);
                if (!objection.empty())
                    FAIL_CHECK(fmt::format("{}, {}: {} {}", name, situation.name, op.label, objection));
            }
        }
    }
}

// What rooflines divide by, and checks copy: no less than a result depends on, and no more than is there.
TEST_CASE("hazards: an op's traffic is what its result depends on") {
    for (const char* name : CASES) {
        Laboratory lab;
        const auto model = model_of(name, lab);
        for (const Situation& situation : situations()) {
            const Plan& plan = model->plan(situation.kind);
            prepare(*model, lab, situation);
            const auto read_words = [&](View view, std::span<uint32_t> words) {
                lab.download(view, std::as_writable_bytes(words));
            };
            for (const Op& op : plan.ops()) {
                const Traffic traffic = traffic_of(op, {situation.rows, read_words});
                INFO(std::string(name), ", ", std::string(situation.name), ": ", op.label);
                std::vector<View> written;
                for (const Traffic::Write& write : traffic.writes) written.push_back(write.view);
                const auto declared = marked(lab, op.reads), writes = marked(lab, op.writes);
                const auto reads_part = marked(lab, traffic.reads), writes_part = marked(lab, written);
                size_t strays = 0;
                for (size_t i = 0; i < declared.size(); ++i)
                    strays += (reads_part[i] && !declared[i]) + (writes_part[i] && !writes[i]);
                CHECK(strays == 0);
                CHECK(traffic.bytes() > 0);
                Op narrow = op;
                narrow.reads = traffic.reads;
                for (const View& view : written)
                    std::fill_n(lab.mapped(view), reads_part[lab.offset(view.address)] ? 0 : view.bytes,
                                std::byte{0xFF});
                const std::string objection = objection_to(lab, narrow); // leaves the op's result behind
                if (!objection.empty()) FAIL_CHECK(objection);
                for (const View& view : written)
                    for (uint64_t word = 0; word < view.bytes; word += 4)
                        if (std::all_of(lab.mapped(view) + word, lab.mapped(view) + word + 4,
                                        [](std::byte b) { return b == std::byte{0xFF}; }))
                            FAIL_CHECK(fmt::format("word {} of its writes is not written", word / 4));
            }
        }
    }
}

TEST_CASE("hazards: a read or a write that is not declared is seen") {
    Laboratory lab;
    const auto model = model_of("v3_base", lab);
    size_t removed = 0;
    for (const Situation& situation : situations()) {
        if (situation.kind.rows == 1) continue;
        const Plan& plan = model->plan(situation.kind);
        prepare(*model, lab, situation);
        const Bytes start = lab.snapshot();
        lab.run(plan); // so that every buffer holds something of which a difference can be seen
        const Bytes full = lab.snapshot();
        lab.restore(start);
        for (const Op& op : plan.ops()) {
            const bool layer_1 = op.label.starts_with("layers.1.") || !op.label.starts_with("layers.");
            for (size_t k = 0; layer_1 && k < op.reads.size() + op.writes.size(); ++k) {
                Op bad = op;
                auto& list = k < op.reads.size() ? bad.reads : bad.writes;
                const auto which = static_cast<ptrdiff_t>(k < op.reads.size() ? k : k - op.reads.size());
                const View view = list[static_cast<size_t>(which)];
                list.erase(list.begin() + which);
                if (is_meeting_place(op, view) || (reads_lists(op) && is_list(plan.ops(), view))) continue;
                ++removed;
                INFO(std::string(situation.name), ": ", op.label,
                     std::string(k < op.reads.size() ? " reads " : " writes "), which, ", ", view.bytes,
                     " bytes");
                CHECK(child_objects(lab, bad));
            }
            op.reference(op.params);
        }
        CHECK(first_difference(full, lab.everything()) == full.size()); // the same end as in one go
    }
    MESSAGE(removed << " declarations removed");
    CHECK(removed > 100);
}

TEST_CASE("hazards: the ops between two barriers run in any order with equal bits") {
    for (const char* name : CASES)
        for (const Situation& situation : situations()) {
            std::vector<std::pair<std::string, Bytes>> expected;
            for (const Order order : {Order::forward, Order::reversed, Order::shuffled}) {
                const auto executor = make_reference_executor(order);
                const auto model = model_of(name, *executor);
                prepare(*model, *executor, situation);
                executor->run(model->plan(situation.kind));
                const auto got = results(*model, *executor);
                if (order == Order::forward) expected = got;
                for (size_t i = 0; i < got.size(); ++i)
                    if (got[i].second != expected[i].second)
                        FAIL_CHECK(fmt::format("{}, {}, order {}: {}", name, situation.name, int(order),
                                               got[i].first));
            }
        }
}

TEST_CASE("hazards: no barrier can be missing, and each is needed") {
    for (const char* name : CASES) {
        Laboratory lab;
        const auto model = model_of(name, lab);
        const Bytes fresh =
            lab.snapshot(); // workspaces hold zeros: no result of an earlier run hides a wrong order
        for (const Situation& situation : situations()) {
            const auto& ops = model->plan(situation.kind).ops();
            lab.restore(fresh);
            prepare(*model, lab, situation);
            const Bytes start = lab.snapshot();
            run_reversed(ops, ops.size());
            const Bytes expected = lab.snapshot();
            CHECK(first_conflict(lab, ops, ops.size()) == ops.size());
            for (size_t i = 0; i < ops.size(); ++i) {
                if (!ops[i].barrier) continue;
                INFO(std::string(name), ", ", std::string(situation.name), ": the barrier before ",
                     ops[i].label);
                CHECK(first_conflict(lab, ops, i) < ops.size());
                if (!shows(ops, i)) continue;
                lab.restore(start);
                run_reversed(ops, i);
                CHECK(first_difference(expected, lab.everything()) < expected.size());
            }
        }
    }
}
