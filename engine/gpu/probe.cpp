// The instance, and probe(): what each device can do, with every quirk and its reason. README's driver table
// is the public form of what stands here.
#include "base/error.h"
#include "base/log.h"
#include "gpu/modules.h"
#include "gpu/vulkan_device.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace fathom::gpu {

namespace {

std::atomic<uint32_t> validation_messages = 0;

VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                          VkDebugUtilsMessageTypeFlagsEXT,
                                          const VkDebugUtilsMessengerCallbackDataEXT* data, void*) {
    if (severity < VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT) return VK_FALSE;
    // The layer reports in this way that it switched on features which GPU-assisted validation needs: no
    // finding.
    if (data->pMessageIdName &&
        std::strstr(data->pMessageIdName, "UNASSIGNED-GPU-Assisted Validation Warning"))
        return VK_FALSE;
    ++validation_messages;
    log::write(log::Level::warning, fmt::format("validation: {}", data->pMessage));
    return VK_FALSE;
}

vk::DebugUtilsMessengerCreateInfoEXT messenger_info() {
    using Severity = vk::DebugUtilsMessageSeverityFlagBitsEXT;
    using Type = vk::DebugUtilsMessageTypeFlagBitsEXT;
    vk::DebugUtilsMessengerCreateInfoEXT info({}, Severity::eWarning | Severity::eError,
                                              Type::eValidation | Type::ePerformance);
    info.pfnUserCallback = decltype(info.pfnUserCallback)(on_message);
    return info;
}

std::string version_text(uint32_t version) {
    return fmt::format("{}.{}.{}", VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version),
                       VK_API_VERSION_PATCH(version));
}

const char* type_name(vk::PhysicalDeviceType type) {
    switch (type) {
    case vk::PhysicalDeviceType::eDiscreteGpu:
        return "discrete";
    case vk::PhysicalDeviceType::eIntegratedGpu:
        return "integrated";
    case vk::PhysicalDeviceType::eVirtualGpu:
        return "virtual";
    case vk::PhysicalDeviceType::eCpu:
        return "cpu";
    default:
        return "other";
    }
}

// What every kernel needs; the first thing that is missing, or nothing.
std::string missing_feature(const vk::raii::PhysicalDevice& physical) {
    if (physical.getProperties().apiVersion < VK_API_VERSION_1_3) return "its driver has no Vulkan 1.3";
    const auto features =
        physical.getFeatures2<vk::PhysicalDeviceFeatures2, vk::PhysicalDeviceVulkan12Features,
                              vk::PhysicalDeviceVulkan13Features>();
    if (!features.get<vk::PhysicalDeviceVulkan12Features>().bufferDeviceAddress)
        return "no bufferDeviceAddress";
    if (!features.get<vk::PhysicalDeviceVulkan12Features>().timelineSemaphore) return "no timelineSemaphore";
    if (!features.get<vk::PhysicalDeviceVulkan13Features>().synchronization2) return "no synchronization2";
    const auto chain =
        physical.getProperties2<vk::PhysicalDeviceProperties2, vk::PhysicalDeviceVulkan11Properties>();
    const auto& subgroup = chain.get<vk::PhysicalDeviceVulkan11Properties>();
    using Feature = vk::SubgroupFeatureFlagBits;
    const vk::SubgroupFeatureFlags needed = Feature::eBasic | Feature::eArithmetic | Feature::eShuffle;
    if ((subgroup.subgroupSupportedOperations & needed) != needed)
        return "no subgroup arithmetic and shuffle operations";
    if (subgroup.subgroupSize < 4) return fmt::format("subgroups of {}, fewer than 4", subgroup.subgroupSize);
    const auto families = physical.getQueueFamilyProperties();
    if (std::none_of(families.begin(), families.end(), [](const auto& family) {
            return bool(family.queueFlags & vk::QueueFlagBits::eCompute);
        }))
        return "no compute queue";
    return "";
}

