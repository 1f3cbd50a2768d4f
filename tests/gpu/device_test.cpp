// The device itself: selection, memory and its accounts, uploads with and without staging, recordings, the
// report of a lost device, and the pipeline cache on disk. The kernel used throughout is copy_rows, of 32-bit
// words.
#include "base/error.h"
#include "golden/golden.h"
#include "gpu/help.h"

#include <filesystem>
#include <fstream>
#include <set>

using namespace fathom;
using namespace fathom::test;

namespace {

using gpu::Device;
using gpu::DeviceOptions;
using gpu::Placement;

DeviceOptions options() { return {.select = device_wish()}; }

std::string error_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

std::vector<uint32_t> words(size_t count, uint32_t seed) {
    std::vector<uint32_t> result(count);
    for (size_t i = 0; i < count; ++i) result[i] = static_cast<uint32_t>(i) * 2654435761u + seed;
    return result;
}
template <class T> std::span<const std::byte> bytes_of(const std::vector<T>& values) {
    return std::as_bytes(std::span(values));
}

View allocate(Device& device, Placement placement, uint64_t bytes, const char* owner = "test") {
    return device.allocate(owner, placement, std::span(&bytes, 1)).front();
}
std::vector<uint32_t> download(Device& device, View view) {
    std::vector<uint32_t> result(view.bytes / 4);
    device.download(view, std::as_writable_bytes(std::span(result)));
    return result;
}

// Two ops: b = a, then c = b, of `count` words in one row.
struct Copies {
    View state, a, b, c;
    std::vector<gpu::Dispatch> ops;

    Copies(Device& device, uint32_t count) {
        state = allocate(device, Placement::shared, sizeof(StepHeader) + sizeof(StepRow));
        const StepHeader header{1, 0, 0, 0};
        std::memcpy(device.mapped(state), &header, sizeof(header));
        a = allocate(device, Placement::device, 4ull * count);
        b = allocate(device, Placement::device, 4ull * count);
        c = allocate(device, Placement::device, 4ull * count);
        Plan plan("copies", device.info().caps, 1);
        StepMemory step;
        step.state = state;
        const auto rows = [&](View view) { return Rows{view.address, count, count}; };
        copy_rows(plan, "first copy", step, rows(a), 1, rows(b));
        copy_rows(plan, "second copy", step, rows(b), 1, rows(c));
        plan.finish();
        ops.assign(plan.ops().begin(), plan.ops().end());
        REQUIRE(ops[1].barrier);
    }
};

// XDG_CACHE_HOME for as long as this lives.
class CacheHome {
  public:
    explicit CacheHome(const std::filesystem::path& path) {
        if (const char* old = std::getenv("XDG_CACHE_HOME")) old_ = old;
        setenv("XDG_CACHE_HOME", path.c_str(), 1);
    }
    ~CacheHome() {
        if (old_.empty())
            unsetenv("XDG_CACHE_HOME");
        else
            setenv("XDG_CACHE_HOME", old_.c_str(), 1);
    }

  private:
    std::string old_;
};

void run_copies_on(const DeviceOptions& how, uint32_t count) {
    Device device(how);
    Copies copies(device, count);
    const auto expected = words(count, 1);
    device.upload(copies.a, 0, bytes_of(expected));
    auto recording = device.record("copies", copies.ops);
    device.wait(device.submit(recording));
    CHECK(download(device, copies.c) == expected);
}

} // namespace

TEST_CASE("device: the list says what there is, and whether it can be used") {
    const auto devices = gpu::list_devices();
    REQUIRE(!devices.empty());
    for (size_t i = 0; i < devices.size(); ++i) {
        CHECK(devices[i].index == i);
        CHECK(!devices[i].name.empty());
        CHECK(devices[i].api_version.find('.') != std::string::npos);
        if (!devices[i].unusable.empty()) continue;
        CHECK(std::set<std::string>{"discrete", "integrated", "virtual", "cpu", "other"}.contains(
            devices[i].type));
        CHECK(devices[i].memory > 0);
        CHECK(devices[i].largest_allocation >= 1ull << 30); // Vulkan 1.1 promises it
        for (const uint32_t heap : devices[i].heap_of) {
            REQUIRE(heap < devices[i].heaps.size());
            CHECK(devices[i].heaps[heap].available > 0);
            CHECK(devices[i].heaps[heap].available <= devices[i].heaps[heap].bytes);
        }
        CHECK(std::has_single_bit(devices[i].caps.k_lanes));
        CHECK(devices[i].caps.k_lanes <= devices[i].caps.subgroup_size);
        CHECK(devices[i].caps.shared_bytes >= 16384);
    }
}

