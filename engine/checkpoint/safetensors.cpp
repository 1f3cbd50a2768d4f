// safetensors files: u64 length, JSON header, data. The reader is a SAX handler, so a hostile header of 100
// MB costs no document tree; it accepts what the reference implementation accepts, except: duplicate names,
// unknown members of an entry and more than 16 dimensions are refused, as are dtypes without an entry in the
// table below (the 4- and 6-bit ones, C64 and the FNUZ forms). Format:
// https://github.com/huggingface/safetensors (README, "Format").
#include "checkpoint/safetensors.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <numeric>
#include <optional>
#include <unordered_set>

namespace fathom {

namespace {

constexpr uint64_t largest_header = 100'000'000; // as in the reference implementation
constexpr size_t largest_rank = 16;

struct DTypeRow {
    std::string_view name;
    uint32_t bytes, block = 1;
};
constexpr DTypeRow dtypes[] = {
    // in the order of DType
    {"F64", 8},         {"F32", 4},         {"F16", 2},           {"BF16", 2},        {"F8_E4M3", 1},
    {"F8_E5M2", 1},     {"F8_E8M0", 1},     {"I64", 8},           {"I32", 4},         {"I16", 2},
    {"I8", 1},          {"U64", 8},         {"U32", 4},           {"U16", 2},         {"U8", 1},
    {"BOOL", 1},        {"Q4_0", 18, 32},   {"Q4_1", 20, 32},     {"Q5_0", 22, 32},   {"Q5_1", 24, 32},
    {"Q8_0", 34, 32},   {"Q2_K", 84, 256},  {"Q3_K", 110, 256},   {"Q4_K", 144, 256}, {"Q5_K", 176, 256},
    {"Q6_K", 210, 256}, {"IQ4_NL", 18, 32}, {"IQ4_XS", 136, 256}, {"MXFP4", 17, 32},
};
static_assert(std::size(dtypes) == static_cast<size_t>(DType::mxfp4) + 1);

std::optional<DType> dtype_named(std::string_view name) {
    for (size_t i = 0; i < std::size(dtypes); ++i)
        if (dtypes[i].name == name && dtypes[i].block == 1) return static_cast<DType>(i);
    return std::nullopt;
}

[[noreturn]] void broken(const std::string& where, std::string expected, std::string got) {
    throw Error({.what = "broken safetensors file",
                 .where = where,
                 .expected = std::move(expected),
                 .got = std::move(got),
                 .fix = "fetch the file again"});
}

std::string tensor_where(const std::string& file, std::string_view name) {
    return fmt::format("{}: tensor \"{}\"", file, printable(name));
}

// One member of the header as written, not yet checked against the others.
struct Entry {
    std::string name;
    std::optional<DType> dtype;
    std::optional<std::vector<uint64_t>> shape, offsets;
};

// Takes the parser's events in the only order a header allows; any other event is an error.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
  public:
    explicit HeaderReader(const std::string& where) : where_(where) {}
    std::vector<Entry> entries;

