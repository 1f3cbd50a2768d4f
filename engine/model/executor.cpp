// The GPU executor (recordings by plan, replayed) and the CPU reference executor.
#include "model/executor.h"

#include "base/error.h"
#include "base/log.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <deque>
#include <map>
#include <random>
#include <utility>

namespace fathom {

namespace {

class GpuExecutor final : public Executor {
  public:
    GpuExecutor(const gpu::DeviceOptions& options, const PaceOptions& pace) : device_(options), pace_(pace) {}
    const gpu::Caps& caps() const override { return device_.info().caps; }
    const std::string& device_name() const override { return device_.info().name; }
    gpu::Device* gpu() override { return &device_; }
    std::vector<View> allocate(std::string_view owner, gpu::Placement placement,
                               std::span<const uint64_t> sizes, bool zeroed) override {
        return device_.allocate(owner, placement, sizes, zeroed);
    }
    std::vector<gpu::OwnerBytes> memory() const override { return device_.memory(); }
    std::byte* mapped(View view) const override { return device_.mapped(view); }
    std::byte* writable(View view) const override { return device_.writable(view); }
    void upload(View to, uint64_t offset, std::span<const std::byte> bytes) override {
        device_.upload(to, offset, bytes);
    }
    void flush() override { device_.flush(); }
    void download(View from, std::span<std::byte> out) override { device_.download(from, out); }
    void copy(View from, View to) override { device_.copy(from, to); }
    void zero(View view) override { device_.zero(view); }

    uint64_t start(const Plan& plan, bool timed) override {
        const bool cut = pace_.on_cpu || !caps().cpu;
        if (cut && (plan.prefill() || lists_.contains(&plan))) return start_in_lists(plan);
        auto& recordings = timed ? timed_ : recordings_;
        auto recording = recordings.find(&plan);
        if (recording == recordings.end()) {
            recording =
                recordings.emplace(&plan, device_.record(plan.name(), plan.dispatches(), timed)).first;
        }
        const auto now = Clock::now();
        started_.push_back({device_.submit(recording->second), &plan, now});
        return started_.back().ticket;
    }

    // What went whole and took too long goes in lists from then on; on a software device it is told. A step
    // is timed from its start, or from the end of the one before it; not where it is found finished.
    void wait(uint64_t ticket) override {
        const bool finished = started_.empty() || device_.is_finished(ticket);
        device_.wait(ticket);
        const auto now = Clock::now();
        while (!started_.empty() && started_.front().ticket <= ticket) {
            const Started step = started_.front();
            started_.pop_front();
            const auto from = std::max(step.at, std::exchange(last_end_, now));
            if (!finished && step.ticket == ticket)
                note(*step.plan, std::chrono::duration<double>(now - from).count());
        }
    }

    std::vector<double> seconds(const Plan& plan) const override {
        const auto it = timed_.find(&plan);
        return it == timed_.end() || lists_.contains(&plan) ? std::vector<double>{} : it->second.seconds();
    }

    void forget(const Plan& plan) override {
        recordings_.erase(&plan);
        timed_.erase(&plan);
        lists_.erase(&plan);
        std::erase_if(started_, [&](const Started& step) { return step.plan == &plan; });
    }
    const Pace* pace_of(const Plan& plan) const override {
        const auto it = lists_.find(&plan);
        return it == lists_.end() ? nullptr : &it->second.pace;
    }

  private:
    using Clock = std::chrono::steady_clock;
    struct Started { // whole
        uint64_t ticket;
        const Plan* plan;
        Clock::time_point at;
    };
    void note(const Plan& plan, double seconds) {
        if (seconds < 2 * pace_.longest_list) return;
        if (!caps().cpu) lists_.try_emplace(&plan);
        if (seconds < 2 * reported_) return;
        reported_ = seconds;
        log::detail("{} took {:.1f} s at once{}", plan.name(), seconds,
                    caps().cpu ? ", as a software device may" : ": in lists from now on");
    }

    struct Lists {
        Pace pace;
        std::vector<gpu::Recording> recordings;
    };

    // One list is under way while the one before it is waited for: between two such moments lies the time
    // that a list takes.
    uint64_t start_in_lists(const Plan& plan) {
        Lists& lists = lists_[&plan];
        if (lists.recordings.empty()) record(plan, lists);
        uint64_t before = 0;
        double longest = 0;
        auto last = Clock::now();
        const auto lap = [&] {
            const auto now = Clock::now();
            longest =
                std::max(longest, std::chrono::duration<double>(now - std::exchange(last, now)).count());
        };
        for (gpu::Recording& recording : lists.recordings) {
            const uint64_t ticket = device_.submit(recording);
            if (before != 0) {
                device_.wait(before);
                lap();
            }
            before = ticket;
        }
        device_.wait(before);
        lap();
        lists.pace.longest = longest;
        adapt(plan, lists);
        return before;
    }

    void record(const Plan& plan, Lists& lists) {
        std::vector<gpu::Dispatch> all = plan.dispatches();
        for (gpu::Dispatch& dispatch : all) dispatch.pieces = lists.pace.pieces;
        for (size_t first = 0; first < all.size(); first += lists.pace.list_ops) {
            const size_t n = std::min<size_t>(lists.pace.list_ops, all.size() - first);
            lists.recordings.push_back(device_.record(plan.name(), std::span(all).subspan(first, n)));
        }
    }

