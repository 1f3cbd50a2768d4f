#include "viewer/store.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <map>

namespace fathom::viewer {

namespace {

void drop_tables(trace::TokenRecord& r) {
    r.experts = {}, r.weights = {}, r.margin = {}, r.entropy = {}, r.swapped = {}, r.groups = {};
    r.norms = {}, r.candidates = {}, r.attention = {}, r.scores = {}, r.times = {};
}

} // namespace

uint32_t Timeline::size() const {
    const auto n = static_cast<uint32_t>(slots.size());
    const bool follows = n > 0 && slots.back().record.next != trace::NO_TOKEN;
    return n + (follows ? 1 : 0);
}

const trace::TokenRecord* Timeline::record(uint32_t position) const {
    if (position >= slots.size() || slots[position].state == Slot::State::missing) return nullptr;
    return &slots[position].record;
}

Token Timeline::token(uint32_t position) const {
    if (const trace::TokenRecord* r = record(position)) return r->token;
    const trace::TokenRecord* before = position > 0 ? record(position - 1) : nullptr;
    return before ? before->next : trace::NO_TOKEN;
}

bool Timeline::generated(uint32_t position) const {
    const trace::TokenRecord* before = position > 0 ? record(position - 1) : nullptr;
    return before && before->next != trace::NO_TOKEN && before->next == token(position);
}

double probability(const Timeline& timeline, uint32_t position) {
    const trace::TokenRecord* before = position > 0 ? timeline.record(position - 1) : nullptr;
    if (before)
        for (const trace::Candidate& c : before->candidates)
            if (c.token == timeline.token(position)) return std::exp(double(c.logprob));
    return std::numeric_limits<double>::quiet_NaN();
}

double uncertainty(const Timeline& timeline, uint32_t position) {
    const trace::TokenRecord* before = position > 0 ? timeline.record(position - 1) : nullptr;
    if (!before || before->candidates.empty()) return std::numeric_limits<double>::quiet_NaN();
    double bits = 0, rest = 1;
    for (const trace::Candidate& c : before->candidates) {
        const double p = std::exp(double(c.logprob));
        rest -= p;
        if (p > 0) bits -= p * std::log2(p);
    }
    return rest > 1e-9 ? bits - rest * std::log2(rest) : bits;
}

Store::Store(trace::Identity identity, trace::TextOf text_of, uint64_t limit, size_t most_slots)
    : identity_(std::move(identity)), text_of_(std::move(text_of)), limit_(limit), most_slots_(most_slots) {}

void Store::begin_anew(trace::Identity identity) {
    const uint64_t revision = revision_;
    *this = Store(std::move(identity), std::move(text_of_), limit_, most_slots_);
    revision_ = revision + 1; // what was made of the old ones is stale
}

namespace {

// A value of an object that may be anything: a file says what it likes.
const nlohmann::json* value_of(const nlohmann::json& object, const char* key) {
    if (!object.is_object()) return nullptr;
    const auto it = object.find(key);
    return it == object.end() ? nullptr : &*it;
}

const nlohmann::json* model_fact(const trace::Identity& identity, const char* key) {
    const nlohmann::json* model = value_of(identity.facts, "model");
    return model ? value_of(*model, key) : nullptr;
}

} // namespace

double Store::model_number(const char* key) const {
    const nlohmann::json* value = model_fact(identity_, key);
    return value && value->is_number() ? value->get<double>() : 0;
}

bool Store::model_says(const char* key) const {
    const nlohmann::json* value = model_fact(identity_, key);
    return value && value->is_boolean() && value->get<bool>();
}

std::vector<double> Store::model_numbers(const char* key) const {
    const nlohmann::json* list = model_fact(identity_, key);
    std::vector<double> numbers;
    if (!list || !list->is_array()) return numbers;
    for (const nlohmann::json& value : *list)
        if (value.is_number() && numbers.size() < 1024) numbers.push_back(value.get<double>());
    return numbers;
}

std::string Store::model_name() const {
    const nlohmann::json* value = model_fact(identity_, "name");
    return value && value->is_string() ? value->get<std::string>() : std::string();
}

std::string Store::device() const {
    const nlohmann::json* value = value_of(identity_.facts, "device");
    return value && value->is_string() ? value->get<std::string>() : std::string();
}

void Store::ingest(const trace::Packet& packet) {
    ++revision_;
    if (const auto* record = std::get_if<trace::TokenRecord>(&packet))
        put(*record);
    else
        take_event(std::get<trace::Event>(packet));
}

const Timeline* Store::timeline(uint32_t session) const {
    const auto it = std::find_if(timelines_.begin(), timelines_.end(),
                                 [&](const Timeline& t) { return t.session == session; });
    return it == timelines_.end() ? nullptr : &*it;
}

Timeline& Store::timeline_of(uint32_t session) {
    if (const Timeline* known = timeline(session)) return timelines_[size_t(known - timelines_.data())];
    timelines_.push_back({.session = session});
    return timelines_.back();
}

// A record comes again where a session repeats a run of tokens after a rewind: the later one holds.
void Store::put(const trace::TokenRecord& record) {
    const size_t known = timeline_of(record.session).slots.size(), wanted = size_t{record.position} + 1;
    if (wanted > known) make_slots(record.session, wanted - known);
    Timeline& timeline = timeline_of(record.session);
    if (wanted > known) {
        const size_t more = wanted - known;
        if (more > most_slots_ - slots_) {
            ++lost_;
            return;
        }
        slots_ += more;
        timeline.slots.resize(wanted);
    }
    Timeline::Slot& slot = timeline.slots[record.position];
    const uint64_t before = trace::bytes_of(slot.record), after = trace::bytes_of(record);
    slot.record = record;
    slot.state = record.experts.empty() && !shape().moe_layers.empty() ? Timeline::Slot::State::bare
                                                                       : Timeline::Slot::State::whole;
    timeline.tables += after - before;
    bytes_ += after - before;
    for (const float weight : record.weights) timeline.largest = std::max(timeline.largest, weight);
    if (!record.times.empty()) timeline.timed.push_back(record.position);
    for (const trace::AttentionRows& rows : record.attention) {
        const auto at = std::lower_bound(watched_.begin(), watched_.end(), rows.layer);
        if (at == watched_.end() || *at != rows.layer) watched_.insert(at, rows.layer);
    }
    if (bytes_ > limit_) thin();
}

// Lets the sessions that were closed first go, but this one, until there is room for so many positions more.
void Store::make_slots(uint32_t session, size_t more) {
    for (auto it = timelines_.begin(); it != timelines_.end() && more > most_slots_ - slots_;) {
        if (!it->closed || it->session == session) {
            ++it;
            continue;
        }
        slots_ -= it->slots.size(), bytes_ -= it->tables;
        thinned_ += it->slots.size();
        it = timelines_.erase(it);
    }
}

void Store::cut(Timeline& timeline, uint32_t position) {
    while (timeline.slots.size() > position) {
        const uint64_t bytes = trace::bytes_of(timeline.slots.back().record);
        timeline.tables -= bytes, bytes_ -= bytes;
        timeline.slots.pop_back();
        --slots_;
    }
    std::erase_if(timeline.timed, [&](uint32_t at) { return at >= position; });
    if (timeline.slots.empty()) return;
    // its last token may be followed by another one now
    trace::TokenRecord& last = timeline.slots.back().record;
    if (timeline.slots.size() == position) last.next = trace::NO_TOKEN;
}

void Store::take_event(const trace::Event& event) {
    using Kind = trace::Event::Kind;
    if (event.kind == Kind::gap) lost_ += event.count;
    if (event.kind == Kind::opened) timeline_of(event.session);
    if (event.kind == Kind::closed) timeline_of(event.session).closed = true;
    if (event.kind == Kind::rewound) cut(timeline_of(event.session), event.position);
    if (event.kind == Kind::memory) {
        const auto known = std::find_if(memory_.begin(), memory_.end(),
                                        [&](const trace::Event& m) { return m.text == event.text; });
        if (known == memory_.end())
            memory_.push_back(event);
        else
            *known = event;
    }
    if (event.kind != Kind::forked) return;
    timeline_of(event.session);
    Timeline& fork = timeline_of(event.session);
    fork.parent = event.other;
    fork.forked_at = event.position;
    const Timeline* parent = timeline(event.other);
    if (!parent) return;
    fork.largest = parent->largest;
    for (const uint32_t at : parent->timed)
        if (at < event.position) fork.timed.push_back(at);
    for (const Timeline::Slot& slot : parent->slots) {
        if (fork.slots.size() >= event.position || slots_ == most_slots_) break;
        ++slots_;
        fork.slots.push_back(slot);
        fork.tables += trace::bytes_of(slot.record), bytes_ += trace::bytes_of(slot.record);
    }
}

// Lets an eighth go, the oldest of the largest timeline first.
void Store::thin() {
    while (bytes_ > limit_ - limit_ / 8) {
        auto largest =
            std::max_element(timelines_.begin(), timelines_.end(),
                             [](const Timeline& a, const Timeline& b) { return a.tables < b.tables; });
        bool any = false;
        for (Timeline::Slot& slot : largest->slots) {
            const uint64_t bytes = trace::bytes_of(slot.record);
            if (bytes == 0) continue;
            drop_tables(slot.record);
            slot.state = Timeline::Slot::State::bare;
            largest->tables -= bytes, bytes_ -= bytes;
            ++thinned_;
            any = true;
            if (bytes_ <= limit_ - limit_ / 8) return;
        }
        if (!any) return;
    }
}

std::vector<uint32_t> Store::load(const Timeline& timeline, uint32_t begin, uint32_t end) const {
    const size_t layers = shape().moe_layers.size(), experts = shape().n_experts, active = shape().n_active;
    std::vector<uint32_t> counts(layers * experts);
    for (uint32_t i = begin; i < std::min<size_t>(end, timeline.slots.size()); ++i) {
        const std::vector<uint16_t>& chosen = timeline.slots[i].record.experts;
        if (chosen.empty()) continue;
        for (size_t layer = 0; layer < layers; ++layer)
            for (size_t k = 0; k < active; ++k) ++counts[layer * experts + chosen[layer * active + k]];
    }
    return counts;
}

Balance Store::balance(std::span<const uint32_t> load, uint32_t tokens) const {
    const double experts = shape().n_experts, active = shape().n_active;
    Balance out;
    double sum = 0, squares = 0, most = 0, nats = 0;
    size_t idle = 0;
    for (const uint32_t count : load) {
        sum += count, squares += double(count) * count, most = std::max<double>(most, count);
        idle += count == 0;
    }
    if (sum == 0 || tokens == 0) return out;
    const double mean = sum / experts;
    for (const uint32_t count : load)
        if (count != 0) nats -= count / sum * std::log(count / sum);
    out.cv = std::sqrt(std::max(0.0, squares / experts - mean * mean)) / mean;
    out.chance_cv = std::sqrt((experts - active) / (tokens * active));
    out.entropy = experts > 1 ? nats / std::log(experts) : 1;
    out.effective = std::exp(nats);
    out.max_violation = most / mean - 1;
    out.idle = static_cast<double>(idle) / experts;
    out.chance_idle = std::pow(1 - active / experts, tokens);
    return out;
}

std::vector<Use> Store::uses(const Timeline& timeline, uint32_t layer, uint32_t expert) const {
    std::vector<Use> found;
    const uint32_t active = shape().n_active;
    for (uint32_t i = 0; i < timeline.slots.size(); ++i) {
        const trace::TokenRecord& r = timeline.slots[i].record;
        if (r.experts.empty()) continue;
        for (uint32_t k = 0; k < active; ++k)
            if (r.experts[size_t{layer} * active + k] == expert)
                found.push_back({i, k, r.weights[size_t{layer} * active + k]});
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Use& a, const Use& b) { return a.weight > b.weight; });
    return found;
}