TEST_CASE("device: selection by nothing, index, part of the name, and cpu") {
    const Device device(options());
    const auto& info = device.info();
    CHECK(Device({.select = std::to_string(info.index)}).info().name == info.name);
    std::string part = info.name.substr(1, 6);
    std::transform(part.begin(), part.end(), part.begin(), [](unsigned char c) { return std::toupper(c); });
    CHECK(Device({.select = part}).info().name == info.name);
    CHECK(Device({}).info().unusable.empty());
    if (info.type == "cpu") CHECK(Device({.select = "cpu"}).info().type == "cpu");
}

TEST_CASE("device: a wish that nothing fulfils is an error that lists what there is") {
    const std::string name = Device(options()).info().name;
    for (const char* wish : {"99", "-1", "no such card", "1e3", "0x0", "99999999999999999999"}) {
        INFO(std::string(wish));
        const std::string error = error_of([&] { Device device({.select = wish}); });
        CHECK(error.find("no such device") != std::string::npos);
        CHECK(error.find(wish) != std::string::npos);
        CHECK(error.find(name) != std::string::npos);
        CHECK(error.find("fathom devices") != std::string::npos);
    }
}

TEST_CASE("device: memory is accounted by owner, to the byte") {
    Device device(options());
    const uint64_t sizes[] = {1, 256, 257, 0};
    const auto views = device.allocate("weights", Placement::device, sizes);
    REQUIRE(views.size() == 4);
    for (size_t i = 0; i < 4; ++i) {
        CHECK(views[i].bytes == sizes[i]);
        CHECK(views[i].address % 256 == 0);
        for (size_t k = 0; k < i; ++k)
            CHECK(views[i].address >= views[k].address + sizes[k]); // no two overlap
    }
    allocate(device, Placement::shared, 1000, "state");
    allocate(device, Placement::device, 10, "weights");
    const auto memory = device.memory();
    REQUIRE(memory.size() == 2);
    CHECK(memory[0].owner == "weights");
    CHECK(memory[0].bytes == 1 + 256 + 257 + 0 + 10);
    CHECK(memory[0].reserved == 256 + 256 + 512 + 256 + 256);
    CHECK(memory[1].owner == "state");
    CHECK(memory[1].bytes == 1000);
    CHECK(memory[1].reserved == 1024);
}

TEST_CASE("device: memory is zeroed, mapped where it should be, copied and zeroed again") {
    Device device(options());
    const View a = allocate(device, Placement::device, 4096), b = allocate(device, Placement::device, 4096);
    const View shared = allocate(device, Placement::shared, 64),
               back = allocate(device, Placement::readback, 64), host = allocate(device, Placement::host, 64);
    CHECK(download(device, a) == std::vector<uint32_t>(1024));
    const auto content = words(1024, 7);
    device.upload(a, 0, bytes_of(content));
    CHECK_THROWS_AS(device.copy(a, {b.address, 100}), std::logic_error);
    device.copy({a.address, 3072}, {b.address + 1024, 3072});
    auto expected = download(device, b);
    CHECK(std::all_of(expected.begin(), expected.begin() + 256, [](uint32_t word) { return word == 0; }));
    CHECK(std::equal(expected.begin() + 256, expected.end(), content.begin()));
    device.zero({b.address + 1024, 2048});
    expected = download(device, b);
    CHECK(std::all_of(expected.begin(), expected.begin() + 768, [](uint32_t word) { return word == 0; }));
    CHECK(std::equal(expected.begin() + 768, expected.end(), content.begin() + 512));
    for (const View view : {shared, back, host}) {
        std::memset(device.mapped(view), 0x5A, 64);
        CHECK(download(device, view) == std::vector<uint32_t>(16, 0x5A5A5A5A));
    }
    CHECK_THROWS_AS(device.upload(a, 4090, bytes_of(words(2, 0))), std::logic_error);
    CHECK_THROWS_AS(device.mapped({8, 8}), std::logic_error); // no memory of this device
}

