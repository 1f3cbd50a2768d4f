#include "server/author.h"

#include "base/error.h"
#include "server/prefixes.h"
#include "text/chat.h"

#include <algorithm>
#include <fmt/format.h>

namespace fathom::server {

namespace {
constexpr size_t MOST_SESSIONS = 16; // kept to branch from; the oldest goes when another begins
} // namespace

Author::Author(Served model, uint64_t cache_tokens, std::function<void()> on_steered)
    : model_(std::move(model)), shape_(model_.engine.trace_shape()), cache_tokens_(cache_tokens),
      on_steered_(std::move(on_steered)), thread_([this] { run(); }) {}

Author::~Author() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
    }
    stopped_ = true;
    asked_.notify_all();
    thread_.join();
    sessions_.clear();
}

void Author::generate(const trace::Request& request) {
    {
        const std::lock_guard lock(mutex_);
        request_ = request;
        failure_.clear();
        busy_ = true;
    }
    stopped_ = true; // what is under way
    asked_.notify_all();
}

void Author::stop() { stopped_ = true; }

void Author::steer(const std::vector<trace::Steered>& experts) {
    const std::lock_guard lock(mutex_);
    steered_ = experts;
}

void Author::watch(const trace::LayerWatch& watch) {
    const std::lock_guard lock(mutex_);
    watch_ = watch;
}

void Author::measure() {
    {
        const std::lock_guard lock(mutex_);
        measure_ = true;
        busy_ = true;
    }
    asked_.notify_all();
}

trace::Profile Author::profile() const {
    const std::lock_guard lock(mutex_);
    return profile_;
}

namespace {
trace::Profile measured(Engine& engine) {
    const StepProfile step = engine.profile();
    trace::Profile profile{.read_rate = step.read_rate};
    for (const StepProfile::Launch& launch : step.launches)
        profile.launches.push_back(
            {launch.label, launch.seconds, static_cast<double>(launch.bytes), launch.flops});
    if (profile.launches.empty())
        throw Error({.what = "this device has no clock for launches",
                     .where = engine.device_name(),
                     .expected = "timestamps on its compute queue",
                     .got = "none",
                     .fix = "choose another --device"});
    return profile;
}

Steering steering_of(const trace::Shape& shape, const std::vector<trace::Steered>& experts) {
    Steering steering;
    if (experts.empty()) return steering;
    steering.key.assign(shape.moe_layers.size() * shape.n_experts, 0);
    steering.factor.assign(steering.key.size(), 1);
    for (const trace::Steered& s : experts) {
        const size_t i = size_t{s.expert.layer} * shape.n_experts + s.expert.expert;
        steering.key[i] = s.key, steering.factor[i] = s.factor;
    }
    return steering;
}
} // namespace

void Author::apply(const Steering& steering) {
    model_.engine.set_steering(steering);
    if (on_steered_) on_steered_();
}

void Author::grant() {
    std::optional<std::vector<trace::Steered>> experts;
    std::optional<trace::LayerWatch> watch;
    {
        const std::lock_guard lock(mutex_);
        experts.swap(steered_);
        watch.swap(watch_);
    }
    if (watch) model_.engine.watch_layers(*watch);
    if (!experts) return;
    in_force_ = *experts;
    apply(steering_of(shape_, in_force_));
}

std::string Author::failure() const {
    const std::lock_guard lock(mutex_);
    return failure_;
}

void Author::run() {
    for (;;) {
        std::optional<trace::Request> request;
        {
            std::unique_lock lock(mutex_);
            busy_ = request_ || measure_;
            asked_.wait(lock, [&] { return ending_ || request_ || measure_; });
            if (ending_) return;
            request.swap(request_);
            if (!request) measure_ = false;
            stopped_ = false;
        }
        try {
            if (request) {
                serve(*request);
                continue;
            }
            trace::Profile profile = measured(model_.engine);
            const std::lock_guard lock(mutex_);
            profile_ = std::move(profile);
        } catch (const std::exception& error) {
            const std::lock_guard lock(mutex_);
            failure_ = error.what();
        }
    }
}

// Lets the oldest sessions go, all but `stays`, until it can have `more` tokens.
void Author::make_room(const Session& stays, uint64_t more) {
    if (cache_tokens_ == 0) return;
    const auto taken = [&] {
        uint64_t sum = more;
        for (const auto& [number, session] : sessions_) sum += session.position() + CACHE_PAGE;
        return sum;
    };
    for (auto it = sessions_.begin(); it != sessions_.end() && taken() > cache_tokens_;)
        it = &it->second == &stays ? std::next(it) : sessions_.erase(it);
}

