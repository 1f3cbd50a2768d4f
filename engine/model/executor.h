// The two executors of a Plan, and the memory its ops work on. Both know memory by address: device addresses
// on the GPU, pointers on the CPU, where every op runs its reference in plain C++ (double sums): the oracle
// of the tests.
#pragma once

#include "model/plan.h"

#include <memory>
#include <span>

namespace fathom {

struct Pace;

// Where memory is taken from: an Executor, or for a plan something that only counts (memory_plan.cpp).
class Memory {
  public:
    virtual ~Memory() = default;
    // As gpu::Device has it.
    virtual std::vector<View> allocate(std::string_view owner, gpu::Placement placement,
                                       std::span<const uint64_t> sizes, bool zeroed = true) = 0;
    View allocate(std::string_view owner, gpu::Placement placement, uint64_t bytes) {
        return allocate(owner, placement, std::span(&bytes, 1)).front();
    }
};

class Executor : public Memory {
  public:
    virtual const gpu::Caps& caps() const = 0;
    virtual const std::string& device_name() const = 0;
    virtual gpu::Device* gpu() { return nullptr; } // where plans run; null: no device, memory without limit

    virtual std::vector<gpu::OwnerBytes> memory() const = 0;
    virtual std::byte* mapped(View view) const = 0;             // not for Placement::device
    virtual std::byte* writable(View) const { return nullptr; } // as gpu::Device has it
    virtual void upload(View to, uint64_t offset, std::span<const std::byte> bytes) = 0;
    virtual void flush() = 0;
    virtual void download(View from, std::span<std::byte> out) = 0;
    virtual void copy(View from, View to) = 0;
    virtual void zero(View view) = 0;

    // Starts a finished plan, behind all that was started before; wait() for its ticket to see it through.
    // The plan must stay where it is until it is forgotten or the executor is gone: what was made for it is
    // kept by its address. Timed: launch by launch with waits between, where the device can and the plan goes
    // whole; seconds() of that plan are then those of each op, once the ticket is waited for, else none.
    virtual uint64_t start(const Plan& plan, bool timed = false) = 0;
    virtual std::vector<double> seconds(const Plan&) const { return {}; }
    virtual void wait(uint64_t) {}
    void run(const Plan& plan) { wait(start(plan)); }
    virtual void forget(const Plan&) {}
    virtual const Pace* pace_of(const Plan&) const { return nullptr; } // null: it went whole
};

// What a prompt's step may take of the device at once, in seconds, so that no driver's watchdog takes it for
// hung and a desktop stays alive: its plan is cut into lists of some ops, and their grids into pieces, by the
// time that earlier steps took. No result depends on it. Steps that generate go whole as long as they are
// short.
struct PaceOptions {
    double longest_launch = 0.05, longest_list = 0.25;
    bool on_cpu = false; // software devices have no watchdog; they are only reported on
};
// How a plan was cut last: ops of a list, pieces of a grid; and the longest list, seconds.
struct Pace {
    uint32_t list_ops = 16, pieces = 4; // at first, when nothing is known
    double longest = 0;
};
std::unique_ptr<Executor> make_gpu_executor(const gpu::DeviceOptions& options, const PaceOptions& pace = {});

// The order in which the CPU executor runs the ops between two barriers: any must give the same bits.
enum class Order : uint8_t { forward, reversed, shuffled };
std::unique_ptr<Executor> make_reference_executor(Order order = Order::forward);

// Gives out addresses of nothing and runs nothing: for looking at plans without their memory.
std::unique_ptr<Executor> make_planning_executor(const gpu::Caps& caps);

} // namespace fathom
