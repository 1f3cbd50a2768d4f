// Steps that generate: a token each for a set of sessions. The device samples, advances its own state and can
// go on at once, so that the next step is started before the last one's tokens are read: the host never
// stands between two tokens. When other work comes between, the tokens of steps under way are kept for their
// sessions. Those of a session that has changed meanwhile are thrown away: they wrote cache rows that will be
// written again, and counted tokens, which are counted anew.
#include "session/engine_impl.h"

#include "base/error.h"

#include <algorithm>
#include <cstring>

namespace fathom {

void Engine::Impl::land() {
    while (!flight.steps.empty()) {
        std::vector<Kept> results = take_step();
        for (size_t i = 0; i < results.size(); ++i)
            kept[flight.rows[i].session].push_back(std::move(results[i]));
    }
    flight = {};
}

bool Engine::Impl::continues_flight(std::span<Session::Impl* const> sessions) const {
    const auto is_row = [&](const Session::Impl* s) {
        return std::any_of(flight.rows.begin(), flight.rows.end(), [&](const Flight::Row& row) {
            return row.session == s && row.position == s->cached && row.changes == s->changes;
        });
    };
    return sessions.size() == flight.rows.size() && std::all_of(sessions.begin(), sessions.end(), is_row);
}

void Engine::Impl::begin_flight(std::span<Session::Impl* const> sessions) {
    std::vector<StepRow> rows;
    for (Session::Impl* s : sessions) {
        flight.rows.push_back({s, s->tokens[s->cached], s->cached, s->changes});
        rows.push_back({s->tokens[s->cached], s->cached, s->sequence});
    }
    const StepKind kind{StepKind::Mode::decode, bucket_for(static_cast<uint32_t>(rows.size()))};
    model->write_step(kind, rows, trace_slot);
    flight.plan = &model->plan(kind);
    flight.trace_slot = trace_slot;
}

// Whether every session can take a token more than those under way will give it.
bool Engine::Impl::has_room_ahead() const {
    size_t new_pages = 0;
    for (const Flight::Row& row : flight.rows) {
        const size_t position = row.position + flight.steps.size();
        if (position + 2 > context) return false;
        const size_t page = position / PAGE_TOKENS;
        new_pages += page >= row.session->pages.size() || pages.is_shared(row.session->pages[page]);
    }
    return new_pages <= pages.available();
}

void Engine::Impl::launch_step() {
    for (const Flight::Row& row : flight.rows) {
        const auto position = static_cast<uint32_t>(row.position + flight.steps.size());
        make_room(*row.session, position, position + 1);
    }
    const bool timed = is_time_to_time();
    flight.steps.push_back({executor->start(*flight.plan, timed), timed});
    trace_slot += static_cast<uint32_t>(flight.rows.size());
}

// Waits for the oldest step and takes what it gave to each row, which the flight goes on from.
std::vector<Engine::Impl::Kept> Engine::Impl::take_step() try {
    const Flight::Step step = flight.steps.front();
    executor->wait(step.ticket);
    flight.steps.pop_front();
    const std::vector<float> times = step.timed ? stage_times(*flight.plan) : std::vector<float>{};
    std::vector<Kept> results;
    for (Flight::Row& row : flight.rows) {
        const uint32_t position = row.position + 1;
        const uint32_t slot = row.session->sequence * SAMPLED_RING + position % SAMPLED_RING;
        Kept result{{},
                    record_of(StepKind::Mode::decode, flight.trace_slot++, row.token, row.position),
                    epoch,
                    row.changes};
        std::memcpy(&result.sampled, executor->mapped(model->sampled) + slot * sizeof(Sampled),
                    sizeof(Sampled));
        check(result.sampled.token < model->config.vocab_size && result.sampled.position == position,
              "the sampler served this session");
        result.record.times = times;
        row.token = result.sampled.token;
        row.position = position;
        results.push_back(std::move(result));
    }
    return results;
} catch (...) {
    flight = {}; // the device is lost, or not to be trusted
    throw;
}

// Afterwards the session belongs to its owner again.
void Engine::Impl::deliver(Session::Impl& s, Kept& result) {
    const Sampled& out = result.sampled;
    s.add_segment({s.cached, out.position, false});
    s.cached = out.position;
    s.tokens.push_back(out.token);
    s.candidates.clear();
    for (uint32_t i = 0; i < MAX_CANDIDATES && out.candidate[i] != 0xFFFFFFFFu; ++i)
        s.candidates.push_back({out.candidate[i], out.logit[i] - out.largest - out.log_sum});
    result.record.next = out.token;
    for (size_t i = 0; i < std::min<size_t>(s.candidates.size(), trace::CANDIDATES); ++i)
        result.record.candidates.push_back({s.candidates[i].token, s.candidates[i].logprob});
    keep_record(s, std::move(result.record));
    finish(s, nullptr);
}

// The token that a step has given already, if nothing has changed since then.
bool Engine::Impl::deliver_kept(Session::Impl& s) {
    const auto it = kept.find(&s);
    if (it == kept.end()) return false;
    Kept& first = it->second.front();
    if (first.sampled.position == s.cached + 1 && first.changes == s.changes && first.epoch == epoch &&
        !sampler_changed(s)) {
        Kept result = std::move(first);
        it->second.pop_front();
        if (it->second.empty()) kept.erase(it);
        deliver(s, result);
        return true;
    }
    kept.erase(it);
    s.counts_valid = false; // the steps counted tokens that are not
    return false;
}

void Engine::Impl::decode(std::vector<Session::Impl*>& sessions) {
    if (!continues_flight(sessions)) {
        land();
        for (Session::Impl* s : std::exchange(sessions, {}))
            if (!deliver_kept(*s)) sessions.push_back(s);
        if (sessions.empty()) return;
        begin_flight(sessions);
    }
    while (flight.steps.empty() || (flight.steps.size() < in_flight && has_room_ahead())) launch_step();
    const Plan& plan = *flight.plan;
    std::vector<Session::Impl*> rows;
    for (const Flight::Row& row : flight.rows) rows.push_back(row.session);
    std::vector<Kept> results = take_step();
    collect_taps(plan, rows);
    served_together = rows.size();
    for (size_t i = 0; i < rows.size(); ++i) {
        std::erase(sessions, rows[i]);
        deliver(*rows[i], results[i]);
    }
}

} // namespace fathom
