// A Vulkan device as this engine uses it: memory by address, kernels by name, recorded lists of dispatches
// that are replayed. No Vulkan type leaves engine/gpu. What a device can do is decided once, by probe(), into
// Caps; each quirk is logged with its reason, and nothing else asks who made the device.
#pragma once

#include "base/error.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::gpu {

// A shape that a subgroup's cooperative matrices may have: r (m, n) += a (m, k) b (k, n). Only types that
// kernels here are made for.
struct MatrixShape {
    uint32_t m = 0, n = 0, k = 0;
    std::string types; // "f16_f32": of a and b, then of the sum
};

// What the kernels and the engine may rely on.
struct Caps {
    uint32_t subgroup_size =
        4;                    // of every kernel where the device can fix it, else the smallest one it may use
    uint32_t k_lanes = 4;     // lanes that share a dot product; see shaders/dot.glsl
    uint32_t registers = 256; // 32 bits each, of an invocation, that kernels may use without spills
    uint32_t shared_bytes = 16384; // shared memory of a workgroup
    // Ranges that attention over the cache is cut into: enough to fill a GPU, and to keep loops short.
    uint32_t attention_parts = 16;
    // Of all loops of an invocation together. What goes round more often is cut off, without a word. 0 where
    // each access is a loop (GPU-assisted validation on llvmpipe).
    uint32_t iterations = UINT32_MAX;
    bool cpu = false;              // a software driver: its memory is the host's
    uint32_t cores = 0;            // that a software driver may use
    bool pinned_subgroups = false; // kernels run at exactly subgroup_size
    bool timestamps = false;
    bool float16 = false;    // 16-bit arithmetic
    bool int8_dot = false;   // products of four packed bytes in one instruction (or so the driver says)
    bool statistics = false; // compiled pipelines can be asked for registers, spills and the like
    std::vector<MatrixShape> matrices; // those whose kernels this program was built with
};

// device: fast for kernels. shared: written by the host at any time, read by kernels. readback: written by
// kernels, read by the host. host: read by kernels from the host's memory, which is larger and slower. The
// last three stay mapped.
enum class Placement : uint8_t { device, shared, readback, host };
constexpr size_t N_PLACEMENTS = 4;

// One of a device's memories, and what of it is still to be had. `available` is a driver's estimate
// (VK_EXT_memory_budget), or all of the heap where it gives none.
struct Heap {
    uint64_t bytes = 0, available = 0;
    bool device_local = false;
};

struct DeviceInfo {
    uint32_t index = 0;
    std::string name;                      // as the driver says it
    std::string driver;                    // driver and version
    std::string type;                      // "discrete", "integrated", "virtual", "cpu" or "other"
    uint32_t vendor_id = 0, device_id = 0; // PCI's
    std::string api_version;               // "1.3.230"
    uint64_t memory = 0;                   // bytes of its largest device-local heap
    std::string unusable;                  // why this engine cannot use it; empty when it can
    std::vector<std::string> quirks;       // what probe() decided, with reasons
    std::vector<Heap> heaps;
    std::array<uint32_t, N_PLACEMENTS> heap_of{}; // index into heaps of what a Placement gets
    uint64_t largest_allocation = 0;              // bytes; a range longer than this cannot be had
    std::string cache_key;                        // names device and driver in the names of cached files
    bool pretended = false;                       // FATHOM_DEVICE_MEMORY: heaps are not the driver's
    Caps caps;
};

// Where things are kept that only cost time to make again: $XDG_CACHE_HOME/fathom, or ~/.cache/fathom; empty
// when there is no home.
std::filesystem::path cache_folder();

// Every Vulkan device of this machine, in the loader's order. Throws Error when there is no Vulkan loader or
// driver.
std::vector<DeviceInfo> list_devices();