Session& Author::session_for(const trace::Request& request) {
    while (sessions_.size() >= MOST_SESSIONS) sessions_.erase(sessions_.begin());
    const auto known = request.session ? sessions_.find(*request.session) : sessions_.end();
    if (request.session && known == sessions_.end())
        throw Error({.what = "this session is closed",
                     .expected = fmt::format("one of the last {}", MOST_SESSIONS),
                     .got = fmt::format("session {}", *request.session),
                     .fix = "begin a new one"});
    if (known == sessions_.end() || request.again) {
        Session fresh = model_.engine.open();
        const uint32_t number = fresh.number();
        Session& session = sessions_.emplace(number, std::move(fresh)).first->second;
        if (request.again) {
            std::vector<Token> before = known->second.tokens();
            before.resize(std::min<size_t>(request.keep, before.size()));
            make_room(session, before.size());
            session.feed(before);
        } else if (const auto bos = model_.bos; bos && !request.chat) { // a chat format has its own
            session.feed(std::vector<Token>{*bos});
        }
        return session;
    }
    if (request.keep == known->second.position() && !request.twice) return known->second;
    Session fork = known->second.fork(); // the past stays as it was, beside the new branch
    const uint32_t number = fork.number();
    Session& session = sessions_.emplace(number, std::move(fork)).first->second;
    session.rewind(std::min(request.keep, session.position()));
    return session;
}

void Author::serve(const trace::Request& request) {
    grant();
    if (request.again) {
        session_for(request);
        return;
    }
    if (!request.twice) return write(session_for(request), request);
    apply({});
    try {
        write(session_for(request), request);
    } catch (...) {
        apply(steering_of(shape_, in_force_));
        throw;
    }
    apply(steering_of(shape_, in_force_));
    if (!stopped_) write(session_for(request), request);
}

// A message behind what the session holds: cut from a longer conversation, after the mark that ended the
// answer before, or with it where that answer did not come to its end.
std::vector<Token> Author::turn(const Session& session, const std::string& text) const {
    using Role = ChatMessage::Role;
    const ChatFormat& format = model_.format();
    Conversation conversation;
    conversation.generate = true;
    if (session.position() != 0)
        conversation.messages = {{.role = Role::user, .content = ""},
                                 {.role = Role::assistant, .content = ""}};
    conversation.messages.push_back({.role = Role::user, .content = text});
    const std::vector<Token> tokens = format.encode(conversation, model_.tokenizer);
    if (session.position() == 0) return tokens;
    const std::vector<Token> stops = format.stop_tokens(model_.tokenizer);
    const auto is_stop = [&](Token t) { return std::find(stops.begin(), stops.end(), t) != stops.end(); };
    auto at = std::find_if(tokens.begin(), tokens.end(), is_stop);
    if (format.stop_is_next && at != tokens.end()) // that one begins the first question
        at = std::find_if(at + 1, tokens.end(), is_stop);
    if (at != tokens.end() && is_stop(session.tokens().back())) ++at;
    return {at, tokens.end()};
}

void Author::write(Session& session, const trace::Request& request) {
    session.sampling() = {.temperature = request.sampling.temperature,
                          .top_k = request.sampling.top_k,
                          .top_p = request.sampling.top_p,
                          .seed = request.sampling.seed,
                          .allowed = model_.allowed};
    std::vector<Token> tokens =
        request.chat ? turn(session, request.text) : model_.tokenizer.encode(request.text, Added::none);
    if (request.forced) tokens.push_back(*request.forced);
    make_room(session, std::min<uint64_t>(tokens.size() + uint64_t{request.sampling.max_tokens},
                                          model_.engine.context() - session.position()));
    if (!tokens.empty()) session.feed(tokens);
    if (session.position() == 0)
        throw Error({.what = "there is nothing to begin from",
                     .expected = "a text",
                     .got = "none, of a model that has no token to begin with",
                     .fix = "write something first"});
    std::vector<Token> ends = model_.engine.config().eos;
    if (request.chat)
        for (const Token stop : model_.format().stop_tokens(model_.tokenizer)) ends.push_back(stop);
    for (uint32_t n = 0; n < request.sampling.max_tokens && !stopped_; ++n) {
        if (!request.twice) grant();
        if (session.position() >= model_.engine.context()) break;
        const Token next = session.next();
        if (std::find(ends.begin(), ends.end(), next) != ends.end()) break;
    }
}

} // namespace fathom::server
