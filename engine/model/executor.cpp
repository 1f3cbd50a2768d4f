// The GPU executor (recordings by plan, replayed) and the CPU reference executor.
#include "model/executor.h"

#include "base/error.h"

#include <algorithm>
#include <map>
#include <random>

namespace fathom {

namespace {

class GpuExecutor final : public Executor {
  public:
    explicit GpuExecutor(const gpu::DeviceOptions& options) : device_(options) {}
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

    uint64_t start(const Plan& plan) override {
        auto recording = recordings_.find(&plan);
        if (recording == recordings_.end()) {
            recording = recordings_.emplace(&plan, device_.record(plan.name(), plan.dispatches())).first;
        }
        return device_.submit(recording->second);
    }
    void wait(uint64_t ticket) override { device_.wait(ticket); }

    void forget(const Plan& plan) override { recordings_.erase(&plan); }

  private:
    gpu::Device device_;
    std::map<const Plan*, gpu::Recording> recordings_;
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

    uint64_t start(const Plan& plan) override {
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
    uint64_t start(const Plan&) override { return 0; }

  private:
    gpu::Caps caps_;
    std::string name_ = "nothing";
    uint64_t next_ = 1ull << 32;
};

} // namespace

std::unique_ptr<Executor> make_planning_executor(const gpu::Caps& caps) {
    return std::make_unique<PlanningExecutor>(caps);
}
std::unique_ptr<Executor> make_gpu_executor(const gpu::DeviceOptions& options) {
    return std::make_unique<GpuExecutor>(options);
}
std::unique_ptr<Executor> make_reference_executor(Order order) {
    return std::make_unique<ReferenceExecutor>(order);
}

} // namespace fathom
