#include "server/live.h"

#include "base/error.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <random>

namespace fathom::server {

namespace {

constexpr std::chrono::milliseconds PERIOD{16}; // between messages: no display shows more

std::string random_name() {
    std::random_device dice;
    return fmt::format("{:08x}{:08x}", dice(), dice());
}

} // namespace

struct Live::Viewer {
    std::shared_ptr<Socket> socket;
    std::deque<std::shared_ptr<const Message>> waiting;
    size_t waiting_bytes = 0;
    uint64_t lost = 0;                            // records, that it was not told of yet
    std::vector<std::byte> texts;                 // of messages that were dropped
    std::deque<std::pair<uint32_t, size_t>> sent; // not acknowledged: number, bytes
    size_t sent_bytes = 0;
    uint32_t sequence = 0;
    bool paused = false;
};

Live::Live(trace::Control& control, trace::Identity identity, trace::TextOf text_of)
    : control_(control), identity_(std::move(identity)),
      hello_(trace::hello_text({.run = random_name(), .identity = identity_})),
      encoder_(identity_.shape, std::move(text_of),
               [this](trace::Kind kind, std::span<const std::byte> frame, uint32_t count) {
                   made_.emplace_back(kind, std::vector(frame.begin(), frame.end()));
                   if (kind == trace::Kind::tokens) made_records_ += count;
               }) {
    thread_ = std::thread([this] { run(); });
}

Live::~Live() {
    queue_.close();
    thread_.join();
}

void Live::run() {
    while (!queue_.closed()) {
        const std::vector<trace::Packet> packets = queue_.take_within(PERIOD * 4);
        {
            const std::lock_guard lock(mutex_);
            if (!packets.empty()) take(packets);
            tell_state();
        }
        if (!packets.empty()) std::this_thread::sleep_for(PERIOD);
    }
}

void Live::take(const std::vector<trace::Packet>& packets) {
    made_.clear();
    made_records_ = 0;
    for (const trace::Packet& packet : packets) {
        encoder_.write(packet);
        const auto* event = std::get_if<trace::Event>(&packet);
        if (event && event->kind == trace::Event::Kind::memory) memory_[event->text] = frame_of(*event);
    }
    encoder_.flush();
    auto message = std::make_shared<Message>();
    message->records = made_records_;
    for (const auto& [kind, frame] : made_) {
        auto& part = kind == trace::Kind::texts ? message->texts : message->frames;
        part.insert(part.end(), frame.begin(), frame.end());
    }
    kept_.push_back(message);
    kept_bytes_ += message->size();
    while (kept_bytes_ > KEPT && kept_.size() > 1) {
        kept_bytes_ -= kept_.front()->size();
        forgotten_ += kept_.front()->records;
        kept_.pop_front();
    }
    for (const auto& viewer : viewers_) offer(*viewer, message);
}

void Live::offer(Viewer& viewer, const std::shared_ptr<const Message>& message) {
    viewer.waiting.push_back(message);
    viewer.waiting_bytes += message->size();
    while (viewer.waiting_bytes > MOST_WAITING && viewer.waiting.size() > 1) {
        const Message& oldest = *viewer.waiting.front();
        viewer.waiting_bytes -= oldest.size();
        viewer.lost += oldest.records, lost_ += oldest.records;
        viewer.texts.insert(viewer.texts.end(), oldest.texts.begin(), oldest.texts.end());
        viewer.waiting.pop_front();
    }
    send(viewer);
}

std::vector<std::byte> Live::frame_of(const trace::Event& event) const {
    std::vector<std::byte> frame;
    trace::Encoder(identity_.shape, nullptr, [&](trace::Kind, std::span<const std::byte> made, uint32_t) {
        frame.assign(made.begin(), made.end());
    }).write(event);
    return frame;
}

void Live::send(Viewer& viewer) {
    while (!viewer.paused && !viewer.waiting.empty() && viewer.sent_bytes < trace::CREDIT) {
        const Message& next = *viewer.waiting.front();
        const uint32_t sequence = ++viewer.sequence;
        std::string bytes(sizeof(sequence), '\0');
        std::memcpy(bytes.data(), &sequence, sizeof(sequence));
        const auto add = [&](const std::vector<std::byte>& part) {
            bytes.append(reinterpret_cast<const char*>(part.data()), part.size());
        };
        add(std::exchange(viewer.texts, {}));
        if (viewer.lost != 0)
            add(frame_of({.kind = trace::Event::Kind::gap, .count = std::exchange(viewer.lost, 0)}));
        add(next.texts);
        add(next.frames);
        viewer.waiting_bytes -= next.size();
        viewer.waiting.pop_front();
        viewer.sent.emplace_back(sequence, bytes.size());
        viewer.sent_bytes += bytes.size();
        viewer.socket->send(std::move(bytes), true);
    }
}

void Live::tell_state() {
    trace::State now{control_.busy(), control_.failure(), control_.profile()};
    if (now == state_) return;
    state_ = std::move(now);
    const std::string text = trace::state_text(state_);
    for (const auto& viewer : viewers_) viewer->socket->send(text, false);
}

SocketHandler Live::join(std::shared_ptr<Socket> socket, std::string_view protocol) {
    if (protocol != trace::wire_protocol()) {
        socket->send(
            trace::refusal_text(fmt::format("it speaks {}, and this viewer asked for '{}': use both of the "
                                            "same release, or load the page again",
                                            trace::wire_protocol(), printable(protocol, 40))),
            false);
        socket->close(1002, "another version");
        return {[](std::string_view) {}, [] {}};
    }
    const auto viewer = std::make_shared<Viewer>();
    viewer->socket = std::move(socket);
    const std::lock_guard lock(mutex_);
    viewer->socket->send(hello_, false);
    viewer->socket->send(trace::state_text(state_), false);
    viewer->texts = encoder_.all_texts();
    viewer->lost = forgotten_;
    for (const auto& [owner, frame] : memory_)
        viewer->texts.insert(viewer->texts.end(), frame.begin(), frame.end());
    viewers_.push_back(viewer);
    for (const auto& message : kept_)
        viewer->waiting.push_back(message), viewer->waiting_bytes += message->size();
    send(*viewer);
    return {[this, viewer](std::string_view text) { hear(viewer, text); },
            [this, viewer] {
                const std::lock_guard held(mutex_);
                viewers_.remove(viewer);
            }};
}

void Live::hear(const std::shared_ptr<Viewer>& viewer, std::string_view text) {
    try {
        const trace::Command command = trace::parse_command(text, identity_.shape);
        const std::lock_guard lock(mutex_);
        act(command, *viewer);
        tell_state();
    } catch (const std::exception& error) { // whatever a message holds: the server lives on
        viewer->socket->send(trace::refusal_text(error.what()), false);
        viewer->socket->close(1007, "a message that makes no sense");
    }
}

void Live::act(const trace::Command& command, Viewer& viewer) {
    if (const auto* ack = std::get_if<trace::Ack>(&command)) {
        while (!viewer.sent.empty() && viewer.sent.front().first <= ack->sequence) {
            viewer.sent_bytes -= viewer.sent.front().second;
            viewer.sent.pop_front();
        }
        send(viewer);
    } else if (const auto* pause = std::get_if<trace::Pause>(&command)) {
        viewer.paused = pause->on;
        send(viewer);
    } else if (const auto* request = std::get_if<trace::Request>(&command)) {
        control_.generate(*request);
    } else if (const auto* experts = std::get_if<std::vector<trace::Steered>>(&command)) {
        control_.steer(*experts);
    } else if (const auto* watch = std::get_if<trace::LayerWatch>(&command)) {
        control_.watch(*watch);
    } else if (std::holds_alternative<trace::Measure>(command)) {
        control_.measure();
    } else {
        control_.stop();
    }
}

Live::Counts Live::counts() const {
    const std::lock_guard lock(mutex_);
    return {static_cast<uint32_t>(viewers_.size()), lost_};
}

} // namespace fathom::server
