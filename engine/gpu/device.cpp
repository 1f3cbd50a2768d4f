// The device: selection, creation, recording, submitting and waiting, and what is said when it is lost.
#include "base/error.h"
#include "base/log.h"
#include "base/numbers.h"
#include "gpu/vulkan_device.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace fathom::gpu {

namespace {

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
    return text;
}

int preference(const DeviceInfo& info) {
    return info.type == "discrete"     ? 0
           : info.type == "integrated" ? 1
           : info.type == "virtual"    ? 2
           : info.type == "cpu"        ? 4
                                       : 3;
}

// The device that `wish` names among `devices`; see DeviceOptions::select.
const DeviceInfo& choose(const std::vector<DeviceInfo>& devices, const std::string& wish) {
    std::string listing;
    for (const auto& d : devices)
        listing += fmt::format("{}{}: {}{}", listing.empty() ? "" : ", ", d.index, d.name,
                               d.unusable.empty() ? "" : " (unusable: " + d.unusable + ")");
    const auto refuse = [&](std::string what) {
        return Error({.what = std::move(what),
                      .where = wish.empty() ? "" : "--device " + printable(wish),
                      .expected = "an index, a part of a name, or cpu",
                      .got = listing.empty() ? "no Vulkan device at all" : listing,
                      .fix = "`fathom devices` lists what there is"});
    };
    uint32_t index = 0;
    const auto [end, error] = std::from_chars(wish.data(), wish.data() + wish.size(), index);
    const bool is_index = error == std::errc() && end == wish.data() + wish.size();
    const DeviceInfo* best = nullptr;
    for (const auto& d : devices) {
        const bool named =
            wish.empty() || (is_index        ? d.index == index
                             : wish == "cpu" ? d.caps.cpu || d.type == "cpu"
                                             : lower(d.name).find(lower(wish)) != std::string::npos);
        if (!named) continue;
        if (!d.unusable.empty()) {
            if (!wish.empty()) throw refuse("this device cannot be used: " + d.unusable);
            continue;
        }
        if (!best || preference(d) < preference(*best)) best = &d;
    }
    if (!best) throw refuse(wish.empty() ? "no usable Vulkan device" : "no such device");
    return *best;
}

} // namespace

Device::Impl::Impl(const DeviceOptions& wanted) : options(wanted) {
    options.breadcrumbs |= std::getenv("FATHOM_BREADCRUMBS") != nullptr;
    options.buffer_per_tensor |= instance.gpu_assisted;
    const vk::raii::PhysicalDevices physicals(instance.instance);
    std::vector<DeviceInfo> devices;
    for (const auto& candidate : physicals)
        devices.push_back(probe(candidate, static_cast<uint32_t>(devices.size())));
    info = choose(devices, options.select);
    physical = physicals[info.index];
    properties = physical.getProperties();
    memory_properties = physical.getMemoryProperties();
    log::detail("device {}: {} ({}), {}, Vulkan {}", info.index, info.name, info.type, info.driver,
                info.api_version);
    for (const auto& quirk : info.quirks) log::detail("quirk: {}", quirk);
    taken.resize(info.heaps.size());
    create_device();
    pipelines.emplace(device, properties, info);
    if (options.breadcrumbs) breadcrumb = create_block(256, Placement::readback);
}

