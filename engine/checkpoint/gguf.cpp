// Reading GGUF; see gguf.h. One pass with a cursor that never goes past the end of the bytes; every count is
// compared with what the rest of the file could hold before anything is done that many times.
#include "checkpoint/gguf.h"

#include "base/error.h"
#include "base/file.h"
#include "base/numbers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <unistd.h>

namespace fathom {

namespace {

constexpr uint32_t largest_rank = 4;
constexpr uint64_t longest_key = 65535, longest_name = 64; // as the format's description says
constexpr uint32_t default_alignment = 32;

struct TypeRow {
    std::string_view one, many;
    uint32_t bytes; // of an element; 0: of its own length
};
constexpr TypeRow types[] = {
    // in the order of Gguf::Type
    {"u8", "u8 numbers", 1},   {"i8", "i8 numbers", 1},   {"u16", "u16 numbers", 2},
    {"i16", "i16 numbers", 2}, {"u32", "u32 numbers", 4}, {"i32", "i32 numbers", 4},
    {"f32", "f32 numbers", 4}, {"bool", "booleans", 1},   {"string", "strings", 0},
    {"array", "arrays", 0},    {"u64", "u64 numbers", 8}, {"i64", "i64 numbers", 8},
    {"f64", "f64 numbers", 8},
};
static_assert(std::size(types) == static_cast<size_t>(Gguf::Type::f64) + 1);
const TypeRow& row(Gguf::Type type) { return types[static_cast<size_t>(type)]; }

struct DTypeId {
    uint32_t id;
    DType dtype;
};
constexpr DTypeId dtype_ids[] = {
    {0, DType::f32},    {1, DType::f16},   {2, DType::q4_0},    {3, DType::q4_1},    {6, DType::q5_0},
    {7, DType::q5_1},   {8, DType::q8_0},  {10, DType::q2_k},   {11, DType::q3_k},   {12, DType::q4_k},
    {13, DType::q5_k},  {14, DType::q6_k}, {20, DType::iq4_nl}, {23, DType::iq4_xs}, {24, DType::i8},
    {25, DType::i16},   {26, DType::i32},  {27, DType::i64},    {28, DType::f64},    {30, DType::bf16},
    {39, DType::mxfp4},
};

[[noreturn]] void broken(const std::string& where, std::string expected, std::string got) {
    throw Error({.what = "broken GGUF file",
                 .where = where,
                 .expected = std::move(expected),
                 .got = std::move(got),
                 .fix = "fetch the file again"});
}

template <class T> T load(std::string_view bytes, uint64_t index = 0) {
    T value;
    std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
    return value;
}

// A number of any type, with no loss for whole ones: {negative, magnitude} or a real.
struct Number {
    bool real = false, negative = false;
    uint64_t magnitude = 0;
    double value = 0;
};
Number whole_number(int64_t value) {
    const auto bits = static_cast<uint64_t>(value);
    return {false, value < 0, value < 0 ? 0 - bits : bits, static_cast<double>(value)};
}
std::optional<Number> number_of(const Gguf::Value& value) {
    using T = Gguf::Type;
    switch (value.type) {
    case T::u8:
        return whole_number(load<uint8_t>(value.bytes));
    case T::i8:
        return whole_number(load<int8_t>(value.bytes));
    case T::u16:
        return whole_number(load<uint16_t>(value.bytes));
    case T::i16:
        return whole_number(load<int16_t>(value.bytes));
    case T::u32:
        return whole_number(load<uint32_t>(value.bytes));
    case T::i32:
        return whole_number(load<int32_t>(value.bytes));
    case T::i64:
        return whole_number(load<int64_t>(value.bytes));
    case T::u64: {
        const auto magnitude = load<uint64_t>(value.bytes);
        return Number{false, false, magnitude, static_cast<double>(magnitude)};
    }
    case T::f32:
        return Number{true, false, 0, load<float>(value.bytes)};
    case T::f64:
        return Number{true, false, 0, load<double>(value.bytes)};
    case T::boolean:
    case T::string:
    case T::array:
        return std::nullopt;
    }
    return std::nullopt;
}

// What is left of the file. Every read says what it is for.
class Cursor {
  public:
    Cursor(std::span<const std::byte> file, const std::string& where)
        : file_(reinterpret_cast<const char*>(file.data()), file.size()), where_(where) {}