std::vector<std::pair<uint32_t, uint32_t>> Store::partners(const Timeline& timeline, uint32_t layer,
                                                           uint32_t expert, size_t n) const {
    const uint32_t active = shape().n_active;
    std::vector<uint32_t> times(shape().n_experts);
    for (const Timeline::Slot& slot : timeline.slots) {
        if (slot.record.experts.empty()) continue;
        const auto chosen = std::span(slot.record.experts).subspan(size_t{layer} * active, active);
        if (std::find(chosen.begin(), chosen.end(), expert) == chosen.end()) continue;
        for (const uint16_t other : chosen) times[other] += other != expert;
    }
    std::vector<std::pair<uint32_t, uint32_t>> all;
    for (uint32_t e = 0; e < times.size(); ++e)
        if (times[e] != 0) all.emplace_back(e, times[e]);
    std::stable_sort(all.begin(), all.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    all.resize(std::min(n, all.size()));
    return all;
}

namespace {

// Seconds between a generated token and the one before it.
std::vector<double> gaps(const Timeline& timeline, size_t most) {
    std::vector<double> seconds;
    for (size_t i = timeline.slots.size(); i-- > 1 && seconds.size() < most;) {
        const trace::TokenRecord &a = timeline.slots[i - 1].record, &b = timeline.slots[i].record;
        if (a.next == trace::NO_TOKEN || b.next == trace::NO_TOKEN || b.time <= a.time) continue;
        seconds.push_back(static_cast<double>(b.time - a.time) * 1e-9);
    }
    return seconds;
}

} // namespace

double Store::speed(const Timeline& timeline, uint32_t window) const {
    const std::vector<double> seconds = gaps(timeline, window);
    double sum = 0;
    for (const double s : seconds) sum += s;
    return sum > 0 ? static_cast<double>(seconds.size()) / sum : 0;
}

double Store::token_seconds(const Timeline& timeline, double q) const {
    std::vector<double> seconds = gaps(timeline, 4096);
    if (seconds.empty()) return 0;
    const auto at = static_cast<size_t>(q * static_cast<double>(seconds.size() - 1) + 0.5);
    std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(at), seconds.end());
    return seconds[at];
}