    bool start_object(size_t) override {
        if (at_ == At::start)
            at_ = At::header;
        else if (at_ == At::header && key_ == "__metadata__")
            at_ = At::metadata;
        else if (at_ == At::header) {
            at_ = At::entry;
            entries.push_back({.name = key_});
        } else
            unexpected("an object");
        return true;
    }
    bool end_object() override {
        if (at_ == At::entry) finish_entry();
        at_ = at_ == At::header ? At::end : At::header;
        return true;
    }
    bool key(string_t& key) override {
        key_ = key;
        if (at_ == At::header && key == "__metadata__" && std::exchange(has_metadata_, true))
            broken(where_, "one __metadata__", "two");
        if (at_ == At::metadata && !metadata_keys_.insert(key).second)
            broken(where_, "each key of __metadata__ once", printable(key) + " twice");
        if (at_ != At::entry) return true;
        const Entry& entry = entries.back();
        const bool known = key == "dtype" || key == "shape" || key == "data_offsets";
        const bool seen = (key == "dtype" && entry.dtype) || (key == "shape" && entry.shape) ||
                          (key == "data_offsets" && entry.offsets);
        if (!known || seen)
            broken(here(), "dtype, shape and data_offsets, once each", "\"" + printable(key) + "\"");
        return true;
    }
    bool string(string_t& value) override {
        if (at_ == At::metadata) return true;
        if (at_ != At::entry || key_ != "dtype") unexpected("the string \"" + printable(value) + "\"");
        entries.back().dtype = dtype_named(value);
        if (!entries.back().dtype)
            throw Error({.what = "unsupported dtype",
                         .where = here(),
                         .expected = "F32, F16, BF16, F8_E4M3 or the like",
                         .got = printable(value),
                         .fix = "use a checkpoint in another format"});
        return true;
    }
    bool start_array(size_t) override {
        if (at_ != At::entry || key_ == "dtype") unexpected("a list");
        at_ = key_ == "shape" ? At::shape : At::offsets;
        (at_ == At::shape ? entries.back().shape : entries.back().offsets).emplace();
        return true;
    }
    bool end_array() override {
        at_ = At::entry;
        return true;
    }
    bool number_unsigned(number_unsigned_t value) override {
        if (at_ != At::shape && at_ != At::offsets) unexpected(fmt::format("the number {}", value));
        auto& list = at_ == At::shape ? *entries.back().shape : *entries.back().offsets;
        const size_t most = at_ == At::shape ? largest_rank : 2;
        if (list.size() == most)
            broken(here(),
                   fmt::format("at most {} numbers in {}", most, at_ == At::shape ? "shape" : "data_offsets"),
                   "more");
        list.push_back(value);
        return true;
    }
    bool number_integer(number_integer_t value) override { unexpected(fmt::format("the number {}", value)); }
    bool number_float(number_float_t, const string_t& text) override {
        unexpected("the number " + printable(text));
    }
    bool boolean(bool) override { unexpected("a boolean"); }
    bool null() override { unexpected("null"); }
    bool binary(binary_t&) override { unexpected("binary data"); }
    bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& reason) override {
        broken(where_, "a JSON header", json_reason(reason.what()));
    }

  private:
    enum class At { start, header, metadata, entry, shape, offsets, end };

    std::string here() const {
        return at_ >= At::entry && at_ <= At::offsets ? tensor_where(where_, entries.back().name) : where_;
    }
    [[noreturn]] void unexpected(std::string got) const {
        static constexpr const char* expectations[] = {"an object",
                                                       "an object for each tensor",
                                                       "__metadata__ of strings",
                                                       "a dtype string, shape and data_offsets",
                                                       "whole numbers that fit 64 bits in shape",
                                                       "whole numbers that fit 64 bits in data_offsets",
                                                       "nothing more"};
        broken(here(), expectations[static_cast<size_t>(at_)], std::move(got));
    }
    void finish_entry() const {
        const Entry& entry = entries.back();
        if (!entry.dtype || !entry.shape || !entry.offsets || entry.offsets->size() != 2)
            broken(here(), "dtype, shape and two data_offsets", "fewer");
    }

    const std::string& where_;
    At at_ = At::start;
    std::string key_;
    bool has_metadata_ = false;
    std::unordered_set<std::string> metadata_keys_;
};

// The text of the header; its length and its first and last character are checked.
std::string_view header_text(std::span<const std::byte> file, const std::string& where) {
    uint64_t length = 0;
    if (file.size() < 8) broken(where, "at least 8 bytes", fmt::format("{} bytes", file.size()));
    if (std::memcmp(file.data(), "version ", 8) == 0)
        throw Error({.what = "not a safetensors file",
                     .where = where,
                     .got = "a Git LFS pointer",
                     .fix = "fetch the real file, for example with: git lfs pull"});
    std::memcpy(&length, file.data(), 8);
    if (length > largest_header || length > file.size() - 8)
        broken(
            where,
            fmt::format("a header of at most {} bytes", std::min<uint64_t>(largest_header, file.size() - 8)),
            fmt::format("{} bytes", length));
    const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, length);
    const size_t first = text.find_first_not_of(" \t\n\r"), last = text.find_last_not_of(" \t\n\r");
    // A NUL would end the text for the parser, and a byte order mark be skipped by it.
    if (first == text.npos || text[first] != '{' || text[last] != '}' || text.find('\0') != text.npos)
        broken(where, "a header that is one JSON object", "\"" + printable(text, 40) + "\"");
    return text;
}