    // As if one op took all of its list's time: rather too many pieces than one too long. Prompts get slower
    // as they get longer, hence the room before anything is made coarser again.
    void adapt(const Plan& plan, Lists& lists) {
        Pace wanted = lists.pace;
        const double longest = wanted.longest;
        const auto pieces = std::bit_ceil(static_cast<uint32_t>(
            std::clamp(std::ceil(longest / pace_.longest_launch), 1.0, double(MAX_PIECES))));
        if (pieces > wanted.pieces || 4 * pieces <= wanted.pieces) wanted.pieces = pieces;
        if (longest > pace_.longest_list) wanted.list_ops = std::max(1u, wanted.list_ops / 2);
        if (8 * longest < pace_.longest_list) wanted.list_ops = std::min(MAX_LIST_OPS, wanted.list_ops * 2);
        if (wanted.pieces == lists.pace.pieces && wanted.list_ops == lists.pace.list_ops) return;
        log::detail("{}: lists of {} ops in {} pieces (the longest took {:.0f} ms)", plan.name(),
                    wanted.list_ops, wanted.pieces, 1e3 * longest);
        lists = {wanted, {}};
    }

    static constexpr uint32_t MAX_PIECES = 256, MAX_LIST_OPS = 64;
    gpu::Device device_;
    PaceOptions pace_;
    std::deque<Started> started_; // and not waited for
    Clock::time_point last_end_;
    double reported_ = 0; // the longest that was told
    std::map<const Plan*, Lists> lists_;
    std::map<const Plan*, gpu::Recording> recordings_, timed_;
};

class ReferenceExecutor final : public Executor {
  public:
    explicit ReferenceExecutor(Order order) : order_(order) {}
    const gpu::Caps& caps() const override { return caps_; }
    const std::string& device_name() const override { return name_; }
    std::vector<View> allocate(std::string_view owner, gpu::Placement, std::span<const uint64_t> sizes,
                               bool) override {
        auto account =
            std::find_if(owners_.begin(), owners_.end(), [&](const auto& o) { return o.owner == owner; });
        if (account == owners_.end()) account = owners_.insert(owners_.end(), {std::string(owner)});
        std::vector<View> views;
        for (const uint64_t bytes : sizes) {
            blocks_.emplace_back(new (std::align_val_t(256))
                                     std::byte[bytes + 32]()); // rows are read in whole chunks
            views.push_back({reinterpret_cast<uint64_t>(blocks_.back().get()), bytes});
            account->bytes += bytes;
            account->reserved += bytes + 32;
        }
        return views;
    }
    std::vector<gpu::OwnerBytes> memory() const override { return owners_; }
    std::byte* mapped(View view) const override { return reinterpret_cast<std::byte*>(view.address); }
    std::byte* writable(View view) const override { return mapped(view); }
    void upload(View to, uint64_t offset, std::span<const std::byte> bytes) override {
        check(offset <= to.bytes && bytes.size() <= to.bytes - offset, "an upload fits its range");
        std::copy(bytes.begin(), bytes.end(), mapped(to) + offset);
    }
    void flush() override {}
    void download(View from, std::span<std::byte> out) override {
        std::copy_n(mapped(from), out.size(), out.begin());
    }
    void copy(View from, View to) override { std::copy_n(mapped(from), from.bytes, mapped(to)); }
    void zero(View view) override { std::fill_n(mapped(view), view.bytes, std::byte{0}); }

    uint64_t start(const Plan& plan, bool) override {
        const auto& ops = plan.ops();
        std::mt19937 random(1);
        for (size_t first = 0; first < ops.size();) {
            size_t last = first + 1;
            while (last < ops.size() && !ops[last].barrier) ++last;
            std::vector<const Op*> group;
            for (size_t i = first; i < last; ++i) group.push_back(&ops[i]);
            if (order_ == Order::reversed) std::reverse(group.begin(), group.end());
            if (order_ == Order::shuffled) std::shuffle(group.begin(), group.end(), random);
            for (const Op* op : group) op->reference(op->params);
            first = last;
        }
        return 0;
    }

  private:
    struct Free {
        void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t(256)); }
    };
    Order order_;
    gpu::Caps caps_;
    std::string name_ = "CPU reference";
    std::vector<std::unique_ptr<std::byte[], Free>> blocks_;
    std::vector<gpu::OwnerBytes> owners_;
};

class PlanningExecutor final : public Executor {
  public:
    explicit PlanningExecutor(const gpu::Caps& caps) : caps_(caps) {}
    const gpu::Caps& caps() const override { return caps_; }
    const std::string& device_name() const override { return name_; }
    std::vector<View> allocate(std::string_view, gpu::Placement, std::span<const uint64_t> sizes,
                               bool) override {
        std::vector<View> views;
        for (const uint64_t bytes : sizes) {
            views.push_back({next_, bytes});
            next_ += gpu::reserved_bytes(bytes);
        }
        return views;
    }
    std::vector<gpu::OwnerBytes> memory() const override { return {}; }
    std::byte* mapped(View) const override {
        check(false, "a plan without memory is not run");
        return nullptr;
    }
    void upload(View, uint64_t, std::span<const std::byte>) override {}
    void flush() override {}
    void download(View view, std::span<std::byte>) override { mapped(view); }
    void copy(View, View) override {}
    void zero(View) override {}
    uint64_t start(const Plan&, bool) override { return 0; }

  private:
    gpu::Caps caps_;
    std::string name_ = "nothing";
    uint64_t next_ = 1ull << 32;
};

} // namespace

std::unique_ptr<Executor> make_planning_executor(const gpu::Caps& caps) {
    return std::make_unique<PlanningExecutor>(caps);
}
std::unique_ptr<Executor> make_gpu_executor(const gpu::DeviceOptions& options, const PaceOptions& pace) {
    return std::make_unique<GpuExecutor>(options, pace);
}
std::unique_ptr<Executor> make_reference_executor(Order order) {
    return std::make_unique<ReferenceExecutor>(order);
}

} // namespace fathom