bool has_extension(const vk::raii::PhysicalDevice& physical, std::string_view name) {
    const auto all = physical.enumerateDeviceExtensionProperties();
    return std::any_of(all.begin(), all.end(), [&](const auto& e) { return e.extensionName.data() == name; });
}

bool has_statistics(const vk::raii::PhysicalDevice& physical) {
    if (!has_extension(physical, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME)) return false;
    using Features = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR;
    return physical.getFeatures2<vk::PhysicalDeviceFeatures2, Features>()
        .get<Features>()
        .pipelineExecutableInfo;
}

#ifdef VK_KHR_cooperative_matrix
// "" for types that no kernel here is made for.
std::string types_of(const vk::CooperativeMatrixPropertiesKHR& shape) {
    using Type = vk::ComponentTypeKHR;
    if (shape.scope != vk::ScopeKHR::eSubgroup || shape.AType != shape.BType ||
        shape.CType != shape.ResultType || shape.saturatingAccumulation)
        return "";
    const auto is = [&](Type a, Type sum) { return shape.AType == a && shape.CType == sum; };
    if (is(Type::eFloat16, Type::eFloat32)) return "f16_f32";
    if (is(Type::eFloat16, Type::eFloat16)) return "f16_f16";
    if (is(Type::eSint8, Type::eSint32)) return "s8_s32";
    return "";
}
#endif

std::vector<MatrixShape> matrix_shapes(const vk::raii::PhysicalDevice& physical) {
    std::vector<MatrixShape> shapes;
#ifdef VK_KHR_cooperative_matrix
    if (!has_extension(physical, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)) return shapes;
    using Features = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR;
    const auto features =
        physical.getFeatures2<vk::PhysicalDeviceFeatures2, vk::PhysicalDeviceVulkan12Features, Features>();
    const auto& core = features.get<vk::PhysicalDeviceVulkan12Features>();
    // Kernels with matrices need the memory model, which, once enabled, binds all others too.
    if (!features.get<Features>().cooperativeMatrix || !core.vulkanMemoryModel ||
        !core.vulkanMemoryModelDeviceScope)
        return shapes;
    for (const auto& shape : physical.getCooperativeMatrixPropertiesKHR()) {
        const std::string types = types_of(shape), module = "roof_matrix_" + types;
        if (types.starts_with("s8") ? !core.shaderInt8 : !core.shaderFloat16) continue;
        const auto all = modules();
        if (!types.empty() &&
            std::any_of(all.begin(), all.end(), [&](const auto& m) { return m.name == module; }))
            shapes.push_back({shape.MSize, shape.NSize, shape.KSize, types});
    }
#else
    (void)physical; // these Vulkan headers are older than cooperative matrices
#endif
    return shapes;
}

} // namespace

const Instance& Instance::shared() {
    static const Instance only;
    return only;
}

