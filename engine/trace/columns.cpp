#include "trace/columns.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace fathom::trace {

namespace {

// Both directions visit the fields in the same order: `fields` below is the format.
class Out {
  public:
    std::vector<std::byte> bytes;
    template <class T> void field(const T& value) {
        const auto* from = reinterpret_cast<const std::byte*>(&value);
        bytes.insert(bytes.end(), from, from + sizeof(T));
    }
    // A table of `size` values, or none at all: of a trace that was off.
    template <class T> void table(const std::vector<T>& table, size_t size) {
        field(static_cast<uint8_t>(!table.empty()));
        if (table.empty()) return;
        if (table.size() != size) throw std::logic_error("a table of a record has the size of its shape");
        values(table);
    }
    template <class T> void values(const std::vector<T>& all) {
        const auto* from = reinterpret_cast<const std::byte*>(all.data());
        bytes.insert(bytes.end(), from, from + all.size() * sizeof(T));
    }
    void text(const std::string& value) {
        field(static_cast<uint32_t>(value.size()));
        const auto* from = reinterpret_cast<const std::byte*>(value.data());
        bytes.insert(bytes.end(), from, from + value.size());
    }
};

class In {
  public:
    explicit In(std::span<const std::byte> from) : bytes_(from) {}
    template <class T> void field(T& value) { std::memcpy(&value, take(sizeof(T)).data(), sizeof(T)); }
    template <class T> void table(std::vector<T>& table, size_t size) {
        uint8_t present = 0;
        field(present);
        if (present > 1) throw std::out_of_range("a table is there or not");
        if (present) values(table, size);
    }
    template <class T> void values(std::vector<T>& all, uint64_t size) {
        if (size > bytes_.size()) throw std::out_of_range("bytes are missing");
        const std::span<const std::byte> from = take(size * sizeof(T));
        all.resize(size);
        if (size != 0) std::memcpy(all.data(), from.data(), from.size());
    }
    void text(std::string& value) {
        uint32_t size = 0;
        field(size);
        const std::span<const std::byte> from = take(size);
        value.assign(reinterpret_cast<const char*>(from.data()), size);
    }
    void end() const {
        if (!bytes_.empty()) throw std::out_of_range("bytes are left");
    }

