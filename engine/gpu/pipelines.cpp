// Compute pipelines by module and specialisation constants, made when first recorded, and the cache of their
// machine code on disk: one file for each device and driver, so that a driver update starts afresh.
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "gpu/modules.h"
#include "gpu/vulkan_device.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace fathom::gpu {

namespace {

// What stands behind the driver's data in the file: a driver checks whose data it gets, not whether they are
// whole.
uint64_t checksum(std::span<const char> bytes) { // FNV-1a
    uint64_t hash = 0xCBF29CE484222325;
    for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001B3;
    return hash;
}

// The stored cache if its header names this very device and driver (Vulkan 1.3 specification, "Pipeline Cache
// Header") and its checksum is right.
std::string load_cache(const std::string& path, const vk::PhysicalDeviceProperties& properties) try {
    std::error_code error;
    const auto size = path.empty() ? 0 : std::filesystem::file_size(path, error);
    if (path.empty() || error || size < sizeof(VkPipelineCacheHeaderVersionOne) + 8) return "";
    std::string bytes = read_file(path, 256u << 20);
    uint64_t expected = 0;
    std::copy_n(bytes.end() - 8, 8, reinterpret_cast<char*>(&expected));
    bytes.resize(bytes.size() - 8);
    VkPipelineCacheHeaderVersionOne header;
    std::copy_n(bytes.data(), sizeof(header), reinterpret_cast<char*>(&header));
    const bool ours = header.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
                      header.vendorID == properties.vendorID && header.deviceID == properties.deviceID &&
                      std::equal(std::begin(header.pipelineCacheUUID), std::end(header.pipelineCacheUUID),
                                 properties.pipelineCacheUUID.begin());
    if (ours && checksum(bytes) == expected) return bytes;
    log::detail("pipeline cache ignored: it is damaged or another driver's");
    return "";
} catch (const Error& error) { // one that cannot be read costs time at this start, no more
    log::detail("pipeline cache ignored: {}", error.what());
    return "";
}

} // namespace

std::filesystem::path cache_folder() {
    if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache)
        return std::filesystem::path(cache) / "fathom";
    const char* home = std::getenv("HOME");
    return home && *home ? std::filesystem::path(home) / ".cache" / "fathom" : std::filesystem::path();
}

Pipelines::Pipelines(const vk::raii::Device& device, const vk::PhysicalDeviceProperties& properties,
                     const DeviceInfo& info)
    : device_(device), caps_(info.caps) {
    if (const auto folder = cache_folder(); !folder.empty())
        cache_path_ = folder / fmt::format("pipelines-{}.bin", info.cache_key);
    const std::string stored = load_cache(cache_path_, properties);
    cache_ = device_.createPipelineCache({{}, stored.size(), stored.data()});
}

Pipelines::~Pipelines() = default;

const Pipeline& Pipelines::get(const Dispatch& dispatch) {
    const bool cut = dispatch.pieces > 1;
    const auto key = std::tuple(dispatch.module, dispatch.constants, cut);
    if (const auto it = pipelines_.find(key); it != pipelines_.end()) return it->second;
    changed_ = true;
    const auto flags = cut ? vk::PipelineCreateFlagBits::eDispatchBase : vk::PipelineCreateFlags();
    return pipelines_.emplace(key, create(dispatch, flags)).first->second;
}

Pipeline Pipelines::create(const Dispatch& dispatch, vk::PipelineCreateFlags flags) {
    const auto all = modules();
    const auto module =
        std::find_if(all.begin(), all.end(), [&](const auto& m) { return m.name == dispatch.module; });
    if (module == all.end())
        throw Error({.what = "this program was built without a kernel",
                     .where = std::string(dispatch.module),
                     .got = fmt::format("left out by the build: {}", modules_left_out()),
                     .fix = "build with a newer glslang"});
    const vk::raii::ShaderModule shader =
        device_.createShaderModule({{}, module->words.size_bytes(), module->words.data()});
    std::vector<vk::SpecializationMapEntry> entries;
    for (uint32_t i = 0; i < dispatch.constants.size(); ++i) entries.emplace_back(i, 4 * i, 4);
    const vk::SpecializationInfo constants(static_cast<uint32_t>(entries.size()), entries.data(),
                                           4 * dispatch.constants.size(), dispatch.constants.data());
    const vk::PushConstantRange range(vk::ShaderStageFlagBits::eCompute, 0, dispatch.params_bytes);
    Pipeline pipeline;
    pipeline.layout = device_.createPipelineLayout({{}, {}, range});
    vk::PipelineShaderStageCreateInfo stage({}, vk::ShaderStageFlagBits::eCompute, *shader, "main",
                                            &constants);
    const vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo required(caps_.subgroup_size);
    if (caps_.pinned_subgroups) stage.pNext = &required;
    const vk::ComputePipelineCreateInfo info(flags, stage, *pipeline.layout);
    // What is asked for statistics is compiled afresh: they do not come out of a cache on every driver.
    pipeline.pipeline = flags & vk::PipelineCreateFlagBits::eCaptureStatisticsKHR
                            ? device_.createComputePipeline(nullptr, info)
                            : device_.createComputePipeline(cache_, info);
    return pipeline;
}

std::vector<Statistic> Pipelines::statistics(const Dispatch& dispatch) {
    if (!caps_.statistics) return {};
    const Pipeline pipeline = create(dispatch, vk::PipelineCreateFlagBits::eCaptureStatisticsKHR);
    const auto parts = device_.getPipelineExecutablePropertiesKHR({*pipeline.pipeline});
    if (parts.empty()) return {};
    const auto widest = std::max_element(parts.begin(), parts.end(), [](const auto& a, const auto& b) {
        return a.subgroupSize < b.subgroupSize; // Intel compiles several where the size is not fixed
    });
    std::vector<Statistic> found{{"Subgroup size", double(widest->subgroupSize)}};
    const auto index = static_cast<uint32_t>(widest - parts.begin());
    for (const auto& s : device_.getPipelineExecutableStatisticsKHR({*pipeline.pipeline, index})) {
        using Kind = vk::PipelineExecutableStatisticFormatKHR;
        const double value = s.format == Kind::eBool32   ? double(s.value.b32)
                             : s.format == Kind::eInt64  ? double(s.value.i64)
                             : s.format == Kind::eUint64 ? double(s.value.u64)
                                                         : s.value.f64;
        found.push_back({s.name.data(), value});
    }
    return found;
}

void Pipelines::save() {
    if (!changed_ || cache_path_.empty()) return;
    changed_ = false;
    try {
        const auto bytes = cache_.getData();
        std::filesystem::create_directories(std::filesystem::path(cache_path_).parent_path());
        AtomicFile file(cache_path_);
        file.write(std::as_bytes(std::span(bytes)));
        const uint64_t sum = checksum({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
        file.write(std::as_bytes(std::span(&sum, 1)));
        file.commit();
    } catch (
        const std::exception& error) { // a cache that cannot be written costs time at the next start, no more
        log::detail("pipeline cache not saved: {}", error.what());
    }
}

} // namespace fathom::gpu
