// A session on disk: a safetensors file with its tokens, the rows of its latent cache, and its sampling
// parameters, so that resuming equals going on. The file names its model; another model's is refused, and so
// is one whose checksum is wrong. Reading is as hardened as for any checkpoint, writing goes through a
// temporary file.
#include "session/engine_impl.h"

#include "base/error.h"
#include "base/json.h"
#include "base/numbers.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace fathom {

namespace {

constexpr std::string_view FORMAT_NAME = "fathom-session-2";

nlohmann::json to_json(const SamplingParams& p) {
    return {{"temperature", p.temperature},
            {"top_k", p.top_k},
            {"top_p", p.top_p},
            {"min_p", p.min_p},
            {"repetition_penalty", p.repetition_penalty},
            {"presence_penalty", p.presence_penalty},
            {"frequency_penalty", p.frequency_penalty},
            {"seed", p.seed},
            {"bias", p.bias},
            {"allowed", p.allowed}};
}

SamplingParams sampling_from(const nlohmann::json& j) {
    SamplingParams p;
    j.at("temperature").get_to(p.temperature);
    j.at("top_k").get_to(p.top_k);
    j.at("top_p").get_to(p.top_p);
    j.at("min_p").get_to(p.min_p);
    j.at("repetition_penalty").get_to(p.repetition_penalty);
    j.at("presence_penalty").get_to(p.presence_penalty);
    j.at("frequency_penalty").get_to(p.frequency_penalty);
    j.at("seed").get_to(p.seed);
    j.at("bias").get_to(p.bias);
    j.at("allowed").get_to(p.allowed);
    return p;
}

// What a saved session holds, checked against the engine it is loaded into.
struct Stored {
    std::vector<Token> tokens;
    std::vector<uint32_t> segments; // begin, end, expanded
    SamplingParams sampling;
};

[[noreturn]] void refuse(const std::filesystem::path& path, std::string what, std::string expected,
                         std::string got) {
    throw Error({.what = std::move(what),
                 .where = printable(path.string(), 400),
                 .expected = std::move(expected),
                 .got = std::move(got),
                 .fix = "load a file that /save wrote with this very model"});
}

const TensorView& tensor_of(const Checkpoint& file, const std::filesystem::path& path,
                            const std::string& name, DType dtype, size_t rank) {
    const TensorView* tensor = file.find(name);
    if (!tensor || tensor->dtype != dtype || tensor->shape.size() != rank)
        refuse(path, "not a saved session",
               fmt::format("a tensor \"{}\" of {} and rank {}", name, name_of(dtype), rank),
               tensor ? fmt::format("{} {}", name_of(tensor->dtype), shape_text(tensor->shape)) : "none");
    return *tensor;
}

std::vector<uint32_t> words_of(const TensorView& tensor) {
    std::vector<uint32_t> words(tensor.data.size() / 4);
    const auto bytes = std::as_writable_bytes(std::span(words));
    std::copy_n(tensor.data.begin(), bytes.size(), bytes.begin());
    return words;
}

// Of all tensors but the checksum itself, in any order.
uint64_t checksum_of(std::span<const TensorView> tensors) {
    uint64_t sum = 0;
    for (const TensorView& tensor : tensors)
        if (tensor.name != "checksum")
            sum += fnv1a(fnv1a(FNV1A_START, std::as_bytes(std::span(tensor.name))), tensor.data);
    return sum;
}

void check_checksum(const Checkpoint& file, const std::filesystem::path& path) {
    const TensorView& tensor = tensor_of(file, path, "checksum", DType::u64, 1);
    uint64_t stored = 0, computed = checksum_of(file.tensors());
    const auto bytes = std::as_writable_bytes(std::span(&stored, 1));
    std::copy_n(tensor.data.begin(), std::min(tensor.data.size(), bytes.size()), bytes.begin());
    if (stored != computed)
        refuse(path, "a damaged saved session", fmt::format("checksum {:016x}", stored),
               fmt::format("{:016x}", computed));
}

Stored read_stored(const Checkpoint& file, const std::filesystem::path& path, const Engine::Impl& engine) {
    Stored stored;
    const TensorView& about = tensor_of(file, path, "about", DType::u8, 1);
    const nlohmann::json json =
        parse_json({reinterpret_cast<const char*>(about.data.data()), about.data.size()},
                   printable(path.string(), 400) + ": about");
    try {
        if (json.at("format").get<std::string>() != FORMAT_NAME)
            refuse(path, "a saved session of another version", std::string(FORMAT_NAME),
                   json_text(json.at("format")));
        if (json.at("model").get<std::string>() != engine.fingerprint)
            refuse(path, "a saved session of another model", "model " + engine.fingerprint,
                   json_text(json.at("model")));
        if (const auto cache = json.at("cache").get<std::string>();
            cache != name_of(engine.model->cache_format))
            refuse(path, "a saved session with another latent cache",
                   fmt::format("a cache of {}", name_of(engine.model->cache_format)), printable(cache));
        check_checksum(file, path);
        stored.sampling = sampling_from(json.at("sampling"));
    } catch (const nlohmann::json::exception& error) {
        refuse(path, "not a saved session", "the keys of a saved session in \"about\"",
               json_reason(error.what()));
    }
    stored.tokens = words_of(tensor_of(file, path, "tokens", DType::u32, 1));
    stored.segments = words_of(tensor_of(file, path, "segments", DType::u32, 2));
    const uint32_t vocab = engine.model->config.vocab_size;
    if (stored.tokens.size() > engine.context)
        refuse(path, "the saved session is longer than the context",
               fmt::format("at most {} tokens", engine.context),
               fmt::format("{} tokens; use a longer --context", stored.tokens.size()));
    if (std::any_of(stored.tokens.begin(), stored.tokens.end(), [&](Token t) { return t >= vocab; }))
        refuse(path, "a saved session with a token out of range", fmt::format("tokens below {}", vocab),
               "a larger one");
    uint32_t cached = 0; // the segments must cover the cached rows one after the other
    for (size_t i = 0; i + 2 < stored.segments.size(); i += 3) {
        if (stored.segments[i] != cached || stored.segments[i + 1] <= cached || stored.segments[i + 2] > 1)
            refuse(path, "a damaged saved session", "segments in order", fmt::format("segment {}", i / 3));
        cached = stored.segments[i + 1];
    }
    if (stored.segments.size() % 3 != 0 || cached >= std::max<size_t>(stored.tokens.size(), 1))
        refuse(path, "a damaged saved session", "segments over all tokens but the last",
               fmt::format("{} of {}", cached, stored.tokens.size()));
    return stored;
}

} // namespace