    std::string_view take(uint64_t bytes, std::string_view what) {
        if (bytes > left())
            broken(where_, fmt::format("{} bytes for {} at byte {}", bytes, what, at_),
                   fmt::format("{} to the end of the file", left()));
        at_ += bytes;
        return file_.substr(at_ - bytes, bytes);
    }
    template <class T> T number(std::string_view what) { return load<T>(take(sizeof(T), what)); }
    std::string_view text(uint64_t longest, std::string_view what) {
        const auto length = number<uint64_t>(what);
        if (length > longest)
            broken(where_, fmt::format("at most {} bytes in {}", longest, what), fmt::format("{}", length));
        return take(length, what);
    }
    // A count of things that take at least `bytes` each.
    uint64_t count(uint64_t bytes, std::string_view what) {
        const auto count = number<uint64_t>(what);
        if (count > left() / bytes)
            broken(where_,
                   fmt::format("at most {} {}, with {} bytes to the end of the file", left() / bytes, what,
                               left()),
                   fmt::format("{}", count));
        return count;
    }
    uint64_t at() const { return at_; }
    uint64_t left() const { return file_.size() - at_; }

  private:
    std::string_view file_;
    const std::string& where_;
    uint64_t at_ = 0;
};

} // namespace

struct GgufReader {
    std::span<const std::byte> file;
    const std::string& where;
    Cursor cursor{file, where};
    GgufFile out{};

    GgufFile read();
    void read_keys(uint64_t count);
    Gguf::Type read_type(std::string_view key);
    Gguf::Value read_value(std::string_view key);
    std::string_view elements(Gguf::Type type, uint64_t count, std::string_view key);
    TensorView read_tensor(uint32_t alignment, std::vector<uint64_t>& offsets);
    void place(std::vector<TensorView>& tensors, const std::vector<uint64_t>& offsets, uint64_t data_at);
    uint32_t alignment() const;

    std::string key_where(std::string_view key) const {
        return fmt::format("{}: key \"{}\"", where, printable(key));
    }
    std::string tensor_where(std::string_view name) const {
        return fmt::format("{}: tensor \"{}\"", where, printable(name));
    }
};

Gguf::Type GgufReader::read_type(std::string_view key) {
    const auto type = cursor.number<uint32_t>("the type of a value");
    if (type >= std::size(types))
        broken(key_where(key), "a value type from 0 to 12", fmt::format("{}", type));
    return static_cast<Gguf::Type>(type);
}

// `count` elements, one behind the other.
std::string_view GgufReader::elements(Gguf::Type type, uint64_t count, std::string_view key) {
    if (type == Gguf::Type::string) {
        const uint64_t begin = cursor.at();
        for (uint64_t i = 0; i < count; ++i) cursor.text(file.size(), "a string");
        return {reinterpret_cast<const char*>(file.data()) + begin, cursor.at() - begin};
    }
    const std::string_view bytes = cursor.take(count * row(type).bytes, "a value");
    if (type == Gguf::Type::boolean)
        for (const char byte : bytes)
            if (byte != 0 && byte != 1)
                broken(key_where(key), "0 or 1 in a boolean", fmt::format("{}", static_cast<uint8_t>(byte)));
    return bytes;
}

Gguf::Value GgufReader::read_value(std::string_view key) {
    const Gguf::Type type = read_type(key);
    if (type == Gguf::Type::string) return {type, type, 1, cursor.text(file.size(), "a string")};
    if (type != Gguf::Type::array) return {type, type, 1, elements(type, 1, key)};
    const Gguf::Type element = read_type(key);
    if (element == Gguf::Type::array)
        throw Error({.what = "unsupported GGUF value",
                     .where = key_where(key),
                     .expected = "an array of numbers, booleans or strings",
                     .got = "an array of arrays",
                     .fix = "use another file; no model of the family has such a key"});
    const uint32_t least = element == Gguf::Type::string ? 8 : row(element).bytes;
    const uint64_t count = cursor.count(least, "elements in an array");
    return {type, element, count, elements(element, count, key)};
}

void GgufReader::read_keys(uint64_t count) {
    auto& keys = out.keys.keys_;
    for (uint64_t i = 0; i < count; ++i) {
        const std::string_view name = cursor.text(longest_key, "a key");
        const bool ascii =
            std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < '\x7F'; });
        if (name.empty() || !ascii)
            broken(where, "printable ASCII in every key", "\"" + printable(name) + "\"");
        keys.push_back({name, read_value(name)});
    }
    const auto before = [](const Gguf::Key& a, const Gguf::Key& b) { return a.name < b.name; };
    std::sort(keys.begin(), keys.end(), before);
    const auto twice = std::adjacent_find(
        keys.begin(), keys.end(), [](const Gguf::Key& a, const Gguf::Key& b) { return a.name == b.name; });
    if (twice != keys.end()) broken(key_where(twice->name), "each key once", "it twice");
}

uint32_t GgufReader::alignment() const {
    constexpr std::string_view key = "general.alignment";
    const Gguf::Value* value = out.keys.find(key);
    if (!value) return default_alignment;
    const uint32_t alignment = value->type == Gguf::Type::u32 ? load<uint32_t>(value->bytes) : 0;
    if (!std::has_single_bit(alignment)) out.keys.refuse(key, "a power of two, as u32");
    return alignment;
}