// Bytes of a tensor by its shape: the product from left to right, as the reference computes it (a 0 absorbs
// what follows it, an overflow before it does not).
std::optional<uint64_t> bytes_by_shape(const Entry& entry) {
    uint64_t bytes = 1;
    for (const uint64_t size : *entry.shape)
        if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
    if (__builtin_mul_overflow(bytes, uint64_t{bytes_of(*entry.dtype)}, &bytes)) return std::nullopt;
    return bytes;
}

// Data must lie end to end, from the first byte after the header to the last of the file: no hole, no
// overlap.
void check_layout(const std::vector<Entry>& entries, uint64_t data_bytes, const std::string& where) {
    std::vector<size_t> order(entries.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return *entries[a].offsets < *entries[b].offsets; });
    uint64_t position = 0;
    for (const size_t index : order) {
        const Entry& entry = entries[index];
        const uint64_t begin = (*entry.offsets)[0], end = (*entry.offsets)[1];
        const std::string at = tensor_where(where, entry.name);
        if (begin != position || end < begin || end > data_bytes)
            broken(at, fmt::format("data_offsets from {} to at most {}", position, data_bytes),
                   fmt::format("[{}, {}]", begin, end));
        const auto bytes = bytes_by_shape(entry);
        if (bytes != end - begin)
            broken(at, fmt::format("{} bytes of data", end - begin),
                   fmt::format("{} {} of {}", shape_text(*entry.shape), name_of(*entry.dtype),
                               bytes ? fmt::format("{} bytes", *bytes) : "more than 2^64 bytes"));
        position = end;
    }
    if (position != data_bytes)
        broken(where, fmt::format("{} bytes after the header", position), fmt::format("{}", data_bytes));
}

} // namespace

std::string_view name_of(DType dtype) { return dtypes[static_cast<size_t>(dtype)].name; }
uint32_t bytes_of(DType dtype) { return dtypes[static_cast<size_t>(dtype)].bytes; }
uint32_t block_of(DType dtype) { return dtypes[static_cast<size_t>(dtype)].block; }
std::string shape_text(std::span<const uint64_t> shape) {
    return fmt::format("({})", fmt::join(shape, ", "));
}

std::vector<TensorView> parse_safetensors(std::span<const std::byte> file, const std::string& where) {
    const std::string_view header = header_text(file, where);
    HeaderReader reader(where);
    nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
    auto& entries = reader.entries;
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
    const auto twice = std::adjacent_find(entries.begin(), entries.end(),
                                          [](const Entry& a, const Entry& b) { return a.name == b.name; });
    if (twice != entries.end())
        broken(tensor_where(where, twice->name), "each name once", "two tensors of this name");
    const auto data = file.subspan(8 + header.size());
    check_layout(entries, data.size(), where);
    std::vector<TensorView> tensors;
    tensors.reserve(entries.size());
    for (Entry& entry : entries) {
        const uint64_t begin = (*entry.offsets)[0], end = (*entry.offsets)[1];
        tensors.push_back({std::move(entry.name), *entry.dtype, std::move(*entry.shape),
                           data.subspan(begin, end - begin), where});
    }
    return tensors;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors) {
    std::unordered_set<std::string_view> names;
    std::string text = "{";
    uint64_t offset = 0;
    for (const TensorView& tensor : tensors) {
        const Entry entry{tensor.name, tensor.dtype, tensor.shape, {}};
        check(bytes_by_shape(entry) == tensor.data.size(), "a tensor's shape and bytes agree");
        check(tensor.name != "__metadata__" && names.insert(tensor.name).second, "tensor names differ");
        if (text.size() > 1) text += ',';
        text += nlohmann::json(tensor.name).dump(); // throws for a name that is no UTF-8
        text += fmt::format(R"(:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", name_of(tensor.dtype),
                            fmt::join(tensor.shape, ","), offset, offset + tensor.data.size());
        offset += tensor.data.size();
    }
    text += '}';
    text.resize((text.size() + 7) / 8 * 8, ' ');
    check(text.size() <= largest_header, "a safetensors header has at most 100 MB");
    AtomicFile file(path);
    const uint64_t length = text.size();
    file.write(std::as_bytes(std::span(&length, 1)));
    file.write(text);
    for (const TensorView& tensor : tensors) file.write(tensor.data);
    file.commit();
}

} // namespace fathom