double Store::first_token_seconds(const Timeline& timeline) const {
    const trace::TokenRecord* first = nullptr;
    for (const Timeline::Slot& slot : timeline.slots) {
        if (slot.state == Timeline::Slot::State::missing) continue;
        if (!first) first = &slot.record;
        if (slot.record.next != trace::NO_TOKEN)
            return static_cast<double>(slot.record.time - first->time) * 1e-9;
    }
    return 0;
}

const trace::AttentionRows* Store::attention(const Timeline& timeline, uint32_t position, uint32_t layer) {
    const trace::TokenRecord* record = timeline.record(position);
    if (!record) return nullptr;
    const auto it = std::find_if(record->attention.begin(), record->attention.end(),
                                 [&](const trace::AttentionRows& rows) { return rows.layer == layer; });
    return it == record->attention.end() ? nullptr : &*it;
}

const trace::TokenRecord* Store::timed(const Timeline& timeline, uint32_t position) {
    for (auto it = timeline.timed.rbegin(); it != timeline.timed.rend(); ++it) {
        const trace::TokenRecord* record = *it <= position ? timeline.record(*it) : nullptr;
        if (record && !record->times.empty()) return record;
    }
    return nullptr;
}

trace::Difference Store::difference(const Timeline& a, const Timeline& b) const {
    const auto records = [](const Timeline& t) {
        std::vector<const trace::TokenRecord*> all;
        for (uint32_t i = 0; i < t.slots.size(); ++i) all.push_back(t.record(i));
        return all;
    };
    return trace::compare(shape(), records(a), records(b));
}

