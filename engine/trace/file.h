// Recordings: .ftrace files. Frames of records and events behind a header, each compressed with zstd and
// checked by a CRC, then an index; readable while it is still being written, and as far as it goes when its
// end is missing. Self-describing: model, device and settings as JSON, and the text of every token it names.
//
// Layout, little-endian: Header; frames (FrameHeader, then its stored bytes); at the end a frame of kind
// index and Trailer. A tokens frame holds up to FRAME_TOKENS records column by column (write_columns in
// columns.h).
#pragma once

#include "trace/frames.h"
#include "trace/queue.h"

#include <filesystem>
#include <map>
#include <memory>
#include <thread>

namespace fathom::trace {

// Writes packets as they come. Throws Error when the file cannot be written. A file without finish() lacks
// its index, and is read all the same.
class Writer {
  public:
    Writer(const std::filesystem::path& path, const Identity& identity, TextOf text_of);
    ~Writer();
    Writer(const Writer&) = delete;
    void write(const Packet& packet);
    void flush();  // what was gathered becomes a frame
    void finish(); // the last frame, the index and the trailer

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// One thing of a recording, in order.
struct Entry {
    uint64_t token = 0; // records before it
    Event event;
};

// A recording in memory. Throws Error for what is no recording, for a newer version, or for damage before the
// first record; what is damaged or missing later ends it, and `incomplete` says why.
struct Recording {
    Identity identity;
    std::vector<TokenRecord> tokens;
    std::vector<Entry> events;
    std::map<Token, std::string> texts;
    std::string incomplete; // empty: whole

    std::string text(Token token) const; // "" when it is not known
};
Recording read_recording(const std::filesystem::path& path);
Recording read_recording(std::span<const std::byte> bytes, const std::string& where);

// Records a queue into a file on a thread of its own, until finish(). A failure to write ends it and is
// thrown by finish(); the engine is not slowed down by it, nor by a slow disk.
class FileSink {
  public:
    FileSink(const std::filesystem::path& path, const Identity& identity, TextOf text_of);
    ~FileSink(); // as finish(), but silent
    Queue& queue() { return queue_; }
    void finish();

  private:
    void run();
    Queue queue_;
    Writer writer_;
    std::exception_ptr error_;
    std::thread thread_;
};

} // namespace fathom::trace