void Session::save(const std::filesystem::path& path) const {
    const Impl& s = *impl_;
    Engine::Impl& engine = *s.engine;
    const Model& model = *engine.model;
    const nlohmann::json about = {{"format", FORMAT_NAME},
                                  {"model", engine.fingerprint},
                                  {"cache", name_of(model.cache_format)},
                                  {"sampling", to_json(s.sampling)}};
    const std::string about_text = about.dump();
    std::vector<uint32_t> segments;
    for (const auto& segment : s.segments)
        segments.insert(segments.end(), {segment.begin, segment.end, segment.expanded});
    const uint64_t row_bytes = model.row_bytes;
    std::vector<std::vector<std::byte>> rows(model.config.n_layers);
    {
        const Engine::Impl::Quiet quiet(engine, *impl_);
        for (uint32_t layer = 0; layer < model.config.n_layers; ++layer) {
            rows[layer].resize(s.cached * row_bytes);
            for (uint32_t first = 0; first < s.cached; first += PAGE_TOKENS) {
                const uint64_t bytes = std::min(s.cached - first, uint32_t{PAGE_TOKENS}) * row_bytes;
                engine.executor->download(engine.page_view(layer, s.pages[first / PAGE_TOKENS]),
                                          std::span(rows[layer]).subspan(first * row_bytes, bytes));
            }
        }
    }
    std::vector<TensorView> tensors;
    tensors.push_back({"about", DType::u8, {about_text.size()}, std::as_bytes(std::span(about_text)), ""});
    tensors.push_back({"tokens", DType::u32, {s.tokens.size()}, std::as_bytes(std::span(s.tokens)), ""});
    tensors.push_back(
        {"segments", DType::u32, {segments.size() / 3, 3}, std::as_bytes(std::span(segments)), ""});
    for (uint32_t layer = 0; layer < model.config.n_layers; ++layer)
        tensors.push_back(
            {fmt::format("cache.{}", layer), DType::u8, {s.cached, row_bytes}, rows[layer], ""});
    const uint64_t checksum = checksum_of(tensors);
    tensors.push_back({"checksum", DType::u64, {1}, std::as_bytes(std::span(&checksum, 1)), ""});
    write_safetensors(path, tensors);
}

void Session::load(const std::filesystem::path& path) {
    Engine::Impl& engine = *impl_->engine;
    const Model& model = *engine.model;
    const Checkpoint file = Checkpoint::open(path);
    const Stored stored = read_stored(file, path, engine);
    const auto cached = stored.segments.empty() ? 0 : stored.segments[stored.segments.size() - 2];
    std::vector<const TensorView*> rows;
    for (uint32_t layer = 0; layer < model.config.n_layers; ++layer) {
        rows.push_back(&tensor_of(file, path, fmt::format("cache.{}", layer), DType::u8, 2));
        const std::vector<uint64_t> shape{cached, model.row_bytes};
        if (rows.back()->shape != shape)
            refuse(path, "a damaged saved session", shape_text(shape), shape_text(rows.back()->shape));
    }
    Impl& s = *impl_;
    const Engine::Impl::Quiet quiet(engine, s);
    const auto own = static_cast<uint32_t>(std::count_if(
        s.pages.begin(), s.pages.end(), [&](uint32_t page) { return !engine.pages.is_shared(page); }));
    const uint32_t needed = div_up(cached, PAGE_TOKENS);
    engine.pages.require(
        needed - std::min(needed, own)); // nothing has changed so far, and from here on nothing is refused
    for (const uint32_t page : s.pages) engine.pages.release(page);
    s.pages.clear();
    s.segments.clear();
    s.candidates.clear();
    engine.make_room(s, 0, cached);
    const uint64_t row_bytes = model.row_bytes;
    for (uint32_t layer = 0; layer < model.config.n_layers; ++layer)
        for (uint32_t first = 0; first < cached; first += PAGE_TOKENS) {
            const uint64_t bytes = std::min(cached - first, uint32_t{PAGE_TOKENS}) * row_bytes;
            engine.executor->upload(engine.page_view(layer, s.pages[first / PAGE_TOKENS]), 0,
                                    rows[layer]->data.subspan(first * row_bytes, bytes));
        }
    engine.executor->flush();
    ++s.changes;
    s.tokens = stored.tokens;
    s.cached = cached;
    for (size_t i = 0; i < stored.segments.size(); i += 3)
        s.segments.push_back({stored.segments[i], stored.segments[i + 1], stored.segments[i + 2] != 0});
    s.sampling = stored.sampling;
    s.counts_valid = false;
}

} // namespace fathom