// Mesa 26's lavapipe reads on behind the end of what a loop reads: where a block's end was a page's, and
// nothing behind it, that was a crash.
TEST_CASE("device: no block of a software device ends where another begins") {
    Device device(options());
    if (!device.info().caps.cpu) return;
    std::vector<View> blocks;
    for (int i = 0; i < 16; ++i) blocks.push_back(allocate(device, Placement::device, 4096));
    std::sort(blocks.begin(), blocks.end(), [](View a, View b) { return a.address < b.address; });
    for (size_t i = 1; i < blocks.size(); ++i)
        CHECK(blocks[i].address - (blocks[i - 1].address + blocks[i - 1].bytes) >= 64u << 10);
}

TEST_CASE("device: it reads its own memory and the host's at a rate that can be measured") {
    Device device(options());
    for (const Placement from : {Placement::device, Placement::host}) CHECK(device.read_rate(from) > 1e6);
    CHECK(device.memory().empty()); // what it takes for that is given back
}

TEST_CASE("device: one that pretends to have less allocates no more") {
    setenv("FATHOM_DEVICE_MEMORY", "8192", 1);
    Device device(options());
    unsetenv("FATHOM_DEVICE_MEMORY");
    CHECK(device.info().memory == 8192);
    allocate(device, Placement::device, 4096);
    allocate(device, Placement::host, 16384); // of the host's
    allocate(device, Placement::shared, 4096);
    CHECK(error_of([&] { allocate(device, Placement::device, 1); }).find("not enough memory") !=
          std::string::npos);
}

TEST_CASE("device: uploads through staging are those without, however large and at whatever offset") {
    const auto big = words((36u << 20) / 4, 3), small = words(5, 9); // more than one staging block
    std::vector<std::vector<uint32_t>> seen;
    for (const bool staging : {false, true}) {
        DeviceOptions how = options();
        how.staging = staging;
        Device device(how);
        const uint64_t sizes[] = {big.size() * 4 + 100, 1000};
        const auto views = device.allocate("test", Placement::device, sizes);
        device.upload(views[0], 44, bytes_of(big));
        for (uint32_t i = 0; i < 50; ++i) device.upload(views[1], 20 * i, bytes_of(small)); // queued together
        device.flush();
        seen.push_back(download(device, views[0]));
        const auto second = download(device, views[1]);
        seen.back().insert(seen.back().end(), second.begin(), second.end());
        if (staging)
            CHECK_THROWS_AS(device.mapped(views[0]), std::logic_error); // it really was not host memory
    }
    CHECK(seen[0] == seen[1]);
    CHECK(std::equal(big.begin(), big.end(), seen[0].begin() + 11));
}

TEST_CASE("device: kernels give the same with staging, and with a buffer for each tensor") {
    DeviceOptions staging = options(), each = options();
    staging.staging = true;
    each.buffer_per_tensor = true;
    run_copies_on(options(), 1000);
    run_copies_on(staging, 1000);
    run_copies_on(each, 1000);
    Device device(each);
    const uint64_t sizes[] = {10, 20, 30};
    device.allocate("test", Placement::device, sizes);
    CHECK(device.memory().front().reserved == 3 * 256);
}

TEST_CASE("device: a recording is replayed over whatever memory holds then") {
    Device device(options());
    Copies copies(device, 4096);
    auto recording = device.record("copies", copies.ops);
    for (uint32_t run = 0; run < 5; ++run) {
        const auto expected = words(4096, run);
        device.upload(copies.a, 0, bytes_of(expected));
        device.wait(device.submit(recording));
        CHECK(download(device, copies.c) == expected);
    }
    const uint64_t first = device.submit(recording);
    device.wait(first);
    const uint64_t second = device.submit(recording);
    CHECK(second > first);
    device.wait(second);
    device.wait(first); // long finished
    CHECK(recording.seconds().empty());
}

