// The engine: loading, the thread that serves requests, and one step of the model.
#include "session/engine_impl.h"

#include "base/error.h"
#include "base/log.h"
#include "base/numbers.h"
#include "checkpoint/gguf.h"
#include "session/fit.h"
#include "session/tuning.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <pthread.h>

namespace fathom {

namespace {

constexpr uint32_t DEFAULT_CONTEXT = 4096;

// Names a model by its config (of GGUF: its keys that are no lists), a sample of every tensor, and what it
// was quantised to: enough to refuse another model's session.
std::string fingerprint_of(const ModelFiles& files, const std::string& quantize) {
    uint64_t hash = fnv1a(FNV1A_START, std::as_bytes(std::span(files.config)));
    hash = fnv1a(hash, std::as_bytes(std::span(quantize)));
    if (const Gguf* gguf = files.gguf())
        for (const auto& [name, value] : gguf->keys()) {
            hash = fnv1a(hash, std::as_bytes(std::span(name)));
            if (value.type != Gguf::Type::array) hash = fnv1a(hash, std::as_bytes(std::span(value.bytes)));
        }
    for (const TensorView& tensor : files.checkpoint.tensors()) {
        hash = fnv1a(hash, std::as_bytes(std::span(tensor.name)));
        hash = fnv1a(hash, tensor.data.first(std::min<size_t>(tensor.data.size(), 16)));
        files.checkpoint.drop(tensor); // one byte read may map megabytes around it
    }
    return fmt::format("{:016x}", hash);
}

std::string fingerprint_of(const SyntheticModel& model) {
    return fmt::format("{} {} {}", model.name, name_of(model.weights.dtype), model.weights.seed);
}

uint32_t choose_context(const ModelConfig& config, uint32_t wanted) {
    if (wanted > config.max_position)
        throw Error({.what = "the context is longer than the model's limit",
                     .where = "--context",
                     .expected = fmt::format("at most {} (max_position_embeddings)", config.max_position),
                     .got = fmt::format("{}", wanted),
                     .fix = "choose a smaller --context"});
    return wanted != 0 ? wanted : std::min(config.max_position, DEFAULT_CONTEXT);
}

} // namespace

uint64_t fnv1a(uint64_t hash, std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001B3ull;
    return hash;
}

namespace {
CacheFormat cache_format_of(const LoadOptions& options) {
    for (const CacheFormat format : CACHE_FORMATS)
        if (name_of(format) == options.cache_format) return format;
    throw Error({.what = "no such format of the cache",
                 .where = "cache_format",
                 .expected = "f32, f16 or q8",
                 .got = printable(options.cache_format),
                 .fix = "choose another --cache-type"});
}
} // namespace

std::unique_ptr<Executor> make_executor(const LoadOptions& options) {
    if (options.reference) return make_reference_executor();
    gpu::DeviceOptions device;
    device.select = options.device;
    device.lose_at_submit = options.lose_at_submit;
    device.staging =
        std::getenv("FATHOM_STAGING") != nullptr; // tests: upload as to a card without host-visible memory
    return make_gpu_executor(device);
}

ModelOptions model_options(const ModelConfig& config, const LoadOptions& options) {
    const uint32_t context = choose_context(config, options.context);
    const uint32_t cache_tokens = options.cache_tokens ? options.cache_tokens : 2 * context;
    if (cache_tokens < context)
        throw Error({.what = "the latent cache cannot hold one session",
                     .where = "cache_tokens",
                     .expected = fmt::format("at least the context, {}", context),
                     .got = fmt::format("{}", cache_tokens)});
    if (options.chunk == 0 || options.chunk > MAX_ROWS)
        throw Error({.what = "a prefill chunk out of range",
                     .where = "chunk",
                     .expected = fmt::format("1 to {}", MAX_ROWS),
                     .got = fmt::format("{}", options.chunk)});
    ModelOptions wanted{
        .context = context,
        .pages = div_up(cache_tokens, PAGE_TOKENS) + options.spare_contexts * div_up(context, PAGE_TOKENS),
        .chunk = options.chunk,
        .trace = options.trace,
        .cache_format = cache_format_of(options),
        .taps = options.taps,
        .weights = {.keep_mtp = options.keep_mtp, .experts_on_host = options.experts_on_host}};
    return wanted;
}

Engine::Impl::Impl(const FitQuestion& question, std::string name, Source again)
    : fingerprint(std::move(name)), pages(0), source(std::move(again)), options(question.options) {
    sequence_used.assign(MAX_SEQUENCES, false);
    executor = make_executor(options);
    load(question);
    in_flight = options.in_flight;
    if (in_flight == 0) in_flight = executor->gpu() && !executor->caps().cpu ? 2 : 1;
    in_flight = std::min(in_flight, uint32_t{SAMPLED_RING});
    if (!options.taps.empty()) in_flight = 1; // a tap keeps one step
    thread = std::thread([this] { run(); });
}

void Engine::Impl::load(const FitQuestion& question) {
    const ModelOptions wanted = model_options(question.config, question.options);
    context = wanted.context;
    chunk = wanted.chunk;
    device_name = executor->device_name();
    check_fit(question, *executor);
    model = std::make_unique<Model>(question.config, question.source(std::nullopt), wanted, *executor);
    pages = PagePool(wanted.pages);
    choose_kernels();
}

bool Engine::Impl::recover(const gpu::DeviceLost& loss) try {
    flight = {};
    kept.clear();
    ++epoch;
    if (device_epoch++ != 0) throw loss;
    log::warning("{}; loading the model again", loss.what());
    options.lose_at_submit = 0;
    model->forget_plans();
    executor.reset(); // its memory first: a device has not room for two
    executor = make_executor(options);
    source([&](const FitQuestion& question) { load(question); });
    upload_steering();
    model->watch(watch);
    return true;
} catch (...) {
    gone = std::current_exception();
    return false;
}

// As what its runs of tokens were when they first went through, so that their rows have the same bits.
void Engine::Impl::refresh(Session::Impl& s) {
    if (s.device_epoch == device_epoch) return;
    land();
    s.device_epoch = device_epoch;
    s.pages.clear(); // of a pool that is no more
    s.sampler_written = s.counts_valid = false;
    const std::vector<trace::TokenRecord> records = s.records;
    const std::vector<Tap> taps = s.taps;
    const auto silenced = std::exchange(listeners, {}); // they were told of these tokens before
    for (const Session::Impl::Segment& run : s.segments)
        for (uint32_t begin = run.begin; begin < run.end; begin += chunk) {
            const uint32_t end = std::min(run.end, begin + chunk);
            make_room(s, begin, end);
            run_rows(prefill_kind(begin, end, run.expanded), s, begin, end);
        }
    s.records = records;
    s.taps = taps;
    listeners = silenced;
}

// The tuner runs steps of the whole model, over pages that no session has yet.
void Engine::Impl::choose_kernels() {
    const uint32_t n = std::min(chunk, context);
    std::vector<uint32_t> taken;
    auto* table = reinterpret_cast<uint32_t*>(executor->mapped(model->page_tables));
    while (taken.size() * PAGE_TOKENS < n) {
        taken.push_back(pages.take());
        table[taken.size() - 1] = taken.back();
    }
    std::vector<StepRow> rows;
    for (uint32_t i = 0; i < n; ++i) rows.push_back({i * 7919 % model->config.vocab_size, i});
    attention_costs = choose_kernels_for(*model, *executor, options.tier, rows, options.tuning);
    for (const uint32_t page : taken) pages.release(page);
}

Engine::Impl::~Impl() {
    if (!thread.joinable()) return;
    {
        const std::lock_guard lock(request_mutex);
        stopping = true;
    }
    request_added.notify_all();
    thread.join();
    try {
        land();
    } catch (const gpu::DeviceLost&) { // whoever waited for its results was told
    }
}

void Engine::Impl::run() {
    pthread_setname_np(pthread_self(), "fathom engine"); // for debuggers, and for a test that weighs it
    for (;;) {
        {
            std::unique_lock lock(request_mutex);
            request_added.wait(lock, [&] { return stopping || !requests.empty(); });
            // Those who were served together ask again together, within microseconds: worth waiting for.
            request_added.wait_for(lock, std::chrono::microseconds(500),
                                   [&] { return stopping || requests.size() >= served_together; });
            if (stopping) return;
        }
        step();
    }
}

void Engine::Impl::finish(Session::Impl& s, std::exception_ptr error) {
    {
        const std::lock_guard lock(request_mutex);
        s.error = std::move(error);
        s.request = Session::Impl::Request::none;
        std::erase(requests, &s);
    }
    request_done.notify_all();
}

// A request that meets a lost device stays, and is served by the next one.
bool Engine::Impl::step() {
    const std::lock_guard device(device_mutex);
    if (!gone) try {
            return step_once();
        } catch (const gpu::DeviceLost& loss) {
            if (recover(loss)) return true;
        }
    std::vector<Session::Impl*> waiting;
    {
        const std::lock_guard lock(request_mutex);
        waiting = requests;
    }
    for (Session::Impl* s : waiting) finish(*s, gone);
    return !waiting.empty();
}

// All sessions that generate share one step, and before it one chunk of one session that reads a prompt goes
// ahead: they take turns, so that neither a long prompt nor many of them keep the others waiting for longer
// than a chunk. A session that was finished belongs to its owner again and is not looked at any more.
bool Engine::Impl::step_once() {
    using Request = Session::Impl::Request;
    std::vector<Session::Impl*> runnable;
    Session::Impl* reader = nullptr;
    {
        const std::lock_guard lock(request_mutex);
        runnable = requests;
        const auto reads = [](const Session::Impl* s) { return s->request != Request::next; };
        if (const auto it = std::find_if(requests.begin(), requests.end(), reads); it != requests.end()) {
            reader = *it;
            std::rotate(it, it + 1, requests.end()); // its next turn is behind the others'
        }
    }
    std::erase_if(runnable, [&](const Session::Impl* s) { return s->request != Request::next; });
    // whoever is served comes to the end of the queue: the others have the next step
    if (runnable.size() > MAX_DECODE_ROWS) runnable.resize(MAX_DECODE_ROWS);
    if (reader) read_chunk(*reader);
    std::vector<Session::Impl*> ready;
    for (Session::Impl* s : runnable) try {
            if (s->cancelled) throw Cancelled();
            refresh(*s);
            if (sampler_changed(*s)) land();
            if (deliver_kept(*s)) continue;
            make_room(*s, s->cached, s->cached + 1);
            write_sampler(*s);
            ready.push_back(s);
        } catch (const gpu::DeviceLost&) {
            throw;
        } catch (...) {
            finish(*s, std::current_exception());
        }
    if (!ready.empty()) try {
            decode(ready);
        } catch (const gpu::DeviceLost&) {
            throw;
        } catch (...) {
            for (Session::Impl* s : ready) finish(*s, std::current_exception());
        }
    return reader || !runnable.empty();
}

void Engine::Impl::read_chunk(Session::Impl& s) try {
    if (s.cancelled) throw Cancelled();
    land();
    refresh(s);
    if (s.request == Session::Impl::Request::prefill)
        prefill_chunk(s);
    else
        logits_chunk(s);
} catch (const gpu::DeviceLost&) {
    throw;
} catch (...) {
    finish(s, std::current_exception());
}

StepKind Engine::Impl::prefill_kind(uint32_t begin, uint32_t end, bool expanded) const {
    const uint32_t bucket = bucket_for(end - begin);
    return {StepKind::Mode::prefill, bucket, expanded, expanded ? history_blocks(bucket, begin) : 0};
}

void Engine::Impl::prefill_chunk(Session::Impl& s) {
    const uint32_t begin = s.cached, end = std::min(s.prefill_end, begin + chunk);
    const bool expanded = attention_costs.worth_expanding(end - begin, begin);
    make_room(s, begin, end);
    run_rows(prefill_kind(begin, end, expanded), s, begin, end);
    s.cached = end;
    s.add_segment({begin, end, expanded});
    if (end == s.prefill_end) finish(s, nullptr);
}

void Engine::Impl::logits_chunk(Session::Impl& s) {
    const auto size = static_cast<uint32_t>(s.tokens.size());
    const uint32_t begin = s.cached, end = std::min(size, begin + MAX_DECODE_ROWS), n = end - begin;
    make_room(s, begin, end);
    run_rows({StepKind::Mode::logits, bucket_for(n)}, s, begin, end);
    const uint32_t stride = model->logits_stride;
    std::vector<float> values(uint64_t{n} * stride);
    executor->download({model->logits.address, values.size() * 4}, std::as_writable_bytes(std::span(values)));
    for (uint32_t i = 0; i < n; ++i)
        s.on_logits(begin + i, std::span(values).subspan(uint64_t{i} * stride, model->config.vocab_size));
    s.cached =
        std::min(end, size - 1); // the last token always goes through decode again: one path to sampling
    if (s.cached > begin) s.add_segment({begin, s.cached, false});
    s.counts_valid = false;
    if (end == size) finish(s, nullptr);
}

void Engine::Impl::run_rows(StepKind kind, Session::Impl& s, uint32_t begin, uint32_t end) {
    std::vector<StepRow> rows;
    for (uint32_t i = begin; i < end; ++i) rows.push_back({s.tokens[i], i, s.sequence});
    model->write_step(kind, rows, trace_slot);
    const Plan& plan = model->plan(kind);
    executor->run(plan);
    for (uint32_t i = begin; i < end; ++i)
        keep_record(s, record_of(kind.mode, trace_slot + i - begin, s.tokens[i], i));
    collect_taps(plan, std::vector<Session::Impl*>(rows.size(), &s));
    trace_slot += end - begin;
}

void Engine::Impl::collect_taps(const Plan& plan, std::span<Session::Impl* const> rows) const {
    for (const TapBuffer& tap : model->taps(plan))
        for (uint32_t i = 0; i < rows.size(); ++i) {
            auto& taps = rows[i]->taps;
            auto it =
                std::find_if(taps.begin(), taps.end(), [&](const Tap& t) { return t.name == tap.name; });
            if (it == taps.end()) it = taps.insert(taps.end(), {tap.name, 0, tap.cols * tap.repeat, {}});
            const uint64_t n = uint64_t{tap.cols} * tap.repeat;
            const auto* values = reinterpret_cast<const float*>(executor->mapped(tap.view)) + i * n;
            it->values.insert(it->values.end(), values, values + n);
            ++it->rows;
        }
}

View Engine::Impl::page_view(uint32_t layer, uint32_t page) const {
    return {model->cache[layer].address + uint64_t{page} * model->page_bytes, model->page_bytes};
}

void Engine::Impl::make_room(Session::Impl& s, uint32_t begin, uint32_t end) {
    auto* table = reinterpret_cast<uint32_t*>(executor->mapped(model->page_tables)) +
                  uint64_t{s.sequence} * model->max_pages;
    while (s.pages.size() * PAGE_TOKENS < end) {
        s.pages.push_back(pages.take());
        table[s.pages.size() - 1] = s.pages.back();
    }
    for (uint32_t i = begin / PAGE_TOKENS; i * PAGE_TOKENS < end; ++i) {
        if (!pages.is_shared(s.pages[i])) continue;
        const uint32_t copy = pages.take();
        for (uint32_t layer = 0; layer < model->config.n_layers; ++layer)
            executor->copy(page_view(layer, s.pages[i]), page_view(layer, copy));
        pages.release(s.pages[i]);
        table[i] = s.pages[i] = copy;
    }
}

Engine::Engine(const ModelFiles& files, const LoadOptions& options)
    : impl_(std::make_unique<Impl>(
          fit_question(files, options), fingerprint_of(files, options.quantize),
          [path = files.path, options](const std::function<void(const FitQuestion&)>& load) {
              const ModelFiles again = open_model(path);
              load(fit_question(again, options));
          })) {}
Engine::Engine(const SyntheticModel& model, const LoadOptions& options)
    : impl_(std::make_unique<Impl>(fit_question(model, options), fingerprint_of(model),
                                   [model, options](const std::function<void(const FitQuestion&)>& load) {
                                       load(fit_question(model, options));
                                   })) {}
Engine::~Engine() = default;
const ModelConfig& Engine::config() const { return impl_->model->config; }
const std::string& Engine::device_name() const { return impl_->device_name; }
uint32_t Engine::context() const { return impl_->context; }
bool Engine::step() { return impl_->step(); }

void Engine::next(std::span<Session* const> sessions) {
    std::vector<Session::Impl*> all;
    for (Session* session : sessions) all.push_back(session->impl_.get());
    impl_->next(all);
}

void Engine::examine(const Session& session,
                     const std::function<void(Model&, Executor&, uint32_t sequence)>& work) {
    const Impl::Quiet quiet(*impl_, *session.impl_);
    work(*impl_->model, *impl_->executor, session.impl_->sequence);
}

uint32_t Engine::dispatches_per_token() const {
    const Impl::Quiet quiet(*impl_);
    return static_cast<uint32_t>(impl_->model->plan({StepKind::Mode::decode, 1}).ops().size());
}

MemoryReport Engine::memory() const {
    const Impl::Quiet quiet(*impl_);
    MemoryReport report;
    for (const auto& owner : impl_->executor->memory()) {
        report.items.push_back({owner.owner, owner.bytes, owner.reserved});
        report.total += owner.reserved;
    }
    if (const gpu::Device* device = impl_->executor->gpu()) report.device = device->info().memory;
    return report;
}

void Engine::set_steering(const Steering& steering) {
    const Model& m = *impl_->model;
    const size_t n = size_t{m.n_moe_layers} * m.config.n_routed_experts;
    const auto in_range = [](float v) {
        return std::abs(v) <= 1e30f;
    }; // the router's own marks lie beyond, at 1e38
    for (const auto* values : {&steering.key, &steering.factor})
        if (!values->empty() &&
            (values->size() != n || !std::all_of(values->begin(), values->end(), in_range)))
            throw Error(
                {.what = "a steering table of the wrong shape or with a value out of range",
                 .where = "set_steering",
                 .expected = fmt::format("{} numbers (MoE layers x routed experts) from -1e30 to 1e30", n),
                 .got = fmt::format("{} numbers", values->size())});
    std::vector<float> pairs;
    for (size_t i = 0; i < n; ++i) {
        pairs.push_back(steering.key.empty() ? 0 : steering.key[i]);
        pairs.push_back(steering.factor.empty() ? 1 : steering.factor[i]);
    }
    const Impl::Quiet quiet(*impl_);
    ++impl_->epoch;
    impl_->steering = std::move(pairs);
    impl_->upload_steering();
}

void Engine::Impl::upload_steering() {
    if (steering.empty()) return;
    executor->upload(model->control, 0, std::as_bytes(std::span(steering)));
    executor->flush();
}

Session Engine::open(bool told) {
    const Impl::Quiet quiet(*impl_);
    const auto slot = std::find(impl_->sequence_used.begin(), impl_->sequence_used.end(), false);
    if (slot == impl_->sequence_used.end())
        throw Error({.what = "too many open sessions",
                     .expected = fmt::format("at most {}", MAX_SEQUENCES),
                     .fix = "close one first"});
    *slot = true;
    auto session = std::make_unique<Session::Impl>();
    session->engine = impl_.get();
    session->device_epoch = impl_->device_epoch;
    session->sequence = static_cast<uint32_t>(slot - impl_->sequence_used.begin());
    session->number = told ? impl_->next_session++ : Session::Impl::UNTOLD;
    impl_->publish({.kind = trace::Event::Kind::opened, .session = session->number});
    impl_->executor->zero(
        {impl_->model->counts.address + 4ull * session->sequence * impl_->model->config.vocab_size,
         4ull * impl_->model->config.vocab_size});
    return Session(std::move(session));
}

} // namespace fathom
