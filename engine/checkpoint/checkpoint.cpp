// Checkpoints: files mapped into memory, one or several joined by an index or, GGUF, by their numbers. The
// mapping is read-only and private; a file's size is taken once, so one that is cut while open ends the
// program by SIGBUS.
#include "checkpoint/checkpoint.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/numbers.h"
#include "checkpoint/gguf.h"
#include "checkpoint/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <optional>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace fathom {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t largest_index = uint64_t{256} << 20, largest_split = UINT16_MAX;

std::string shown(const fs::path& path) { return printable(path.string(), 4096); }

bool present(const fs::path& path) {
    std::error_code
        ignored; // what cannot be looked at fails with its reason when opened, or counts as missing
    return fs::exists(path, ignored);
}

class MappedFile {
  public:
    explicit MappedFile(const fs::path& path) {
        uint64_t size = 0;
        const int file = open_regular(path, size);
        void* at = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
        const int error = errno;
        close(file);
        if (at == MAP_FAILED)
            throw Error({.what = "cannot map file", .where = shown(path), .got = std::strerror(error)});
        bytes_ = {static_cast<const std::byte*>(at), size};
    }
    MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
    MappedFile& operator=(MappedFile&&) = delete;
    ~MappedFile() {
        if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
    }
    std::span<const std::byte> bytes() const { return bytes_; }

  private:
    std::span<const std::byte> bytes_;
};

// The end of the name of part `number`, counted from 0, of a GGUF model.
std::string part_suffix(uint64_t number, uint64_t count) {
    return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

bool by_name(const TensorView& a, const TensorView& b) { return a.name < b.name; }

} // namespace

std::map<std::string, std::string> parse_index(std::string_view text, const std::string& where) {
    const auto index = parse_json(text, where);
    const auto bad = [&](std::string at, std::string expected, std::string got) {
        return Error({.what = "broken index",
                      .where = where + ": " + at,
                      .expected = std::move(expected),
                      .got = std::move(got),
                      .fix = "fetch the folder again"});
    };
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
        throw bad("weight_map", "an object of tensor names and files", "none");
    std::map<std::string, std::string> shards;
    for (const auto& [tensor, file] : index["weight_map"].items()) {
        const std::string at = "weight_map: \"" + printable(tensor) + "\"";
        if (!file.is_string()) throw bad(at, "a file name", json_text(file));
        const auto& name = file.get_ref<const std::string&>();
        // No path may leave the folder. What a link in the folder points to is its owner's choice.
        const bool plain = name.find_first_of(std::string_view("/\\:\0", 4)) == name.npos &&
                           name.size() <= 255 && name.ends_with(".safetensors") && name.front() != '.';
        if (!plain) throw bad(at, "the name of a .safetensors file in the folder", json_text(file));
        shards.emplace(tensor, name);
    }
    return shards;
}

struct Checkpoint::Impl {
    std::vector<MappedFile> maps;
    std::vector<TensorView> tensors; // sorted by name
    uint64_t bytes = 0;

    std::optional<Gguf> gguf;

    std::vector<TensorView> map(const fs::path& path) {
        maps.emplace_back(path);
        return parse_safetensors(maps.back().bytes(), shown(path));
    }
    void map_file(const fs::path& path);
    void map_shards(const fs::path& index);
    void map_parts(const fs::path& path, const Gguf& keys);
    void add(std::vector<TensorView> more) {
        for (TensorView& tensor : more) {
            bytes += tensor.data.size();
            tensors.push_back(std::move(tensor));
        }
    }
};

// Every tensor of a shard must be the index's, and every tensor of the index in the shard it names.
void Checkpoint::Impl::map_shards(const fs::path& index) {
    const auto shard_of = parse_index(read_file(index, largest_index), shown(index));
    std::map<std::string, size_t> promised; // tensors of each shard
    for (const auto& [tensor, file] : shard_of) ++promised[file];
    for (const auto& [file, count] : promised) {
        const fs::path path = index.parent_path() / file;
        if (!present(path))
            throw Error({.what = "shard missing",
                         .where = shown(path),
                         .expected = "a file, as the index names it",
                         .fix = "fetch the rest of the checkpoint"});
        auto found = map(path);
        const auto wrong = [&](std::string_view tensor, std::string expected, std::string got) {
            return Error({.what = "shard and index disagree",
                          .where = fmt::format("{}: tensor \"{}\"", shown(path), printable(tensor)),
                          .expected = std::move(expected),
                          .got = std::move(got),
                          .fix = "fetch the folder again"});
        };
        for (const TensorView& tensor : found) {
            const auto mapped = shard_of.find(tensor.name);
            if (mapped == shard_of.end())
                throw wrong(tensor.name, "only tensors of the index", "one it does not name");
            if (mapped->second != file)
                throw wrong(tensor.name, "this tensor in " + mapped->second + " only", "it here");
        }
        if (found.size() != count)
            for (const auto& [tensor, mapped] : shard_of)
                if (mapped == file &&
                    !std::binary_search(found.begin(), found.end(), TensorView{.name = tensor}, by_name))
                    throw wrong(tensor, "this tensor, as the index says", "none");
        add(std::move(found));
    }
    std::sort(tensors.begin(), tensors.end(), by_name);
}

void Checkpoint::Impl::map_file(const fs::path& path) {
    maps.emplace_back(path);
    if (!is_gguf(maps.back().bytes())) return add(parse_safetensors(maps.back().bytes(), shown(path)));
    GgufFile file = parse_gguf(maps.back().bytes(), shown(path));
    if (file.keys.has("split.count") && file.keys.whole("split.count", 1, largest_split) > 1)
        return map_parts(path, file.keys);
    gguf = std::move(file.keys);
    add(std::move(file.tensors));
}