struct DeviceOptions {
    // "": the best usable device (discrete, integrated, virtual, cpu); a number: that index; "cpu": the first
    // software device; else a part of the name, any case.
    std::string select;
    bool staging = false; // upload through staging buffers even where memory is host-visible (tests)
    bool buffer_per_tensor = false; // one VkBuffer for each allocation (validation with bounds)
    bool breadcrumbs = false;       // mark each op, so that a lost device names it; also FATHOM_BREADCRUMBS=1
    uint32_t lose_at_submit = 0;    // test hook: this submit (from 1) reports a lost device
};

// The device has stopped answering, and with it everything made on it. A new Device may work.
struct DeviceLost : Error {
    using Error::Error;
};

// A range of memory by its address: a device address, or a pointer on the CPU executor.
struct View {
    uint64_t address = 0, bytes = 0;
};

// One launch of a kernel. `constants` are its specialisation constants 0, 1, 2, ...
struct Dispatch {
    std::string_view module; // name of a SPIR-V module
    std::string label;       // for debuggers, profiles and errors
    std::vector<uint32_t> constants;
    uint32_t grid[3] = {1, 1, 1}; // workgroups
    uint32_t pieces = 1;          // launches that the grid is cut into, along its longest side
    View indirect;                // where three words say a smaller grid, for one piece; no bytes: nowhere
    uint32_t params_bytes = 0;
    alignas(8) std::byte params[128]{}; // push constants: a struct of shaders/params.h
    bool barrier = false;               // wait for all earlier dispatches first
};

class Device;

// A recorded list of dispatches, to be submitted any number of times, also before the last is done.
class Recording {
  public:
    Recording(Recording&&) noexcept;
    Recording& operator=(Recording&&) noexcept;
    ~Recording();
    // Seconds of each dispatch in the last finished submit; empty unless recorded with timestamps.
    std::vector<double> seconds() const;

  private:
    friend class Device;
    struct Impl;
    explicit Recording(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

// A number that a driver tells about a compiled kernel.
struct Statistic {
    std::string name;
    double value = 0;
};

struct OwnerBytes {
    std::string owner;
    uint64_t bytes = 0;    // asked for
    uint64_t reserved = 0; // allocated from the device
};
uint64_t reserved_bytes(uint64_t bytes); // what a range of so many bytes takes

class Device {
  public:
    explicit Device(const DeviceOptions& options);
    ~Device();
    Device(const Device&) = delete;

    const DeviceInfo& info() const;

    // Memory for as long as the device lives, each range aligned to 256 bytes, accounted under `owner`.
    // Ranges are packed into blocks of at most 1 GiB. Throws Error saying how much was wanted, had and is
    // there.
    std::vector<View> allocate(std::string_view owner, Placement placement, std::span<const uint64_t> sizes,
                               bool zeroed = true);
    std::vector<OwnerBytes> memory() const;
    std::byte* mapped(View view) const; // not for Placement::device
    // Where the host may write what upload() would, in any order and from several threads; null where it
    // cannot, or only in one stream (memory that is not cached).
    std::byte* writable(View view) const;
    void upload(View to, uint64_t offset, std::span<const std::byte> bytes); // done, or queued until flush()
    void flush();                                                            // finishes queued uploads
    void download(View from, std::span<std::byte> out);
    void copy(View from, View to); // on the device; waits
    void zero(View view);
    // Bytes a second that the device reads from memory of this placement, by timing copies of 64 MiB to
    // device memory; 0 where there is no room for them.
    double read_rate(Placement from);

    // `name` says in errors and debuggers what the list is. With timestamps every dispatch waits for the one
    // before.
    Recording record(std::string_view name, std::span<const Dispatch> dispatches, bool timestamps = false);
    uint64_t submit(Recording& recording);   // returns a ticket
    bool is_finished(uint64_t ticket) const; // false too where only waiting would tell
    void wait(uint64_t ticket); // until that submit is finished; throws DeviceLost naming the last op
    // What the driver tells about a kernel as it compiled it: the subgroup size, then what it likes, in its
    // own words. Empty where Caps::statistics is not set. Nothing runs.
    std::vector<Statistic> statistics(const Dispatch& dispatch);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace fathom::gpu
