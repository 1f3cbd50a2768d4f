// What memory a device has, and what of it is still to be had. Software drivers report a heap of their own
// choice (Mesa 22: 2 GiB) and allocate from the host's memory whatever it says; drivers of cards estimate
// with VK_EXT_memory_budget.
#include "base/error.h"
#include "gpu/vulkan_device.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

namespace fathom::gpu {

namespace {

// Bytes that a program may still take of the host's memory without swapping: the kernel's estimate where
// there is one, else all that is built in.
Heap host_memory() {
    const uint64_t page = static_cast<uint64_t>(std::max(sysconf(_SC_PAGESIZE), 1l));
    const uint64_t all = static_cast<uint64_t>(std::max(sysconf(_SC_PHYS_PAGES), 0l)) * page;
    Heap heap{all, all, false};
    std::ifstream file("/proc/meminfo");
    std::string name;
    uint64_t kib = 0;
    while (file >> name >> kib) {
        if (name == "MemAvailable:") heap.available = std::min(kib * 1024, all);
        file.ignore(80, '\n');
    }
    return heap;
}

bool has_extension(const vk::raii::PhysicalDevice& physical, const char* name) {
    const auto all = physical.enumerateDeviceExtensionProperties();
    return std::any_of(all.begin(), all.end(),
                       [&](const auto& e) { return std::strcmp(e.extensionName.data(), name) == 0; });
}

std::vector<Heap> driver_heaps(const vk::raii::PhysicalDevice& physical) {
    const bool budgeted = has_extension(physical, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    vk::PhysicalDeviceMemoryBudgetPropertiesEXT budget;
    vk::PhysicalDeviceMemoryProperties memory;
    if (budgeted) {
        const auto chain = physical.getMemoryProperties2<vk::PhysicalDeviceMemoryProperties2,
                                                         vk::PhysicalDeviceMemoryBudgetPropertiesEXT>();
        memory = chain.get<vk::PhysicalDeviceMemoryProperties2>().memoryProperties;
        budget = chain.get<vk::PhysicalDeviceMemoryBudgetPropertiesEXT>();
    } else {
        memory = physical.getMemoryProperties();
    }
    std::vector<Heap> heaps;
    for (uint32_t i = 0; i < memory.memoryHeapCount; ++i) {
        const vk::MemoryHeap& heap = memory.memoryHeaps[i];
        const uint64_t may = budgeted ? std::min(heap.size, budget.heapBudget[i]) : heap.size;
        const uint64_t has = budgeted ? budget.heapUsage[i] : 0;
        heaps.push_back(
            {heap.size, may > has ? may - has : 0, bool(heap.flags & vk::MemoryHeapFlagBits::eDeviceLocal)});
    }
    return heaps;
}

// For tests of what happens on a smaller card: bytes of the memory that the device shall pretend to have.
uint64_t pretended_memory() {
    const char* text = std::getenv("FATHOM_DEVICE_MEMORY");
    if (!text || !*text) return 0;
    uint64_t bytes = 0;
    const auto [end, error] = std::from_chars(text, text + std::strlen(text), bytes);
    if (error != std::errc() || *end != 0 || bytes == 0)
        throw Error({.what = "not a number of bytes",
                     .where = "FATHOM_DEVICE_MEMORY",
                     .expected = "how much memory the device shall pretend to have",
                     .got = printable(text),
                     .fix = "give bytes, such as 12000000000, or unset it"});
    return bytes;
}

} // namespace

void probe_memory(const vk::raii::PhysicalDevice& physical, DeviceInfo& info) {
    const vk::PhysicalDeviceMemoryProperties memory = physical.getMemoryProperties();
    const auto chain =
        physical.getProperties2<vk::PhysicalDeviceProperties2, vk::PhysicalDeviceMaintenance3Properties>();
    info.largest_allocation = chain.get<vk::PhysicalDeviceMaintenance3Properties>().maxMemoryAllocationSize;
    info.heaps = driver_heaps(physical);
    for (size_t i = 0; i < N_PLACEMENTS; ++i)
        info.heap_of[i] =
            memory.memoryTypes[memory_type(memory, info, ~0u, static_cast<Placement>(i))].heapIndex;

    const Heap host = host_memory();
    if (info.caps.cpu) {
        info.quirks.push_back(fmt::format(
            "software device: plans go by the {} MiB that the host has available, not by its heap of {} MiB",
            host.available >> 20, info.memory >> 20));
        for (Heap& heap : info.heaps) heap = {host.bytes, host.available, heap.device_local};
        info.memory = host.bytes;
    } else {
        for (Heap& heap : info.heaps)
            if (!heap.device_local) heap.available = std::min(heap.available, host.available);
    }
    if (const uint64_t pretended = pretended_memory()) {
        info.pretended = true;
        info.heaps = {{pretended, pretended, true}, host};
        info.heap_of = {0, 0, 1, 1};
        info.memory = pretended;
    }
}

} // namespace fathom::gpu