  private:
    std::span<const std::byte> take(size_t n) {
        if (n > bytes_.size()) throw std::out_of_range("bytes are missing");
        const auto taken = bytes_.first(n);
        bytes_ = bytes_.subspan(n);
        return taken;
    }
    std::span<const std::byte> bytes_;
};

// Attention rows, whose sizes are their own.
void attention(Out& s, const std::vector<AttentionRows>& all) {
    s.field(static_cast<uint32_t>(all.size()));
    for (const AttentionRows& rows : all) {
        for (const uint32_t value : {rows.layer, rows.first_head, rows.n_heads, rows.pool, rows.bins()})
            s.field(value);
        s.values(rows.weights);
    }
}
void attention(In& s, std::vector<AttentionRows>& all) {
    uint32_t n = 0;
    s.field(n);
    for (uint32_t i = 0; i < n; ++i) {
        AttentionRows& rows = all.emplace_back();
        uint32_t bins = 0;
        for (uint32_t* value : {&rows.layer, &rows.first_head, &rows.n_heads, &rows.pool, &bins})
            s.field(*value);
        if (rows.n_heads == 0 || bins == 0 || rows.pool == 0)
            throw std::out_of_range("attention of no heads or to nothing");
        s.values(rows.weights, uint64_t{rows.n_heads} * bins);
    }
}

void scores(Out& s, const Shape& shape, const std::vector<RouterScores>& all) {
    s.field(static_cast<uint32_t>(all.size()));
    for (const RouterScores& router : all) {
        if (router.scores.size() != shape.n_experts || router.keys.size() != shape.n_experts)
            throw std::logic_error("a router scores all experts");
        s.field(router.layer);
        s.values(router.scores);
        s.values(router.keys);
    }
}
void scores(In& s, const Shape& shape, std::vector<RouterScores>& all) {
    uint32_t n = 0;
    s.field(n);
    for (uint32_t i = 0; i < n; ++i) {
        RouterScores& router = all.emplace_back();
        s.field(router.layer);
        s.values(router.scores, shape.n_experts);
        s.values(router.keys, shape.n_experts);
    }
}

template <class Stream, class Records> void fields(Stream& s, const Shape& shape, Records& records) {
    const size_t layers = shape.moe_layers.size(), choices = shape.choices();
    for (auto& r : records) s.field(r.token);
    for (auto& r : records) s.field(r.position);
    for (auto& r : records) s.field(r.session);
    for (auto& r : records) s.field(r.time);
    for (auto& r : records) s.field(r.next);
    for (auto& r : records) s.table(r.candidates, CANDIDATES);
    for (auto& r : records) s.table(r.experts, choices);
    for (auto& r : records) s.table(r.weights, choices);
    for (auto& r : records) s.table(r.margin, layers);
    for (auto& r : records) s.table(r.entropy, layers);
    for (auto& r : records) s.table(r.swapped, layers);
    for (auto& r : records) s.table(r.groups, layers);
    for (auto& r : records) s.table(r.norms, size_t{shape.n_layers} + 1);
    for (auto& r : records) attention(s, r.attention);
    for (auto& r : records) scores(s, shape, r.scores);
    for (auto& r : records) s.table(r.times, shape.times());
    for (auto& r : records) s.field(r.cache_bytes);
    for (auto& r : records) s.field(r.shared_bytes);
}

template <class Stream, class E> void event_fields(Stream& s, E& event) {
    s.field(event.kind);
    s.field(event.session);
    s.field(event.other);
    s.field(event.position);
    s.field(event.time);
    s.field(event.count);
    s.text(event.text);
}

} // namespace

uint64_t bytes_of(const TokenRecord& record) {
    const auto bytes = [](const auto& table) { return table.size() * sizeof(table[0]); };
    uint64_t sum = bytes(record.experts) + bytes(record.weights) + bytes(record.margin) +
                   bytes(record.entropy) + bytes(record.swapped) + bytes(record.groups) +
                   bytes(record.norms) + bytes(record.times) + bytes(record.candidates);
    for (const AttentionRows& rows : record.attention) sum += sizeof(rows) + bytes(rows.weights);
    for (const RouterScores& router : record.scores)
        sum += sizeof(router) + bytes(router.scores) + bytes(router.keys);
    return sum;
}

std::vector<std::byte> write_columns(const Shape& shape, std::span<const TokenRecord> records) {
    std::vector<TokenRecord> padded(records.begin(), records.end());
    for (TokenRecord& record : padded)
        if (!record.candidates.empty()) record.candidates.resize(CANDIDATES);
    Out out;
    fields(out, shape, std::as_const(padded));
    return std::move(out.bytes);
}

std::vector<TokenRecord> read_columns(const Shape& shape, std::span<const std::byte> bytes, uint32_t count) {
    if (count > bytes.size()) throw std::out_of_range("more records than bytes");
    std::vector<TokenRecord> records(count);
    In in(bytes);
    fields(in, shape, records);
    in.end();
    for (TokenRecord& record : records)
        while (!record.candidates.empty() && record.candidates.back().token == NO_TOKEN)
            record.candidates.pop_back();
    return records;
}

std::vector<std::byte> write_event(const Event& event) {
    Out out;
    event_fields(out, event);
    return std::move(out.bytes);
}

Event read_event(std::span<const std::byte> bytes) {
    Event event;
    In in(bytes);
    event_fields(in, event);
    in.end();
    if (event.kind < Event::Kind::opened || event.kind > Event::Kind::note)
        throw std::out_of_range("an event of no kind");
    return event;
}

} // namespace fathom::trace
