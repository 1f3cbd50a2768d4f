#include "cli/live_source.h"

#include "base/error.h"
#include "cli/recorder.h"

#include <algorithm>

namespace fathom::cli {

namespace {
constexpr float SILENT = -1e9f;      // on a key: below every other
constexpr size_t MOST_SESSIONS = 16; // kept to branch from; the oldest goes when another begins
} // namespace

LiveSource::LiveSource(const LoadedModel& model)
    : model_(model), identity_(identity_of(model, {})), thread_([this] { run(); }) {
    model_.engine->listen(queue_);
}

LiveSource::~LiveSource() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
    }
    stopped_ = true;
    asked_.notify_all();
    thread_.join();
    sessions_.clear();
    model_.engine->ignore(queue_);
}

std::string LiveSource::text(Token token) const {
    return text_of(model_, token);
}

void LiveSource::generate(const viewer::Request& request) {
    {
        const std::lock_guard lock(mutex_);
        request_ = request;
        failure_.clear();
        busy_ = true;
    }
    stopped_ = true; // what is under way
    asked_.notify_all();
}

void LiveSource::stop() { stopped_ = true; }

void LiveSource::silence(const std::vector<viewer::Pin>& experts) {
    const std::lock_guard lock(mutex_);
    silenced_ = experts;
}

void LiveSource::steer() {
    std::optional<std::vector<viewer::Pin>> wanted;
    {
        const std::lock_guard lock(mutex_);
        wanted.swap(silenced_);
    }
    if (!wanted) return;
    const trace::Shape& shape = identity_.shape;
    Steering steering;
    if (!wanted->empty()) {
        const size_t experts = shape.moe_layers.size() * shape.n_experts;
        steering.key.assign(experts, 0), steering.factor.assign(experts, 1);
    }
    for (const viewer::Pin& expert : *wanted)
        steering.key[size_t{expert.layer} * shape.n_experts + expert.expert] = SILENT;
    model_.engine->set_steering(steering);
}

std::string LiveSource::failure() const {
    const std::lock_guard lock(mutex_);
    return failure_;
}

void LiveSource::run() {
    for (;;) {
        viewer::Request request;
        {
            std::unique_lock lock(mutex_);
            busy_ = request_.has_value();
            asked_.wait(lock, [&] { return ending_ || request_.has_value(); });
            if (ending_) return;
            request = std::move(*request_);
            request_.reset();
            stopped_ = false;
        }
        try {
            serve(request);
        } catch (const std::exception& error) {
            const std::lock_guard lock(mutex_);
            failure_ = error.what();
        }
    }
}

Session& LiveSource::session_for(const viewer::Request& request) {
    while (sessions_.size() >= MOST_SESSIONS) sessions_.erase(sessions_.begin());
    const auto known = request.session ? sessions_.find(*request.session) : sessions_.end();
    if (known == sessions_.end()) {
        if (request.session) throw Error({.what = "this session is closed", .fix = "begin a new one"});
        Session fresh = model_.engine->open();
        const uint32_t number = fresh.number();
        Session& session = sessions_.emplace(number, std::move(fresh)).first->second;
        if (const auto bos = model_.bos()) session.feed(std::vector<Token>{*bos});
        return session;
    }
    if (request.keep == known->second.position()) return known->second;
    Session fork = known->second.fork(); // the past stays as it was, beside the new branch
    const uint32_t number = fork.number();
    Session& session = sessions_.emplace(number, std::move(fork)).first->second;
    session.rewind(std::min(request.keep, session.position()));
    return session;
}

void LiveSource::serve(const viewer::Request& request) {
    steer();
    Session& session = session_for(request);
    session.sampling() = with_known_tokens({.temperature = request.sampling.temperature,
                                            .top_k = request.sampling.top_k,
                                            .top_p = request.sampling.top_p,
                                            .seed = request.sampling.seed},
                                           model_);
    std::vector<Token> tokens = model_.tokenizer.encode(request.text, Added::none);
    if (request.forced) tokens.push_back(*request.forced);
    if (!tokens.empty()) session.feed(tokens);
    if (session.position() == 0)
        throw Error({.what = "there is nothing to begin from", .fix = "write something first"});
    const std::vector<Token>& ends = model_.config().eos;
    for (uint32_t n = 0; n < request.sampling.max_tokens && !stopped_; ++n) {
        steer();
        if (session.position() >= model_.engine->context()) break;
        const Token next = session.next();
        if (std::find(ends.begin(), ends.end(), next) != ends.end()) break;
    }
}

} // namespace fathom::cli