// One record; its data are placed when all are known.
TensorView GgufReader::read_tensor(uint32_t alignment, std::vector<uint64_t>& offsets) {
    TensorView tensor;
    tensor.file = where;
    tensor.name = cursor.text(longest_name, "the name of a tensor");
    const std::string here = tensor_where(tensor.name);
    const auto rank = cursor.number<uint32_t>("the rank of a tensor");
    if (tensor.name.empty()) broken(here, "a name", "none");
    if (rank > largest_rank)
        broken(here, fmt::format("at most {} dimensions", largest_rank), std::to_string(rank));
    for (uint32_t i = 0; i < rank; ++i) {
        const auto size = cursor.number<int64_t>("a dimension");
        if (size < 1) broken(here, "dimensions of at least 1", fmt::format("{}", size));
        tensor.shape.insert(tensor.shape.begin(), static_cast<uint64_t>(size));
    }
    const auto id = cursor.number<uint32_t>("the type of a tensor");
    const auto dtype = dtype_of_ggml(id);
    if (!dtype)
        throw Error({.what = "unsupported tensor type",
                     .where = here,
                     .expected = "F32, F16, BF16, Q8_0, Q4_K or the like",
                     .got = fmt::format("ggml's type {}", id),
                     .fix = "use a file in another quantisation"});
    tensor.dtype = *dtype;
    const uint64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (cols % block_of(*dtype))
        broken(here, fmt::format("rows of a multiple of {}, as {} has it", block_of(*dtype), name_of(*dtype)),
               fmt::format("{}", cols));
    offsets.push_back(cursor.number<uint64_t>("the offset of a tensor"));
    if (offsets.back() % alignment)
        broken(here, fmt::format("an offset that is a multiple of {}", alignment),
               fmt::format("{}", offsets.back()));
    return tensor;
}

// Gives the tensors their data, which must lie within the file and apart from each other.
void GgufReader::place(std::vector<TensorView>& tensors, const std::vector<uint64_t>& offsets,
                       uint64_t data_at) {
    const auto data = file.subspan(std::min<uint64_t>(data_at, file.size()));
    for (size_t i = 0; i < tensors.size(); ++i) {
        TensorView& tensor = tensors[i];
        uint64_t bytes = 1;
        bool fits = true;
        for (const uint64_t size : tensor.shape) fits = fits && !__builtin_mul_overflow(bytes, size, &bytes);
        bytes /= block_of(tensor.dtype);
        fits = fits && !__builtin_mul_overflow(bytes, uint64_t{bytes_of(tensor.dtype)}, &bytes);
        if (!fits || offsets[i] > data.size() || bytes > data.size() - offsets[i])
            broken(tensor_where(tensor.name), fmt::format("data within {} bytes", data.size()),
                   fmt::format("{} {} at {}, {}", shape_text(tensor.shape), name_of(tensor.dtype), offsets[i],
                               fits ? fmt::format("{} bytes", bytes) : "more than 2^64 bytes"));
        tensor.data = data.subspan(offsets[i], bytes);
    }
    // No pair shares a byte: each begins where the one before it has ended, or later.
    const auto before = [](const TensorView& a, const TensorView& b) {
        return a.data.data() < b.data.data();
    };
    std::sort(tensors.begin(), tensors.end(), before);
    for (size_t i = 1; i < tensors.size(); ++i)
        if (tensors[i - 1].data.data() + tensors[i - 1].data.size() > tensors[i].data.data())
            broken(tensor_where(tensors[i].name), "data apart from those of other tensors",
                   fmt::format("an overlap with \"{}\"", printable(tensors[i - 1].name)));
}

