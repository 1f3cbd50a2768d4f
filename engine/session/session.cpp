// Sessions: what the owner calls. Work on the device is handed to the engine's thread; see engine_impl.h.
#include "session/engine_impl.h"

#include "base/error.h"
#include "base/numbers.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace fathom {

Session::Impl::~Impl() {
    if (!engine) return;
    const std::lock_guard lock(engine->device_mutex);
    try {
        engine->land();
    } catch (const gpu::DeviceLost&) { // whoever waited for its results was told
    }
    if (device_epoch == engine->device_epoch)
        for (const uint32_t page : pages) engine->pages.release(page);
    engine->kept.erase(this);
    engine->publish({.kind = trace::Event::Kind::closed, .session = number});
    engine->sequence_used[sequence] = false;
}

void Engine::Impl::serve(std::span<Session::Impl* const> sessions, Session::Impl::Request wanted) {
    std::unique_lock lock(request_mutex);
    for (Session::Impl* s : sessions) {
        s->request = wanted;
        s->error = nullptr;
        requests.push_back(s);
    }
    request_added.notify_all();
    request_done.wait(lock, [&] {
        return std::all_of(sessions.begin(), sessions.end(),
                           [](const Session::Impl* s) { return s->request == Session::Impl::Request::none; });
    });
}

void Session::Impl::serve(Request wanted) {
    Impl* const self = this;
    engine->serve({&self, 1}, wanted);
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
}

void Session::Impl::prefill_to(uint32_t end) {
    if (cached >= end) return;
    prefill_end = end;
    serve(Request::prefill);
}

void Session::Impl::append(std::span<const Token> added) {
    const uint32_t vocab = engine->model->config.vocab_size;
    for (const Token token : added)
        if (token >= vocab)
            throw Error({.what = "a token is out of range",
                         .expected = fmt::format("below {} (the vocabulary)", vocab),
                         .got = fmt::format("{}", token)});
    if (added.size() > engine->context - tokens.size())
        throw Error({.what = "the context is full",
                     .where = "this session",
                     .expected = fmt::format("at most {} tokens", engine->context),
                     .got = fmt::format("{} and {} more", tokens.size(), added.size()),
                     .fix = fmt::format("use a longer --context (this model allows {}), or a shorter text",
                                        engine->model->config.max_position)});
    tokens.insert(tokens.end(), added.begin(), added.end());
    ++changes;
}

void Session::Impl::undo_to(const Mark& before) {
    ++changes;
    tokens.resize(before.size);
    engine->publish({.kind = trace::Event::Kind::rewound, .session = number, .position = before.size});
    cached = std::min(cached, before.cached);
    segments.resize(std::min(segments.size(), before.segments));
    while (!segments.empty() &&
           segments.back().end > cached) { // a run that was being extended ends where it ended
        segments.back().end = cached;
        if (segments.back().begin < cached) break;
        segments.pop_back();
    }
    counts_valid = false;
    release_pages();
}

void Session::Impl::release_pages() {
    const std::lock_guard lock(engine->device_mutex);
    if (device_epoch != engine->device_epoch) return; // refresh() makes new ones
    engine->land();
    while (pages.size() > div_up(cached, PAGE_TOKENS)) {
        engine->pages.release(pages.back());
        pages.pop_back();
    }
}

void Session::feed(std::span<const Token> tokens) {
    Impl& s = *impl_;
    s.cancelled = false;
    s.taps.clear();
    const Impl::Mark before = s.mark();
    s.append(tokens);
    try {
        if (before.size > 0)
            s.prefill_to(before.size - 1); // what a rewind left to repeat is a run of its own, as it was
        if (!s.tokens.empty()) s.prefill_to(static_cast<uint32_t>(s.tokens.size()) - 1);
    } catch (...) {
        s.undo_to(before);
        throw;
    }
}

void Session::Impl::check_next() const {
    if (tokens.empty())
        throw Error({.what = "there is nothing to continue",
                     .where = "this session",
                     .expected = "at least one token",
                     .fix = "feed a prompt first (its beginning-of-sentence token, at least)"});
    if (tokens.size() >= engine->context)
        throw Error({.what = "the context is full",
                     .where = "this session",
                     .expected = fmt::format("at most {} tokens", engine->context),
                     .got = fmt::format("{} and one more", tokens.size()),
                     .fix = fmt::format("use a longer --context (this model allows {})",
                                        engine->model->config.max_position)});
}

// A session that fails is as before; the others have their token.
void Engine::Impl::next(std::span<Session::Impl* const> sessions) {
    std::vector<Session::Impl::Mark> before;
    for (Session::Impl* s : sessions) {
        s->cancelled = false;
        s->taps.clear();
        s->check_next();
        before.push_back(s->mark());
    }
    std::exception_ptr first;
    const auto failed = [&](size_t i, std::exception_ptr error) {
        sessions[i]->undo_to(before[i]);
        if (!first) first = std::move(error);
    };
    std::vector<Session::Impl*> ready;
    for (size_t i = 0; i < sessions.size(); ++i) try {
            sessions[i]->prefill_to(before[i].size - 1); // what a rewind left to repeat
            ready.push_back(sessions[i]);
        } catch (...) {
            failed(i, std::current_exception());
        }
    serve(ready, Session::Impl::Request::next);
    for (size_t i = 0; i < sessions.size(); ++i)
        if (sessions[i]->error) failed(i, std::exchange(sessions[i]->error, nullptr));
    if (first) std::rethrow_exception(first);
}