void Device::Impl::create_device() {
    const auto families = physical.getQueueFamilyProperties();
    queue_family = static_cast<uint32_t>(families.size());
    for (uint32_t i = 0; i < families.size();
         ++i) { // a compute-only family, where there is one, is not behind graphics
        if (!(families[i].queueFlags & vk::QueueFlagBits::eCompute)) continue;
        if (queue_family == families.size() || !(families[i].queueFlags & vk::QueueFlagBits::eGraphics))
            queue_family = i;
    }
    if (families[queue_family].timestampValidBits == 0) info.caps.timestamps = false;
    const float priority = 1;
    const vk::DeviceQueueCreateInfo queue_info({}, queue_family, 1, &priority);
    const auto supported =
        physical.getFeatures2<vk::PhysicalDeviceFeatures2, vk::PhysicalDeviceVulkan13Features>();
    vk::PhysicalDeviceVulkan13Features features13;
    features13.synchronization2 = true;
    features13.subgroupSizeControl = info.caps.pinned_subgroups;
    features13.maintenance4 = supported.get<vk::PhysicalDeviceVulkan13Features>().maintenance4;
    features13.shaderIntegerDotProduct = info.caps.int8_dot;
    vk::PhysicalDeviceVulkan12Features features12;
    features12.bufferDeviceAddress = true;
    features12.timelineSemaphore = true;
    features12.shaderFloat16 = info.caps.float16;
    features12.shaderInt8 =
        std::any_of(info.caps.matrices.begin(), info.caps.matrices.end(),
                    [](const MatrixShape& shape) { return shape.types.starts_with("s8"); });
    features12.vulkanMemoryModel = features12.vulkanMemoryModelDeviceScope = !info.caps.matrices.empty();
    features12.pNext = &features13;
    std::vector<const char*> extensions;
    vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable(true);
    if (info.caps.statistics) {
        extensions.push_back(VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME);
        executable.pNext = std::exchange(features13.pNext, &executable);
    }
#ifdef VK_KHR_cooperative_matrix
    vk::PhysicalDeviceCooperativeMatrixFeaturesKHR matrices(true);
    if (!info.caps.matrices.empty()) {
        extensions.push_back(VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
        matrices.pNext = std::exchange(features13.pNext, &matrices);
    }
#endif
    vk::PhysicalDeviceFeatures features;
    if (instance.gpu_assisted) { // what the layer's instrumentation needs
        const auto& all = supported.get<vk::PhysicalDeviceFeatures2>().features;
        features.fragmentStoresAndAtomics = all.fragmentStoresAndAtomics;
        features.vertexPipelineStoresAndAtomics = all.vertexPipelineStoresAndAtomics;
        features.shaderInt64 = all.shaderInt64;
    }
    vk::DeviceCreateInfo create({}, queue_info, {}, extensions, &features);
    create.pNext = &features12;
    device = vk::raii::Device(physical, create);
    queue = device.getQueue(queue_family, 0);
    pool = device.createCommandPool({vk::CommandPoolCreateFlagBits::eResetCommandBuffer, queue_family});
    copies = std::move(device.allocateCommandBuffers({*pool, vk::CommandBufferLevel::ePrimary, 1}).front());
    copies.begin(vk::CommandBufferBeginInfo(vk::CommandBufferUsageFlagBits::eOneTimeSubmit));
    const vk::SemaphoreTypeCreateInfo type(vk::SemaphoreType::eTimeline, 0);
    timeline = device.createSemaphore({{}, &type});
}

Device::Impl::~Impl() {
    if (!*device) return;
    try {
        device.waitIdle();
        pipelines->save();
    } catch (const std::exception& error) {
        log::detail("while closing the device: {}", error.what());
    }
}

uint64_t Device::Impl::submit(vk::CommandBuffer commands) try {
    const vk::CommandBufferSubmitInfo buffer(commands);
    const vk::SemaphoreSubmitInfo signal(*timeline, submitted + 1, vk::PipelineStageFlagBits2::eAllCommands);
    queue.submit2(vk::SubmitInfo2({}, {}, buffer, signal));
    ++submitted;
    if (options.lose_at_submit != 0 &&
        submitted >= options.lose_at_submit) { // the breadcrumbs of this list are there
        device.waitIdle();
        throw vk::DeviceLostError("test hook");
    }
    return submitted;
} catch (const vk::DeviceLostError&) {
    lost("submitting");
}

void Device::Impl::wait(uint64_t ticket) try {
    if (instance.gpu_assisted) { // timeline waits stall under the layer's instrumentation
        device.waitIdle();
        return;
    }
    const vk::SemaphoreWaitInfo until({}, *timeline, ticket);
    while (device.waitSemaphores(until, 1'000'000'000) == vk::Result::eTimeout) {
    }
} catch (const vk::DeviceLostError&) {
    lost("waiting");
}

void Device::Impl::lost(const char* during) {
    std::string op = "not known (run with FATHOM_BREADCRUMBS=1 to learn it)";
    if (breadcrumb.mapped) {
        uint32_t index = 0;
        std::memcpy(&index, breadcrumb.mapped, 4);
        op = running && index < running->labels.size() ? running->labels[index] : "none had started";
    }
    throw DeviceLost({.what = "the GPU was lost while " + std::string(during),
                      .where = fmt::format("{} ({})", info.name, info.driver),
                      .got = fmt::format("last list: {}; last op: {}", running ? running->name : "none", op),
                      .fix = "start again; if it happens again, report it with `fathom devices`"});
}

Recording::Recording(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Recording::Recording(Recording&&) noexcept = default;
Recording& Recording::operator=(Recording&&) noexcept = default;
Recording::~Recording() = default;

std::vector<double> Recording::seconds() const {
    if (!*impl_->queries) return {};
    const auto count = static_cast<uint32_t>(impl_->labels.size() + 1);
    const auto [result, ticks] = impl_->queries.getResults<uint64_t>(
        0, count, 8 * count, 8, vk::QueryResultFlagBits::e64 | vk::QueryResultFlagBits::eWait);
    check(result == vk::Result::eSuccess, "timestamps of a finished submit are available");
    std::vector<double> seconds;
    for (uint32_t i = 1; i < count; ++i)
        seconds.push_back((ticks[i] - ticks[i - 1]) * impl_->seconds_per_tick);
    return seconds;
}

Device::Device(const DeviceOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Device::~Device() = default;
const DeviceInfo& Device::info() const { return impl_->info; }

namespace {
void dispatch(const vk::raii::CommandBuffer& commands, const Dispatch& op) {
    if (op.pieces <= 1) return commands.dispatch(op.grid[0], op.grid[1], op.grid[2]);
    const auto side = std::max_element(op.grid, op.grid + 3) - op.grid;
    const uint32_t whole = op.grid[side], each = div_up(whole, op.pieces);
    uint32_t base[3] = {0, 0, 0}, size[3] = {op.grid[0], op.grid[1], op.grid[2]};
    for (; base[side] < whole; base[side] += each) {
        size[side] = std::min(each, whole - base[side]);
        commands.dispatchBase(base[0], base[1], base[2], size[0], size[1], size[2]);
    }
}
} // namespace

Recording Device::record(std::string_view name, std::span<const Dispatch> dispatches, bool timestamps) {
    Impl& d = *impl_;
    auto recording = std::make_unique<Recording::Impl>(d.running);
    recording->name = name;
    timestamps = timestamps && d.info.caps.timestamps;
    const auto queries = static_cast<uint32_t>(dispatches.size() + 1);
    if (timestamps) recording->queries = d.device.createQueryPool({{}, vk::QueryType::eTimestamp, queries});
    recording->seconds_per_tick = d.properties.limits.timestampPeriod * 1e-9;
    auto& commands = recording->commands;
    commands =
        std::move(d.device.allocateCommandBuffers({*d.pool, vk::CommandBufferLevel::ePrimary, 1}).front());
    using Stage = vk::PipelineStageFlagBits2;
    using Flag = vk::AccessFlagBits2;
    const auto barrier = [&](vk::PipelineStageFlags2 from, vk::AccessFlags2 wrote, vk::PipelineStageFlags2 to,
                             vk::AccessFlags2 reads) {
        const vk::MemoryBarrier2 memory(from, wrote, to, reads);
        commands.pipelineBarrier2(vk::DependencyInfo({}, memory));
    };
    commands.begin({vk::CommandBufferUsageFlagBits::eSimultaneousUse}); // may wait behind itself
    // The lists of a queue follow each other; what an earlier one wrote is read by this one.
    const vk::AccessFlags2 read_write = Flag::eShaderStorageRead | Flag::eShaderStorageWrite;
    barrier(Stage::eComputeShader | Stage::eCopy | Stage::eClear,
            Flag::eShaderStorageWrite | Flag::eTransferWrite, Stage::eComputeShader | Stage::eDrawIndirect,
            read_write | Flag::eIndirectCommandRead);
    if (timestamps) {
        commands.resetQueryPool(*recording->queries, 0, queries);
        commands.writeTimestamp2(Stage::eComputeShader, *recording->queries, 0);
    }
    for (uint32_t i = 0; i < dispatches.size(); ++i) {
        const Dispatch& op = dispatches[i];
        const Pipeline& pipeline = d.pipelines->get(op);
        if (op.barrier || timestamps)
            barrier(Stage::eComputeShader, Flag::eShaderStorageWrite,
                    Stage::eComputeShader | (op.indirect.bytes ? Stage::eDrawIndirect : Stage()),
                    read_write | (op.indirect.bytes ? Flag::eIndirectCommandRead : Flag()));
        if (d.options.breadcrumbs) {
            commands.fillBuffer(*d.breadcrumb.buffer, 0, 4, i);
            barrier(Stage::eClear, Flag::eTransferWrite, Stage::eComputeShader | Stage::eClear,
                    read_write | Flag::eTransferWrite);
        }
        commands.bindPipeline(vk::PipelineBindPoint::eCompute, *pipeline.pipeline);
        commands.pushConstants<std::byte>(*pipeline.layout, vk::ShaderStageFlagBits::eCompute, 0,
                                          vk::ArrayProxy<const std::byte>(op.params_bytes, op.params));
        if (op.indirect.bytes != 0 && op.pieces == 1) {
            const auto [block, offset] = d.locate(op.indirect.address);
            commands.dispatchIndirect(*block->buffer, offset);
        } else {
            dispatch(commands, op);
        }
        if (timestamps) commands.writeTimestamp2(Stage::eComputeShader, *recording->queries, i + 1);
        recording->labels.push_back(op.label);
    }
    barrier(Stage::eComputeShader, Flag::eShaderStorageWrite, Stage::eHost | Stage::eCopy,
            Flag::eHostRead | Flag::eTransferRead);
    commands.end();
    d.pipelines->save();
    return Recording(std::move(recording));
}

uint64_t Device::submit(Recording& recording) {
    flush();
    impl_->running = recording.impl_.get();
    if (impl_->breadcrumb.mapped) std::memset(impl_->breadcrumb.mapped, 0xFF, 4); // none has started
    return impl_->submit(*recording.impl_->commands);
}

bool Device::is_finished(uint64_t ticket) const try {
    if (impl_->instance.gpu_assisted) return false; // any look at the timeline may stall, as in wait()
    const vk::SemaphoreWaitInfo until({}, *impl_->timeline, ticket);
    return impl_->device.waitSemaphores(until, 0) == vk::Result::eSuccess;
} catch (const vk::DeviceLostError&) {
    return false; // wait() tells
}
void Device::wait(uint64_t ticket) { impl_->wait(ticket); }
std::vector<Statistic> Device::statistics(const Dispatch& dispatch) {
    return impl_->pipelines->statistics(dispatch);
}

} // namespace fathom::gpu