GgufFile GgufReader::read() {
    out.keys.where_ = where;
    if (cursor.take(4, "the magic") != "GGUF")
        broken(where, "the first bytes \"GGUF\"", "\"" + printable(Cursor(file, where).take(4, "it")) + "\"");
    const auto version = cursor.number<uint32_t>("the version");
    if (version != 2 && version != 3)
        throw Error({.what = "unsupported GGUF version",
                     .where = where,
                     .expected = "2 or 3, little-endian",
                     .got = version == 3u << 24 ? "3, big-endian" : fmt::format("{}", version),
                     .fix = "convert the model again"});
    constexpr uint64_t least_tensor = 8 + 1 + 4 + 4 + 8, least_key = 8 + 1 + 4 + 1;
    const uint64_t tensors = cursor.count(least_tensor, "tensors"), keys = cursor.count(least_key, "keys");
    read_keys(keys);
    const uint32_t align = alignment();
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < tensors; ++i) out.tensors.push_back(read_tensor(align, offsets));
    place(out.tensors, offsets, round_up(cursor.at(), align));
    std::sort(out.tensors.begin(), out.tensors.end(),
              [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
    const auto twice =
        std::adjacent_find(out.tensors.begin(), out.tensors.end(),
                           [](const TensorView& a, const TensorView& b) { return a.name == b.name; });
    if (twice != out.tensors.end())
        broken(tensor_where(twice->name), "each name once", "two tensors of this name");
    return std::move(out);
}

GgufFile parse_gguf(std::span<const std::byte> file, const std::string& where) {
    return GgufReader{file, where}.read();
}

bool is_gguf(const std::filesystem::path& file) {
    uint64_t size = 0;
    const int descriptor = open_regular(file, size);
    std::byte magic[4]{};
    const bool whole = ::read(descriptor, magic, sizeof magic) == sizeof magic;
    ::close(descriptor);
    return whole && is_gguf(magic);
}

bool is_gguf(std::span<const std::byte> file) {
    return file.size() >= 4 && std::memcmp(file.data(), "GGUF", 4) == 0;
}

const Gguf::Value* Gguf::find(std::string_view key) const {
    const auto at = std::lower_bound(keys_.begin(), keys_.end(), key,
                                     [](const Key& a, std::string_view name) { return a.name < name; });
    return at != keys_.end() && at->name == key ? &at->value : nullptr;
}

void Gguf::refuse(std::string_view key, std::string expected, std::string fix) const {
    const Value* value = find(key);
    throw Error({.what = value ? "unsupported GGUF value" : "GGUF key missing",
                 .where = fmt::format("{}: {}", where_, printable(key)),
                 .expected = std::move(expected),
                 .got = value ? fmt::format("{}, {}", text_of(*value), row(value->type).one) : "",
                 .fix = std::move(fix)});
}

uint64_t Gguf::whole(std::string_view key, uint64_t least, uint64_t most) const {
    const Value* value = find(key);
    const auto number = value ? number_of(*value) : std::nullopt;
    if (!number || number->real || number->negative || number->magnitude < least || number->magnitude > most)
        refuse(key, fmt::format("a whole number from {} to {}", least, most));
    return number->magnitude;
}

double Gguf::number(std::string_view key, double above, double most) const {
    const Value* value = find(key);
    const auto number = value ? number_of(*value) : std::nullopt;
    if (!number || !(number->value > above && number->value <= most)) // false for NaN, too
        refuse(key, fmt::format("a number above {} and at most {}", above, most));
    return number->value;
}

bool Gguf::flag(std::string_view key) const {
    const Value* value = find(key);
    if (!value || value->type != Type::boolean) refuse(key, "true or false, as bool");
    return value->bytes[0] != 0;
}

std::string_view Gguf::text(std::string_view key) const {
    const Value* value = find(key);
    if (!value || value->type != Type::string) refuse(key, "a string");
    return value->bytes;
}

std::vector<std::string_view> Gguf::texts(std::string_view key) const {
    const Value* value = find(key);
    if (!value || value->type != Type::array || value->element != Type::string)
        refuse(key, "an array of strings");
    std::vector<std::string_view> texts;
    texts.reserve(value->count);
    std::string_view rest = value->bytes;
    for (uint64_t i = 0; i < value->count; ++i) {
        const auto length = load<uint64_t>(rest);
        texts.push_back(rest.substr(8, length));
        rest.remove_prefix(8 + length);
    }
    return texts;
}

std::vector<int32_t> Gguf::integers(std::string_view key) const {
    const Value* value = find(key);
    if (!value || value->type != Type::array || value->element != Type::i32)
        refuse(key, "an array of i32 numbers");
    std::vector<int32_t> integers(value->count);
    if (value->count) std::memcpy(integers.data(), value->bytes.data(), value->bytes.size());
    return integers;
}

std::string text_of(const Gguf::Value& value) {
    if (value.type == Gguf::Type::array) return fmt::format("{} {}", value.count, row(value.element).many);
    if (value.type == Gguf::Type::string) return "\"" + printable(value.bytes) + "\"";
    if (value.type == Gguf::Type::boolean) return value.bytes[0] ? "true" : "false";
    const auto number = number_of(value);
    if (value.type == Gguf::Type::f32) return fmt::format("{}", static_cast<float>(number->value));
    if (number->real) return fmt::format("{}", number->value);
    return fmt::format("{}{}", number->negative ? "-" : "", number->magnitude);
}

std::optional<DType> dtype_of_ggml(uint32_t id) {
    for (const DTypeId& entry : dtype_ids)
        if (entry.id == id) return entry.dtype;
    return std::nullopt;
}

std::optional<uint32_t> ggml_id_of(DType dtype) {
    for (const DTypeId& entry : dtype_ids)
        if (entry.dtype == dtype) return entry.id;
    return std::nullopt;
}

} // namespace fathom