// A GGUF model in parts that lie beside each other and are numbered in their names and in their keys. The
// first has the model's keys.
void Checkpoint::Impl::map_parts(const fs::path& path, const Gguf& keys) {
    const uint64_t count = keys.whole("split.count", 2, largest_split),
                   tensors_in_all = keys.whole("split.tensors.count", 0, INT32_MAX);
    const std::string name = path.filename().string(),
                      own = part_suffix(keys.whole("split.no", 0, count - 1), count);
    if (!name.ends_with(own))
        keys.refuse("split.no", fmt::format("the number in the file's name, which would end in {}", own),
                    "give the files their original names");
    const std::string stem = name.substr(0, name.size() - own.size());
    maps.clear();
    for (uint64_t i = 0; i < count; ++i) {
        const fs::path part = path.parent_path() / (stem + part_suffix(i, count));
        if (!present(part))
            throw Error({.what = "shard missing",
                         .where = shown(part),
                         .expected = fmt::format("all {} parts of the model in one folder", count),
                         .fix = "fetch the missing part"});
        maps.emplace_back(part);
        GgufFile file = parse_gguf(maps.back().bytes(), shown(part));
        if (file.keys.whole("split.count", 1, largest_split) != count)
            file.keys.refuse("split.count", fmt::format("{}, as in {}", count, shown(path)));
        if (file.keys.whole("split.no", 0, count - 1) != i)
            file.keys.refuse("split.no", fmt::format("{}, as in the file's name", i));
        add(std::move(file.tensors));
        if (i == 0) gguf = std::move(file.keys);
    }
    std::sort(tensors.begin(), tensors.end(), by_name);
    const auto twice = std::adjacent_find(tensors.begin(), tensors.end(),
                                          [](const auto& a, const auto& b) { return a.name == b.name; });
    if (twice != tensors.end())
        throw Error({.what = "a tensor in two parts of a model",
                     .where = fmt::format("{}: tensor \"{}\"", (twice + 1)->file, printable(twice->name)),
                     .expected = "it in " + twice->file + " only",
                     .fix = "fetch the files again"});
    if (tensors.size() != tensors_in_all)
        gguf->refuse("split.tensors.count", fmt::format("{}, as many as the parts hold", tensors.size()),
                     "fetch the files again");
}

Checkpoint Checkpoint::open(const fs::path& path) {
    auto impl = std::make_unique<Impl>();
    std::error_code ignored; // what is no folder must open as a file
    if (!fs::is_directory(path, ignored)) {
        impl->map_file(path);
        return Checkpoint(std::move(impl));
    }
    const fs::path single = path / "model.safetensors", index = path / "model.safetensors.index.json";
    if (present(single))
        impl->add(impl->map(single));
    else if (present(index))
        impl->map_shards(index);
    else
        throw Error({.what = "no weights",
                     .where = shown(path),
                     .expected = "model.safetensors, or model.safetensors.index.json and its shards",
                     .fix = "fetch the checkpoint's .safetensors files (other formats are not read)"});
    return Checkpoint(std::move(impl));
}

Checkpoint Checkpoint::from_memory(std::span<const std::byte> bytes, std::string where) {
    auto impl = std::make_unique<Impl>();
    if (!is_gguf(bytes)) {
        impl->add(parse_safetensors(bytes, where));
        return Checkpoint(std::move(impl));
    }
    GgufFile file = parse_gguf(bytes, where);
    impl->gguf = std::move(file.keys);
    impl->add(std::move(file.tensors));
    return Checkpoint(std::move(impl));
}

Checkpoint Checkpoint::none() { return Checkpoint(std::make_unique<Impl>()); }

Checkpoint::Checkpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

const TensorView* Checkpoint::find(std::string_view name) const {
    const auto at =
        std::lower_bound(impl_->tensors.begin(), impl_->tensors.end(), name,
                         [](const TensorView& tensor, std::string_view key) { return tensor.name < key; });
    return at != impl_->tensors.end() && at->name == name ? &*at : nullptr;
}

std::span<const TensorView> Checkpoint::tensors() const { return impl_->tensors; }
uint64_t Checkpoint::bytes() const { return impl_->bytes; }
const Gguf* Checkpoint::gguf() const { return impl_->gguf ? &*impl_->gguf : nullptr; }

void Checkpoint::drop_all() const {
    for (const MappedFile& map : impl_->maps)
        if (!map.bytes().empty()) drop(map.bytes());
}

void Checkpoint::drop(std::span<const std::byte> part) const {
    // A page fault maps its neighbours too, 64 KiB at a time on Linux, so exact bounds would leave up to that
    // much behind for every tensor. Rounding outwards is safe: the mapping is never written, pages come back
    // when read.
    const uint64_t window = std::max<uint64_t>(64 * 1024, static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
    for (const MappedFile& map : impl_->maps) {
        const auto bytes = map.bytes();
        const std::less<> before;
        if (part.empty() || before(part.data(), bytes.data()) ||
            !before(part.data(), bytes.data() + bytes.size()))
            continue;
        const auto begin = static_cast<uint64_t>(part.data() - bytes.data());
        check(part.size() <= bytes.size() - begin, "dropped bytes lie within one file");
        const uint64_t from = begin / window * window,
                       to = std::min(round_up(begin + part.size(), window), bytes.size());
        const int failed = madvise(const_cast<std::byte*>(bytes.data()) + from, to - from, MADV_DONTNEED);
        check(failed == 0, "mapped pages can be dropped");
    }
}

} // namespace fathom