std::vector<uint32_t> Store::find(const Timeline& timeline, std::string_view text, size_t most) const {
    std::vector<uint32_t> found;
    if (text.empty()) return found;
    for (uint32_t i = 0; i < timeline.size() && found.size() < most; ++i)
        if (const Token token = timeline.token(i);
            token != trace::NO_TOKEN && this->text(token).find(text) != std::string::npos)
            found.push_back(i);
    return found;
}

Focus focus(const trace::AttentionRows& rows, uint32_t head, uint32_t position) {
    Focus f;
    const uint32_t bins = rows.bins();
    const auto weights = std::span(rows.weights).subspan(size_t{head} * bins, bins);
    f.sink = weights.front();
    for (uint32_t i = 0; i < bins; ++i) {
        const double w = weights[i];
        if (w > 0) f.entropy -= w * std::log2(w);
        if (w > weights[f.most]) f.most = i;
        const uint64_t end = std::min<uint64_t>(uint64_t{i + 1} * rows.pool, uint64_t{position} + 1);
        if (end + Focus::LOCAL > position + uint64_t{1}) f.local += w; // its last position is a near one
    }
    return f;
}

std::vector<float> attention_of(const trace::AttentionRows& rows, std::optional<uint32_t> head) {
    const uint32_t bins = rows.bins();
    if (head && *head < rows.n_heads) {
        const auto from = std::span(rows.weights).subspan(size_t{*head} * bins, bins);
        return {from.begin(), from.end()};
    }
    std::vector<float> mean(bins);
    for (uint32_t h = 0; h < rows.n_heads; ++h)
        for (uint32_t i = 0; i < bins; ++i)
            mean[i] += rows.weights[size_t{h} * bins + i] / static_cast<float>(rows.n_heads);
    return mean;
}

