// What a report says of the machine: nothing that names it or who uses it.
#pragma once

#include "bench/report.h"
#include "gpu/device.h"

namespace fathom::bench {

Host host_facts();
DeviceFacts device_facts(const gpu::DeviceInfo& info);
std::string utc_now();   // "2026-11-29T06:04:44Z"
std::string random_id(); // 16 hexadecimal digits

} // namespace fathom::bench
