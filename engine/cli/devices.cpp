// `fathom devices`: what --device can choose from.
#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "gpu/device.h"
#include "session/tuning.h"

#include <fmt/format.h>
#include <map>
#include <unistd.h>

namespace fathom::cli {

namespace {

// From how many tokens on a prompt's chunk expands its keys and values, behind so many others.
std::string attention_text(const std::string& key, const AttentionCosts& costs) {
    std::string out = fmt::format("   attention, {}: expanded", printable(key));
    for (const uint32_t before : {0u, 1024u, 16384u}) {
        uint32_t least = 1;
        while (least <= MAX_ROWS && !costs.worth_expanding(least, before)) ++least;
        out += least > MAX_ROWS
                   ? fmt::format("{} never behind {}", before ? "," : "", before)
                   : fmt::format("{} from {} tokens behind {}", before ? "," : "", least, before);
    }
    return out + "\n";
}

// What the tuner found on this device: which products take which tier, and what was wrong.
std::string tiers_text(const gpu::DeviceInfo& device) {
    const Tuning tuning = remembered_tuning(device);
    if (tuning.trials.empty())
        return "   kernels: not tried yet on this device and driver; the first model loaded there does it\n";
    std::map<Product, std::vector<const Trial*>> products;
    for (const Trial& trial : tuning.trials) products[trial.product].push_back(&trial);
    std::string out;
    for (const auto& [product, trials] : products) {
        out += fmt::format("   {:<40}", product.text());
        for (const Trial* t : trials) {
            const std::string time = t->failure.empty() ? fmt::format("{:.1f} us", t->seconds * 1e6)
                                                        : "WRONG (" + printable(t->failure) + ")";
            out += fmt::format("  {}{} {}", t->chosen ? "*" : "", t->variant.text(), time);
        }
        out += "\n";
    }
    out += "   (a launch by each kernel: its tier/lanes of a dot product, if not as usual; * is used)\n";
    for (const auto& [key, costs] : tuning.attention) out += attention_text(key, costs);
    return out;
}

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
        if (device.unusable.empty() && log::enabled(log::Level::detail)) out += tiers_text(device);
        if (!device.unusable.empty()) out += style.red("   cannot be used: ") + device.unusable + "\n";
    }
    write_out(out);
    return OK;
}

} // namespace

Action prepare_devices(CLI::App&) { return devices; }

} // namespace fathom::cli