Instance::Instance() try {
    const char* setting = std::getenv("FATHOM_VALIDATION");
    validation = setting && *setting && std::strcmp(setting, "0") != 0;
    gpu_assisted = validation && std::strcmp(setting, "gpu") == 0;
    if (context.enumerateInstanceVersion() < VK_API_VERSION_1_3)
        throw Error({.what = "the Vulkan loader is too old",
                     .expected = "Vulkan 1.3",
                     .got = version_text(context.enumerateInstanceVersion()),
                     .fix = "update the package libvulkan1"});
    std::vector<const char*> layers, extensions;
    if (validation) {
        layers.push_back("VK_LAYER_KHRONOS_validation");
        extensions.push_back(VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
    }
    const vk::ApplicationInfo application("fathom", 1, "fathom", 1, VK_API_VERSION_1_3);
    auto message_info = messenger_info();
    const vk::ValidationFeatureEnableEXT enables[] = {
        vk::ValidationFeatureEnableEXT::eGpuAssisted,
        vk::ValidationFeatureEnableEXT::eGpuAssistedReserveBindingSlot};
    vk::ValidationFeaturesEXT features(enables, {}, &message_info);
    vk::InstanceCreateInfo info({}, &application, layers, extensions);
    if (validation) info.pNext = gpu_assisted ? static_cast<const void*>(&features) : &message_info;
    instance = vk::raii::Instance(context, info);
    if (validation) messenger = vk::raii::DebugUtilsMessengerEXT(instance, message_info);
} catch (const vk::LayerNotPresentError&) {
    throw Error({.what = "FATHOM_VALIDATION is set but the validation layer is not installed",
                 .fix = "install the package vulkan-validationlayers"});
} catch (const vk::SystemError& error) {
    throw Error(
        {.what = "no Vulkan driver",
         .where = "vkCreateInstance",
         .expected = "a Vulkan 1.3 driver",
         .got = error.what(),
         .fix = "install your GPU's driver, or mesa-vulkan-drivers (which also brings a software device), "
                "and look at VK_DRIVER_FILES if it is set"});
} catch (const std::runtime_error& error) {
    if (dynamic_cast<const Error*>(&error)) throw;
    throw Error({.what = "no Vulkan loader",
                 .expected = "libvulkan.so.1",
                 .got = error.what(),
                 .fix = "install the package libvulkan1"});
}

Instance::~Instance() {
    if (validation_messages == 0) return;
    log::warning("{} validation message(s): failing", validation_messages.load());
    std::_Exit(70); // a run under validation must not pass with a message, whoever would catch an exception
}

namespace {

void choose_subgroups(uint32_t size, const vk::PhysicalDeviceVulkan13Properties& control, DeviceInfo& info) {
    Caps& caps = info.caps;
    const uint32_t least = control.minSubgroupSize, most = std::max(least, control.maxSubgroupSize);
    // Where there is a choice, narrow subgroups leave each lane more registers: with the 32 lanes that it
    // takes by default, Mesa's Intel driver spills half of our kernels.
    const uint32_t narrow = std::clamp(8u, least, most);
    // A pinned kernel may have so many subgroups; our largest workgroups have 256 invocations.
    const bool wide_enough = narrow * control.maxComputeWorkgroupSubgroups >= 256;
    caps.pinned_subgroups = bool(control.requiredSubgroupSizeStages & vk::ShaderStageFlagBits::eCompute) &&
                            wide_enough && narrow <= 64;
    caps.subgroup_size = caps.pinned_subgroups ? narrow : std::min(size, std::max(least, 4u));
    if (!caps.pinned_subgroups)
        info.quirks.push_back(fmt::format(
            "subgroup size cannot be fixed (this driver may use {} to {}): kernels rely on {} lanes only",
            least, most, caps.subgroup_size));
    // Eight lanes of 16 bytes read one 128-byte line of a weight row together.
    caps.k_lanes = caps.cpu ? 1 : std::min(caps.subgroup_size, 8u);
    if (!caps.cpu) return;
    info.quirks.push_back("software device: one lane to a dot product, since shuffles are loops on a CPU");
    caps.registers = 512; // of what lies in its caches
    caps.cores = std::max(1u, std::thread::hardware_concurrency());
    // Mesa 26's lavapipe runs a loop's body once more, with no invocation active, before it leaves the loop,
    // and loads from uniform addresses all the same: a little beyond the end of what the loop reads.
    info.quirks.push_back(
        "software device: unused memory behind every block, since loops may load once more");
}

} // namespace

DeviceInfo probe(const vk::raii::PhysicalDevice& physical, uint32_t index) {
    DeviceInfo info;
    const auto properties = physical.getProperties();
    info.index = index;
    info.name = properties.deviceName.data();
    info.vendor_id = properties.vendorID;
    info.device_id = properties.deviceID;
    info.type = type_name(properties.deviceType);
    info.api_version = version_text(properties.apiVersion);
    std::string uuid;
    for (const uint8_t byte : properties.pipelineCacheUUID) uuid += fmt::format("{:02x}", byte);
    info.cache_key = fmt::format("{:04x}-{:04x}-{}", properties.vendorID, properties.deviceID, uuid);
    const auto memory = physical.getMemoryProperties();
    for (uint32_t i = 0; i < memory.memoryHeapCount; ++i)
        if (memory.memoryHeaps[i].flags & vk::MemoryHeapFlagBits::eDeviceLocal)
            info.memory = std::max<uint64_t>(info.memory, memory.memoryHeaps[i].size);
    info.unusable = missing_feature(physical);
    if (!info.unusable.empty()) return info;

    const auto chain =
        physical.getProperties2<vk::PhysicalDeviceProperties2, vk::PhysicalDeviceVulkan11Properties,
                                vk::PhysicalDeviceVulkan12Properties, vk::PhysicalDeviceVulkan13Properties>();
    const auto& subgroup = chain.get<vk::PhysicalDeviceVulkan11Properties>();
    const auto& driver = chain.get<vk::PhysicalDeviceVulkan12Properties>();
    const auto& control = chain.get<vk::PhysicalDeviceVulkan13Properties>();
    info.driver = fmt::format("{} {}", driver.driverName.data(), driver.driverInfo.data());

    Caps& caps = info.caps;
    const auto quirk = [&](std::string text) { info.quirks.push_back(std::move(text)); };
    caps.cpu = properties.deviceType == vk::PhysicalDeviceType::eCpu;
    caps.shared_bytes = properties.limits.maxComputeSharedMemorySize;
    caps.timestamps = properties.limits.timestampComputeAndGraphics && properties.limits.timestampPeriod > 0;
    choose_subgroups(subgroup.subgroupSize, control, info);
    if (driver.driverID == vk::DriverId::eMesaLlvmpipe) {
        if (const char* threads = std::getenv("LP_NUM_THREADS")) // llvmpipe's own; 0: the caller's alone
            caps.cores = std::clamp<uint32_t>(std::strtoul(threads, nullptr, 10), 1, caps.cores);
        // The layer makes a loop over all buffers of each access: nothing may need many.
        caps.iterations = Instance::shared().gpu_assisted ? 0 : 65535;
        quirk("llvmpipe: kernels of few iterations, since it leaves all loops after 65535 of them");
    }
    const bool intel = driver.driverID == vk::DriverId::eIntelOpenSourceMESA ||
                       driver.driverID == vk::DriverId::eIntelProprietaryWindows;
    if (intel) {
        // A hardware thread has 4 KiB of registers, from Xe2 (which has no subgroups of 8) on 8 KiB.
        caps.registers = (control.minSubgroupSize >= 16 ? 2048 : 1024) / caps.subgroup_size;
        quirk(fmt::format("Intel: tiles for {} registers a lane, more would spill", caps.registers));
    }
    const auto features =
        physical.getFeatures2<vk::PhysicalDeviceFeatures2, vk::PhysicalDeviceVulkan12Features,
                              vk::PhysicalDeviceVulkan13Features>();
    caps.float16 = features.get<vk::PhysicalDeviceVulkan12Features>().shaderFloat16;
    caps.int8_dot = features.get<vk::PhysicalDeviceVulkan13Features>().shaderIntegerDotProduct;
    caps.statistics = has_statistics(physical);
    caps.matrices = matrix_shapes(physical);
    if (!caps.timestamps) quirk("no timestamps on the compute queue: profiles are not available");
    probe_memory(physical, info);
    return info;
}

std::vector<DeviceInfo> list_devices() {
    std::vector<DeviceInfo> devices;
    for (const auto& physical : vk::raii::PhysicalDevices(Instance::shared().instance))
        devices.push_back(probe(physical, static_cast<uint32_t>(devices.size())));
    return devices;
}

} // namespace fathom::gpu
