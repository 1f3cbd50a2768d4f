// Host and device; see facts.h.
#include "bench/facts.h"

#include <chrono>
#include <ctime>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fstream>
#include <random>
#include <sys/utsname.h>
#include <thread>
#include <unistd.h>

namespace fathom::bench {

namespace {

// What follows `key` and a separator in the first line of a file that begins with it, without quotes.
std::string line_of(const char* path, std::string_view key, char separator) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with(key)) continue;
        const size_t at = line.find(separator);
        if (at == line.npos) continue;
        std::string value = line.substr(at + 1);
        std::erase(value, '"');
        const size_t first = value.find_first_not_of(" \t");
        return first == value.npos ? "" : value.substr(first);
    }
    return "";
}

} // namespace

Host host_facts() {
    Host host;
    utsname names{};
    if (uname(&names) == 0) {
        host.os = names.sysname;
        host.kernel = names.release;
    }
    if (const std::string name = line_of("/etc/os-release", "PRETTY_NAME", '='); !name.empty())
        host.os = name;
    host.cpu = line_of("/proc/cpuinfo", "model name", ':');
    if (host.cpu.empty()) host.cpu = names.machine;
    host.cores = std::thread::hardware_concurrency();
    host.memory =
        static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGE_SIZE));
    return host;
}

DeviceFacts device_facts(const gpu::DeviceInfo& info) {
    DeviceFacts facts{.name = info.name,
                      .driver = info.driver,
                      .type = info.type,
                      .api_version = info.api_version,
                      .vendor_id = fmt::format("{:#06x}", info.vendor_id),
                      .device_id = fmt::format("{:#06x}", info.device_id),
                      .memory = info.memory,
                      .subgroup_size = info.caps.subgroup_size,
                      .shared_bytes = info.caps.shared_bytes,
                      .quirks = info.quirks};
    const auto feature = [&](bool has, std::string name) {
        if (has) facts.features.push_back(std::move(name));
    };
    feature(info.caps.timestamps, "timestamps");
    feature(info.caps.pinned_subgroups, "fixed subgroup size");
    feature(info.caps.float16, "16-bit arithmetic");
    feature(info.caps.int8_dot, "products of packed bytes");
    feature(info.caps.statistics, "pipeline statistics");
    for (const gpu::MatrixShape& m : info.caps.matrices)
        feature(true, fmt::format("cooperative matrix {} {}x{}x{}", m.types, m.m, m.n, m.k));
    return facts;
}

std::string utc_now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

std::string random_id() {
    std::random_device random;
    return fmt::format("{:08x}{:08x}", random(), random());
}

} // namespace fathom::bench