TokenClass class_of(std::string_view text) {
    if (text.empty() || text.starts_with("<|") || text.starts_with("<\uFF5C")) return TokenClass::special;
    const bool spaced = text[0] == ' ';
    const std::string_view rest = text.substr(spaced ? 1 : 0);
    const auto all = [&](auto is) {
        return std::all_of(rest.begin(), rest.end(),
                           [&](char c) { return is(static_cast<unsigned char>(c)); });
    };
    if (all([](unsigned char c) { return c <= ' '; })) return TokenClass::space;
    if (all([](unsigned char c) { return c >= '0' && c <= '9'; })) return TokenClass::number;
    if (all([](unsigned char c) { return c < 0x80 && !std::isalnum(c); })) return TokenClass::punctuation;
    if (static_cast<unsigned char>(rest[0]) >= 0xE0) return TokenClass::other; // U+0800 and beyond
    return spaced ? TokenClass::begins_word : TokenClass::within_word;
}

std::vector<std::optional<uint32_t>> Store::specialists(const Timeline& timeline,
                                                        const std::function<bool(Token)>& is_of_kind,
                                                        uint32_t at_least) const {
    const size_t layers = shape().moe_layers.size(), experts = shape().n_experts, active = shape().n_active;
    std::vector<uint32_t> all(layers * experts), of_kind(layers * experts);
    for (const Timeline::Slot& slot : timeline.slots) {
        const bool kind = is_of_kind(slot.record.token);
        for (size_t c = 0; c < slot.record.experts.size(); ++c) {
            const size_t at = c / active * experts + slot.record.experts[c];
            ++all[at];
            of_kind[at] += kind;
        }
    }
    std::vector<std::optional<uint32_t>> found(layers);
    for (size_t l = 0; l < layers; ++l) {
        double most = 0;
        for (uint32_t e = 0; e < experts; ++e) {
            const size_t at = l * experts + e;
            const double share = all[at] >= std::max(1u, at_least) ? double(of_kind[at]) / all[at] : 0;
            if (share > most) most = share, found[l] = e;
        }
    }
    return found;
}

} // namespace fathom::viewer
