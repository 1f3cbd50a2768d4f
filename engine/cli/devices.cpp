// `fathom devices`: what --device can choose from.
#include "base/error.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "gpu/device.h"

#include <fmt/format.h>
#include <unistd.h>

namespace fathom::cli {

namespace {

int devices() {
    const std::vector<gpu::DeviceInfo> all = gpu::list_devices();
    const Style style = Style::of(STDOUT_FILENO);
    std::string out;
    for (const gpu::DeviceInfo& device : all) {
        out += style.bold(fmt::format("{}  {}", device.index, printable(device.name))) + "\n";
        out += fmt::format("   {}, {} of memory, Vulkan {}, subgroups of {}\n", device.type,
                           bytes_text(device.memory), device.api_version, device.caps.subgroup_size);
        out += fmt::format("   driver: {}\n", printable(device.driver, 200));
        for (const std::string& quirk : device.quirks) out += fmt::format("   quirk: {}\n", quirk);
        if (!device.unusable.empty()) out += style.red("   cannot be used: ") + device.unusable + "\n";
    }
    write_out(out);
    return OK;
}

} // namespace

Action prepare_devices(CLI::App&) { return devices; }

} // namespace fathom::cli