TEST_CASE("device: a recording with timestamps has the seconds of every op") {
    Device device(options());
    Copies copies(device, 1 << 20);
    auto recording = device.record("copies", copies.ops, true);
    device.wait(device.submit(recording));
    const auto seconds = recording.seconds();
    if (!device.info().caps.timestamps) {
        MESSAGE(device.info().name << " has no timestamps");
        CHECK(seconds.empty());
        return;
    }
    REQUIRE(seconds.size() == 2);
    for (const double s : seconds) {
        CHECK(s > 0);
        CHECK(s < 60);
    }
}

TEST_CASE("device: a kernel that this program does not have is an error that names it") {
    Device device(options());
    Copies copies(device, 8);
    copies.ops[1].module = "no_such_kernel";
    CHECK(error_of([&] { device.record("copies", copies.ops); }).find("no_such_kernel") != std::string::npos);
}

TEST_CASE("device: a lost device is an error that names the list, and with breadcrumbs the op") {
    for (const bool breadcrumbs : {false, true}) {
        DeviceOptions how = options();
        how.breadcrumbs = breadcrumbs;
        how.lose_at_submit = 1000;
        Device device(how);
        Copies copies(device, 64);
        auto recording = device.record("decode 1", copies.ops);
        const std::string error = error_of([&] {
            for (int i = 0; i < 1001; ++i) device.wait(device.submit(recording));
        });
        CHECK(error.find("the GPU was lost") != std::string::npos);
        CHECK(error.find(device.info().name) != std::string::npos);
        CHECK(error.find("last list: decode 1") != std::string::npos);
        CHECK((error.find("last op: second copy") != std::string::npos) == breadcrumbs);
        CHECK((error.find("FATHOM_BREADCRUMBS") != std::string::npos) == !breadcrumbs);
        CHECK(error_of([&] { device.submit(recording); }).find("lost") !=
              std::string::npos); // and stays lost
    }
}

TEST_CASE("device: a device that is lost in a copy does not name a list that is gone") {
    DeviceOptions how = options();
    how.staging = how.breadcrumbs = true;
    how.lose_at_submit = 40;
    Device device(how);
    Copies copies(device, 64);
    {
        auto recording = device.record("gone", copies.ops);
        device.wait(device.submit(recording));
    }
    const std::string error = error_of([&] {
        for (int i = 0; i < 40; ++i) download(device, copies.a);
    });
    CHECK(error.find("last list: none") != std::string::npos);
}

TEST_CASE("device: pipelines are kept on disk, and what is damaged or foreign there is ignored") {
    golden::ScratchFolder scratch;
    const CacheHome home(scratch.path());
    run_copies_on(options(), 100);
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(scratch.path() / "fathom"))
        files.push_back(entry.path());
    REQUIRE(files.size() == 1);
    const std::string whole = golden::read_text(files[0]);
    REQUIRE(whole.size() >= 40); // the header and a checksum at least
    const auto altered = [&](size_t at) {
        std::string text = whole;
        text[at] = static_cast<char>(text[at] ^ 0x40);
        return text;
    };
    const std::string contents[] = {whole,
                                    "",
                                    "x",
                                    whole.substr(0, 20),
                                    whole.substr(0, whole.size() / 2),
                                    altered(4),
                                    altered(8),
                                    altered(16),
                                    altered(whole.size() - 1),
                                    altered(whole.size() - 9),
                                    whole + whole,
                                    std::string(5000, '\xFF')};
    for (const std::string& content : contents) {
        std::ofstream(files[0], std::ios::binary | std::ios::trunc) << content;
        run_copies_on(options(), 100); // works, and puts a whole one there again
        const std::string after = golden::read_text(files[0]);
        CHECK(after.substr(0, 32) == whole.substr(0, 32));
        CHECK(after.size() >= 40);
    }
    std::filesystem::remove(files[0]);
    std::filesystem::create_directory(files[0]); // nor can it be written
    run_copies_on(options(), 100);
    CHECK(std::filesystem::is_directory(files[0]));
}
