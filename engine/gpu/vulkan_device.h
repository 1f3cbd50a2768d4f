// The inside of engine/gpu: what its sources share. The only header that sees Vulkan.
#pragma once

#include "gpu/device.h"

#include <vulkan/vulkan_raii.hpp>

#include <map>
#include <optional>
#include <tuple>

namespace fathom::gpu {

// The instance, with validation when FATHOM_VALIDATION is set: messages go to stderr and are counted, and a
// process that saw one ends with a failure. "gpu" asks for GPU-assisted validation, under which one waits by
// waitIdle. A process has one, made when first wanted: NVIDIA's driver can be loaded about a dozen times in a
// process and no more (580.159: vkCreateInstance then finds no driver), and the loader unloads it with the
// last instance.
struct Instance {
    static const Instance& shared(); // throws Error when there is no loader or no driver
    Instance();
    ~Instance();
    Instance(const Instance&) = delete;
    vk::raii::Context context;
    vk::raii::Instance instance = nullptr;
    vk::raii::DebugUtilsMessengerEXT messenger = nullptr;
    bool validation = false, gpu_assisted = false;
};

// Decides what a physical device can do: the one place that knows vendors, drivers and versions.
DeviceInfo probe(const vk::raii::PhysicalDevice& physical, uint32_t index);
// The memory type that a placement gets of those whose bits are in `allowed`. Throws Error when there is
// none.
uint32_t memory_type(const vk::PhysicalDeviceMemoryProperties& memory, const DeviceInfo& info,
                     uint32_t allowed, Placement placement);
// Fills in heaps, heap_of and largest_allocation.
void probe_memory(const vk::raii::PhysicalDevice& physical, DeviceInfo& info);

// One VkBuffer with its memory.
struct Block {
    vk::raii::DeviceMemory memory = nullptr;
    vk::raii::Buffer buffer = nullptr;
    uint64_t address = 0, bytes = 0;
    std::byte* mapped = nullptr;
    bool cached = false; // of mapped memory: by the host
};

struct Pipeline {
    vk::raii::PipelineLayout layout = nullptr;
    vk::raii::Pipeline pipeline = nullptr;
};

// Compute pipelines by module and constants, and their cache on disk.
class Pipelines {
  public:
    Pipelines(const vk::raii::Device& device, const vk::PhysicalDeviceProperties& properties,
              const DeviceInfo& info);
    ~Pipelines();
    const Pipeline& get(const Dispatch& dispatch);
    void save(); // writes the cache if pipelines were added
    std::vector<Statistic> statistics(const Dispatch& dispatch);

  private:
    Pipeline create(const Dispatch& dispatch, vk::PipelineCreateFlags flags = {});
    const vk::raii::Device& device_;
    Caps caps_;
    std::string cache_path_;
    vk::raii::PipelineCache cache_ = nullptr;
    std::map<std::tuple<std::string_view, std::vector<uint32_t>, bool>, Pipeline> pipelines_;
    bool changed_ = false;
};

struct Recording::Impl {
    explicit Impl(const Impl*& last) : running(last) {}
    ~Impl() {
        if (running == this) running = nullptr;
    }
    Impl(const Impl&) = delete;
    const Impl*& running; // Device::Impl::running
    std::string name;
    std::vector<std::string> labels;
    vk::raii::CommandBuffer commands = nullptr;
    vk::raii::QueryPool queries = nullptr;
    double seconds_per_tick = 0;
};

struct Device::Impl {
    explicit Impl(const DeviceOptions& options);
    ~Impl();

    DeviceOptions options;
    const Instance& instance = Instance::shared();
    DeviceInfo info;
    vk::raii::PhysicalDevice physical = nullptr;
    vk::PhysicalDeviceProperties properties;
    vk::PhysicalDeviceMemoryProperties memory_properties;
    uint32_t queue_family = 0;
    vk::raii::Device device = nullptr;
    vk::raii::Queue queue = nullptr;
    vk::raii::CommandPool pool = nullptr;
    vk::raii::Semaphore timeline = nullptr;
    uint64_t submitted = 0;
    std::optional<Pipelines> pipelines;

    std::map<uint64_t, Block> blocks; // by address
    std::vector<OwnerBytes> owners;
    std::vector<uint64_t> taken; // bytes reserved of each heap
    Block staging;
    vk::raii::CommandBuffer copies = nullptr;
    uint64_t staged = 0;                      // bytes of the staging block that wait to be copied
    Block breadcrumb;                         // one word: the dispatch that started last
    const Recording::Impl* running = nullptr; // submitted last; null when that one is gone

    void create_device();
    Block create_block(uint64_t bytes, Placement placement);
    std::pair<const Block*, uint64_t> locate(uint64_t address) const; // block and offset in it
    void copy_now(const Block& from, uint64_t from_offset, const Block& to, uint64_t to_offset,
                  uint64_t bytes);
    void run_copies();
    uint64_t submit(vk::CommandBuffer commands);
    void wait(uint64_t ticket);
    [[noreturn]] void lost(const char* during);
};

} // namespace fathom::gpu
