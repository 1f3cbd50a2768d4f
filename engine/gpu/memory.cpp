// Device memory: blocks found by address, exact accounting, uploads directly or through one staging block.
#include "base/error.h"
#include "base/numbers.h"
#include "gpu/vulkan_device.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fmt/format.h>

namespace fathom::gpu {

namespace {

constexpr uint64_t MAX_BLOCK = 1ull << 30, ALIGNMENT = 256, STAGING_BYTES = 32ull << 20;
constexpr uint64_t TAIL_BYTES = 64ull << 10; // behind a software device's block, see its quirk in probe.cpp

constexpr const char* PLACEMENT_NAMES[N_PLACEMENTS] = {"device", "shared", "readback", "host"};

struct Wish {
    vk::MemoryPropertyFlags with, without;
};

// Preference in order: device memory that the host can write directly saves the copy; shared memory should be
// near the device, since every kernel reads the step's state; readback should be cached, since the host reads
// it; host memory should not be the device's, of which there is too little.
std::vector<Wish> wishes_for(Placement placement, const DeviceInfo& info) {
    using Flag = vk::MemoryPropertyFlagBits;
    const vk::MemoryPropertyFlags host = Flag::eHostVisible | Flag::eHostCoherent, local = Flag::eDeviceLocal;
    switch (placement) {
    case Placement::device:
        if (info.caps.cpu || info.type == "integrated") return {{local | host, {}}, {local, {}}};
        return {{local, {}}};
    case Placement::shared:
        return {{local | host, {}}, {host, {}}};
    case Placement::readback:
        return {{host | Flag::eHostCached, {}}, {host, {}}};
    case Placement::host:
        return {{host, local}, {host, {}}};
    }
    return {};
}

} // namespace

uint64_t reserved_bytes(uint64_t bytes) { return round_up(std::max<uint64_t>(bytes, 4), ALIGNMENT); }

uint32_t memory_type(const vk::PhysicalDeviceMemoryProperties& memory, const DeviceInfo& info,
                     uint32_t allowed, Placement placement) {
    for (const auto& [with, without] : wishes_for(placement, info))
        for (uint32_t i = 0; i < memory.memoryTypeCount; ++i) {
            const vk::MemoryPropertyFlags flags = memory.memoryTypes[i].propertyFlags;
            if ((allowed >> i & 1) && (flags & with) == with && !(flags & without)) return i;
        }
    throw Error({.what = "this device has no memory type for our buffers",
                 .where = info.name,
                 .expected = PLACEMENT_NAMES[static_cast<size_t>(placement)],
                 .got = fmt::format("types allowed: {:#x}", allowed),
                 .fix = ""});
}

Block Device::Impl::create_block(uint64_t bytes, Placement placement) {
    using Usage = vk::BufferUsageFlagBits;
    Block block;
    block.bytes = bytes;
    block.buffer =
        device.createBuffer({{},
                             bytes,
                             Usage::eStorageBuffer | Usage::eShaderDeviceAddress | Usage::eIndirectBuffer |
                                 Usage::eTransferSrc | Usage::eTransferDst});
    const auto needs = block.buffer.getMemoryRequirements();
    const vk::MemoryAllocateFlagsInfo flags(vk::MemoryAllocateFlagBits::eDeviceAddress);
    const uint32_t type = memory_type(memory_properties, info, needs.memoryTypeBits, placement);
    const uint64_t tail = info.caps.cpu ? TAIL_BYTES : 0;
    block.memory = device.allocateMemory(vk::MemoryAllocateInfo(needs.size + tail, type, &flags));
    block.buffer.bindMemory(*block.memory, 0);
    block.address = device.getBufferAddress({*block.buffer});
    const auto flags_of_type = memory_properties.memoryTypes[type].propertyFlags;
    const bool visible = bool(flags_of_type & vk::MemoryPropertyFlagBits::eHostVisible) &&
                         bool(flags_of_type & vk::MemoryPropertyFlagBits::eHostCoherent);
    if (placement != Placement::device || (visible && !options.staging))
        block.mapped = static_cast<std::byte*>(block.memory.mapMemory(0, VK_WHOLE_SIZE));
    block.cached = bool(flags_of_type & vk::MemoryPropertyFlagBits::eHostCached);
    return block;
}

std::vector<View> Device::allocate(std::string_view owner, Placement placement,
                                   std::span<const uint64_t> sizes, bool zeroed) {
    Impl& d = *impl_;
    auto account =
        std::find_if(d.owners.begin(), d.owners.end(), [&](const auto& o) { return o.owner == owner; });
    if (account == d.owners.end()) account = d.owners.insert(d.owners.end(), {std::string(owner)});
    std::vector<View> views;
    for (size_t first = 0; first < sizes.size();) {
        uint64_t bytes = 0;
        size_t last = first; // the views of one block
        for (; last < sizes.size(); ++last) {
            const uint64_t next = reserved_bytes(sizes[last]);
            if (last > first && (bytes + next > MAX_BLOCK || d.options.buffer_per_tensor)) break;
            bytes += next;
        }
        const uint32_t heap = d.info.heap_of[static_cast<size_t>(placement)];
        Block block;
        try {
            if (d.info.pretended && bytes > d.info.heaps[heap].available - d.taken[heap])
                throw vk::OutOfDeviceMemoryError("FATHOM_DEVICE_MEMORY");
            block = d.create_block(bytes, placement);
        } catch (const vk::SystemError& error) {
            uint64_t total = 0;
            for (const auto& o : d.owners) total += o.reserved;
            throw Error({.what = "the device has not enough memory",
                         .where = d.info.name,
                         .expected = fmt::format("{:.1f} MiB more for {}", bytes / 1048576.0, owner),
                         .got = fmt::format(
                             "{} with {:.1f} MiB in use by this program ({:.1f} MiB in its largest heap)",
                             error.what(), total / 1048576.0, d.info.memory / 1048576.0),
                         .fix = "choose a smaller model, a shorter --context or another --device"});
        }
        account->reserved += bytes;
        d.taken[heap] += bytes;
        uint64_t offset = 0;
        for (; first < last; ++first) {
            views.push_back({block.address + offset, sizes[first]});
            account->bytes += sizes[first];
            offset += reserved_bytes(sizes[first]);
        }
        const View whole{block.address, bytes};
        d.blocks.emplace(block.address, std::move(block));
        if (zeroed) zero(whole);
    }
    return views;
}

std::vector<OwnerBytes> Device::memory() const { return impl_->owners; }

std::pair<const Block*, uint64_t> Device::Impl::locate(uint64_t address) const {
    auto it = blocks.upper_bound(address);
    check(it != blocks.begin(), "an address lies in an allocated block");
    --it;
    check(address - it->first < it->second.bytes, "an address lies in an allocated block");
    return {&it->second, address - it->first};
}

std::byte* Device::mapped(View view) const {
    const auto [block, offset] = impl_->locate(view.address);
    check(block->mapped, "mapped() is for memory that the host can see");
    return block->mapped + offset;
}

std::byte* Device::writable(View view) const {
    const auto [block, offset] = impl_->locate(view.address);
    return block->mapped && block->cached ? block->mapped + offset : nullptr;
}

void Device::Impl::run_copies() {
    copies.end();
    const uint64_t ticket = submit(*copies);
    wait(ticket);
    copies.reset();
    copies.begin(vk::CommandBufferBeginInfo(vk::CommandBufferUsageFlagBits::eOneTimeSubmit));
    staged = 0;
}

void Device::Impl::copy_now(const Block& from, uint64_t from_offset, const Block& to, uint64_t to_offset,
                            uint64_t bytes) {
    copies.copyBuffer(*from.buffer, *to.buffer, vk::BufferCopy(from_offset, to_offset, bytes));
    run_copies();
}

void Device::upload(View to, uint64_t offset, std::span<const std::byte> bytes) {
    check(offset <= to.bytes && bytes.size() <= to.bytes - offset, "an upload fits its range");
    const auto [block, base] = impl_->locate(to.address + offset);
    if (block->mapped) {
        std::memcpy(block->mapped + base, bytes.data(), bytes.size());
        return;
    }
    if (!impl_->staging.mapped) impl_->staging = impl_->create_block(STAGING_BYTES, Placement::readback);
    for (uint64_t done = 0; done < bytes.size();) {
        if (impl_->staged == STAGING_BYTES) impl_->run_copies();
        const uint64_t part = std::min(bytes.size() - done, STAGING_BYTES - impl_->staged);
        std::memcpy(impl_->staging.mapped + impl_->staged, bytes.data() + done, part);
        impl_->copies.copyBuffer(*impl_->staging.buffer, *block->buffer,
                                 vk::BufferCopy(impl_->staged, base + done, part));
        impl_->staged += part;
        done += part;
    }
}

void Device::flush() {
    if (impl_->staged != 0) impl_->run_copies();
}

void Device::download(View from, std::span<std::byte> out) {
    check(out.size() <= from.bytes, "a download fits its range");
    flush();
    const auto [block, base] = impl_->locate(from.address);
    if (block->mapped) {
        std::memcpy(out.data(), block->mapped + base, out.size());
        return;
    }
    if (!impl_->staging.mapped) impl_->staging = impl_->create_block(STAGING_BYTES, Placement::readback);
    for (uint64_t done = 0; done < out.size();) {
        const uint64_t part = std::min(out.size() - done, STAGING_BYTES);
        impl_->copy_now(*block, base + done, impl_->staging, 0, part);
        std::memcpy(out.data() + done, impl_->staging.mapped, part);
        done += part;
    }
}

void Device::copy(View from, View to) {
    check(from.bytes <= to.bytes, "a copy fits its range");
    flush();
    const auto [source, source_offset] = impl_->locate(from.address);
    const auto [target, target_offset] = impl_->locate(to.address);
    impl_->copy_now(*source, source_offset, *target, target_offset, from.bytes);
}

void Device::zero(View view) {
    flush();
    const auto [block, base] = impl_->locate(view.address);
    if (block->mapped) {
        std::memset(block->mapped + base, 0, view.bytes);
        return;
    }
    impl_->copies.fillBuffer(*block->buffer, base, round_up(view.bytes, 4), 0);
    impl_->run_copies();
}

double Device::read_rate(Placement from) {
    constexpr uint64_t bytes = 64ull << 20;
    constexpr int turns = 4; // the first one warms up
    Impl& d = *impl_;
    flush();
    double best = 0;
    try {
        const Block source = d.create_block(bytes, from), target = d.create_block(bytes, Placement::device);
        for (int turn = 0; turn < turns; ++turn) {
            const auto start = std::chrono::steady_clock::now();
            d.copy_now(source, 0, target, 0, bytes);
            const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
            if (turn != 0) best = std::max(best, double(bytes) / seconds.count());
        }
    } catch (const vk::OutOfDeviceMemoryError&) {
        return 0;
    } catch (const vk::OutOfHostMemoryError&) {
        return 0;
    }
    // Within one memory a copy reads and writes; kernels that only read may take all of that traffic.
    const auto heap = [&](Placement p) { return d.info.heap_of[static_cast<size_t>(p)]; };
    return heap(from) == heap(Placement::device) || d.info.caps.cpu ? 2 * best : best;
}

} // namespace fathom::gpu