Token Session::next() {
    Impl* const self = impl_.get();
    self->engine->next({&self, 1});
    return self->tokens.back();
}

void Session::Impl::run_logits(std::span<const Token> added,
                               std::function<void(uint32_t, std::span<const float>)> sink) {
    cancelled = false;
    taps.clear();
    const Mark before = mark();
    append(added);
    if (added.empty()) return;
    try {
        if (before.size > 0) prefill_to(before.size - 1);
        on_logits = std::move(sink);
        serve(Request::logits);
    } catch (...) {
        undo_to(before);
        throw;
    }
}

std::vector<float> Session::logits(std::span<const Token> tokens) {
    const uint32_t size = position();
    std::vector<float> all;
    impl_->run_logits(tokens, [&](uint32_t position, std::span<const float> row) {
        if (position >= size) all.insert(all.end(), row.begin(), row.end());
    });
    return all;
}

std::vector<float> Session::score(std::span<const Token> tokens) {
    const uint32_t size = position();
    std::vector<float> scores(tokens.size(), 0.0f);
    impl_->run_logits(tokens, [&](uint32_t position, std::span<const float> row) {
        if (position + 1 < size || position + 1 - size >= scores.size())
            return; // not the predecessor of a scored token
        const float largest = *std::max_element(row.begin(), row.end());
        double sum = 0;
        for (const float logit : row) sum += std::exp(double(logit) - largest);
        scores[position + 1 - size] =
            static_cast<float>(double(row[impl_->tokens[position + 1]]) - largest - std::log(sum));
    });
    return scores;
}

void Session::rewind(uint32_t position, bool exact) {
    Impl& s = *impl_;
    if (position > s.tokens.size())
        throw Error({.what = "cannot rewind forwards",
                     .expected = fmt::format("at most {}, the session's length", s.tokens.size()),
                     .got = fmt::format("{}", position)});
    ++s.changes;
    s.tokens.resize(position);
    s.engine->publish({.kind = trace::Event::Kind::rewound, .session = s.number, .position = position});
    s.candidates.clear();
    s.counts_valid = false;
    s.cached = std::min(s.cached, position == 0 ? 0 : position - 1);
    while (!s.segments.empty() && s.segments.back().end > s.cached) {
        Impl::Segment& last = s.segments.back();
        // part of an expanded run has not the bits of a shorter one
        if (last.begin >= s.cached || (last.expanded && exact)) {
            s.cached = std::min(s.cached, last.begin);
            s.segments.pop_back();
        } else {
            last.end = s.cached;
        }
    }
    s.release_pages();
}

Session Session::fork() const {
    Engine::Impl& engine = *impl_->engine;
    const Engine::Impl::Quiet quiet(engine, *impl_);
    const auto slot = std::find(engine.sequence_used.begin(), engine.sequence_used.end(), false);
    if (slot == engine.sequence_used.end())
        throw Error({.what = "too many open sessions",
                     .expected = fmt::format("at most {}", MAX_SEQUENCES),
                     .fix = "close one first"});
    *slot = true;
    auto copy = std::make_unique<Impl>();
    copy->engine = &engine;
    copy->sequence = static_cast<uint32_t>(slot - engine.sequence_used.begin());
    copy->number = engine.next_session++;
    engine.publish({.kind = trace::Event::Kind::forked,
                    .session = copy->number,
                    .other = impl_->number,
                    .position = position()});
    copy->tokens = impl_->tokens;
    copy->cached = impl_->cached;
    copy->segments = impl_->segments;
    copy->pages = impl_->pages;
    copy->sampling = impl_->sampling;
    copy->candidates = impl_->candidates;
    copy->counts_valid = false;
    copy->device_epoch = engine.device_epoch;
    for (const uint32_t page : copy->pages) engine.pages.share(page);
    auto* table = reinterpret_cast<uint32_t*>(engine.executor->mapped(engine.model->page_tables)) +
                  uint64_t{copy->sequence} * engine.model->max_pages;
    std::copy(copy->pages.begin(), copy->pages.end(), table);
    return Session(std::move(copy));
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

void Session::cancel() { impl_->cancelled = true; }
uint32_t Session::position() const { return static_cast<uint32_t>(impl_->tokens.size()); }
const std::vector<Token>& Session::tokens() const { return impl_->tokens; }
SamplingParams& Session::sampling() { return impl_->sampling; }
std::span<const Candidate> Session::candidates() const { return impl_->candidates; }
std::vector<trace::TokenRecord> Session::take_records() { return std::exchange(impl_->records, {}); }
std::span<const Tap> Session::taps() const { return impl_->taps; }

} // namespace fathom
